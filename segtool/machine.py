"""What this machine is: processor, cores, versions of what is installed. Nothing here names the machine."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cores() -> int:
    """Cores that this process may use; containers and ``taskset`` may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> tuple[str, frozenset[str]]:
    """Name of the processor, and its instruction sets as Linux spells them; none elsewhere."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or "unknown processor", frozenset()
    fields = dict(re.findall(r"^([^\t:]+?)\s*:[ \t]*(.*)$", text, re.MULTILINE))
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", platform.machine()), frozenset(flags.split())


def version_of(package: str) -> str | None:
    """Of an installed distribution, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
