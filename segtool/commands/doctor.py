"""``segtool doctor``: whether prediction works here, how fast, and what is missing."""

import ctypes
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Literal

import typer

from segtool.version import __version__

Status = Literal["ok", "note", "missing", "failed"]

_CANNOT_PREDICT = 1
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16")
"""Instructions that decide how fast a network runs, as Linux spells them."""
_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        about: What was looked at.
        value: What was found.
        status: ``failed`` where prediction cannot work, ``missing`` where something optional is not there,
            ``note`` where something is odd.
        remedy: The exact line that mends it, where there is one.
    """

    about: str
    value: str
    status: Status = "ok"
    remedy: str = ""


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check this installation: versions, processor, engines, GPU, extras; try the bundled model.

    The exit code is 1 where prediction cannot work.
    """
    from segtool.commands.show import to_json

    checks = (system, dependencies, engines, gpu, extras, trial_run)
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
    model, flags = _processor()
    yield Finding("processor", f"{_cores()}, {model}{', ' + ' '.join(flags) if flags else ''}")
    total, free = _memory_gb()
    if total is not None:
        yield Finding("memory", f"{total:.1f} GB" + (f", {free:.1f} GB free" if free is not None else ""))


def _cores() -> str:
    count = os.cpu_count() or 1
    # Containers and `taskset` may allow fewer; the engine's threads follow these.
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else count
    return f"{usable} cores" if usable == count else f"{usable} of {count} cores"


def _processor() -> tuple[str, list[str]]:
    """Name of the processor, and those of its instruction sets that matter (Linux only)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown processor", []
    fields = dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(.*)$", text, re.MULTILINE))
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name", platform.machine()), [flag for flag in _FLAGS if flag in flags]


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


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
    versions = {package: _version(package) for package in requirements.get("", [])}
    yield Finding("dependencies", ", ".join(f"{name} {version}" for name, version in versions.items() if version))
    for package in (name for name, version in versions.items() if version is None):
        yield Finding("dependencies", f"no {package}", "failed", f"Install it with: pip install {package}")


def engines() -> Iterator[Finding]:
    """ONNX Runtime with its providers, OpenVINO, TensorRT."""
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(builds) == 2:
        yield Finding(
            "onnxruntime",
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files",
            "note",
            "Keep one: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'segtool[gpu]' (or [cpu])",
        )
    try:
        import onnxruntime
    except ImportError as error:
        reason = "not installed" if util.find_spec("onnxruntime") is None else f"cannot be imported ({error})"
        yield Finding(
            "onnxruntime",
            reason,
            "failed",
            "Install it with: pip install 'segtool[cpu]' (CUDA: 'segtool[gpu]')",
        )
    else:
        providers = (name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers())
        yield Finding("onnxruntime", f"{onnxruntime.__version__}, providers: {', '.join(providers)}")
    for package in ("openvino", "tensorrt"):
        yield Finding(package, _version(package) or "not installed (not needed)")


def gpu() -> Iterator[Finding]:
    """CUDA GPUs as the driver lists them, and whether the engine can use them."""
    try:
        names, cuda = cuda_devices()
    except OSError as error:
        yield Finding("gpu", f"no CUDA ({error})")
        return
    yield Finding("gpu", f"{', '.join(names)}; the driver supports CUDA {cuda}")
    if util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        yield Finding(
            "gpu",
            "onnxruntime here cannot use it",
            "note",
            "Replace it with: pip uninstall -y onnxruntime && pip install 'segtool[gpu]'",
        )


def cuda_devices() -> tuple[list[str], str]:
    """Names and memory of the GPUs, and the newest CUDA version that the driver supports.

    The driver's own library is asked, so that nothing else need be installed.

    Raises:
        OSError: No driver, no GPU, or the driver refuses; the message says which.
    """
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
    except OSError as error:
        raise OSError("no NVIDIA driver") from error
    _ask(driver.cuInit, 0)
    count, version = ctypes.c_int(), ctypes.c_int()
    _ask(driver.cuDeviceGetCount, ctypes.byref(count))
    _ask(driver.cuDriverGetVersion, ctypes.byref(version))
    names = []
    for index in range(count.value):
        device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(128)
        _ask(driver.cuDeviceGet, ctypes.byref(device), index)
        _ask(driver.cuDeviceGetName, name, len(name), device)
        _ask(driver.cuDeviceTotalMem_v2, ctypes.byref(memory), device)
        names.append(f"{name.value.decode(errors='replace')} {memory.value / 2**30:.0f} GiB")
    if not names:
        raise OSError("the driver lists no GPU")
    # 12080 is 12.8.
    return names, f"{version.value // 1000}.{version.value % 1000 // 10}"


def _ask(function: Callable[..., int], *arguments: object) -> None:
    code = function(*arguments)
    if code:
        raise OSError(f"the driver answers with error {code}")


def extras() -> Iterator[Finding]:
    """What each extra installs and this installation lacks."""
    for extra, packages in (_requirements() or {}).items():
        if not extra:
            continue
        lacking = [package for package in packages if _version(package) is None]
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


def trial_run() -> Iterator[Finding]:
    """Load the bundled model as ``segtool predict`` does and run it twice on one small input."""
    import numpy as np

    from segtool.backends import load_backend
    from segtool.bundled import default_model
    from segtool.errors import UserError
    from segtool.model_file import read_spec

    try:
        path = default_model()
        spec = read_spec(path)
        backend = load_backend(path)
    except UserError as error:
        yield Finding("trial run", error.problem, "failed", error.remedy)
        return
    extent = spec.input.size if spec.input.rank == 2 else spec.input.patch
    batch = np.random.default_rng(0).standard_normal((1, len(spec.channels), *extent)).astype(np.float32)
    backend.run(batch)  # the first run also plans memory
    start = time.perf_counter()
    logits = backend.run(batch)
    elapsed_s = time.perf_counter() - start
    what = f"{spec.name} on {backend.device}"
    wanted = (1, spec.output_channels, *extent)
    if logits.shape != wanted or not np.isfinite(logits).all():
        yield Finding(
            "trial run",
            f"{what} gives {logits.shape} with numbers that are not finite or of another shape than {wanted}",
            "failed",
            "Install again with: pip install --force-reinstall segtool",
        )
        return
    yield Finding("trial run", f"{what}, {elapsed_s * 1e3:.0f} ms for {'x'.join(str(n) for n in extent)}")
