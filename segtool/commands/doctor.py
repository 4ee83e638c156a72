"""``segtool doctor``: whether prediction works here, how fast, and what is missing."""

import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata, util
from pathlib import Path
from typing import Annotated

import typer

from segtool.commands.doctor_engines import engines, gpu, other_trials, trial_run
from segtool.commands.finding import Finding
from segtool.machine import cores, processor, version_of
from segtool.version import __version__

_CANNOT_PREDICT = 1
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
"""Instructions that decide how fast a network runs, as Linux spells them."""
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check this installation: versions, processor, engines, GPU, extras; try the bundled model.

    The exit code is 1 where prediction cannot work.
    """
    from segtool.commands.show import to_json

    checks = (system, dependencies, engines, gpu, extras, trial_run, other_trials)
    findings: list[Finding] = []
    for check in checks:
        findings += (found := list(check()))
        if not json:
            for finding in found:
                typer.echo(_line(finding))
    works = not any(finding.status == "failed" for finding in findings)
    if json:
        typer.echo(to_json({"works": works, "findings": [asdict(finding) for finding in findings]}))
    else:
        typer.echo("Prediction works here." if works else "Prediction cannot work here: see the lines that failed.")
    if not works:
        raise typer.Exit(_CANNOT_PREDICT)


def _line(finding: Finding) -> str:
    mark = "" if finding.status == "ok" else f"{finding.status}: "
    return f"{finding.about:<15} {mark}{finding.value}" + (f". {finding.remedy}" if finding.remedy else "")


def system() -> Iterator[Finding]:
    """Python, platform, processor, memory."""
    yield Finding("segtool", f"{__version__} in {Path(__file__).resolve().parent.parent}")
    yield Finding("python", f"{platform.python_version()} {platform.python_implementation()}, {sys.executable}")
    yield Finding("platform", f"{platform.system()} {platform.release()} {platform.machine()}")
    model, able = processor()
    flags = [flag for flag in _FLAGS if flag in able]
    yield Finding("processor", f"{_cores()}, {model}{', ' + ' '.join(flags) if flags else ''}")
    total, free = _memory_gb()
    if total is not None:
        yield Finding("memory", f"{total:.1f} GB" + (f", {free:.1f} GB free" if free is not None else ""))


def _cores() -> str:
    count = os.cpu_count() or 1
    usable = cores()  # the engine's threads follow these
    return f"{usable} cores" if usable == count else f"{usable} of {count} cores"


def _memory_gb() -> tuple[float | None, float | None]:
    """Memory in all and memory free, each None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        names = getattr(os, "sysconf_names", {})
        if "SC_PHYS_PAGES" not in names:
            return None, None
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, None
    kilobytes = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    free = kilobytes.get("MemAvailable")
    return kilobytes["MemTotal"] * 1024 / 1e9, None if free is None else free * 1024 / 1e9


def _requirements() -> dict[str, list[str]] | None:
    """Extra to the packages it installs, ``""`` for those always installed; None without an installation."""
    try:
        lines = metadata.requires("segtool") or []
    except metadata.PackageNotFoundError:
        return None
    found: dict[str, list[str]] = {}
    for line in lines:
        extra, package = _EXTRA.search(line), _REQUIREMENT.match(line)
        if package is not None:
            found.setdefault(extra[1] if extra else "", []).append(package[0])
    return found


def dependencies() -> Iterator[Finding]:
    """The packages that segtool always needs."""
    requirements = _requirements()
    if requirements is None:
        yield Finding(
            "dependencies",
            "segtool runs from a folder, not installed",
            "note",
            "Install it with: pip install -e .",
        )
        return
    versions = {package: version_of(package) for package in requirements.get("", [])}
    yield Finding("dependencies", ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    for package in (name for name, version in versions.items() if version is None):
        yield Finding("dependencies", f"no {package}", "failed", f"Install it with: pip install {package}")


def extras() -> Iterator[Finding]:
    """What each extra installs and this installation lacks."""
    for extra, packages in (_requirements() or {}).items():
        if not extra:
            continue
        lacking = [package for package in packages if version_of(package) is None]
        if not lacking:
            yield Finding(f"[{extra}]", "complete")
        elif extra in ("cpu", "gpu") and util.find_spec("onnxruntime") is not None:
            yield Finding(f"[{extra}]", "not installed, the other build of onnxruntime is")
        else:
            yield Finding(
                f"[{extra}]",
                f"no {', '.join(lacking)}",
                "missing",
                f"Install with: pip install 'segtool[{extra}]'",
            )
