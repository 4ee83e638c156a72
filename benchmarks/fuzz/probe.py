"""One input: read it, measure it, and keep it where something is wrong."""

import hashlib
import json
import mmap
import os
import resource
import struct
import time
import traceback
from pathlib import Path

from benchmarks.fuzz import GROWTH_MB, HEADROOM_MB, SECONDS
from benchmarks.fuzz.target import Target, memory_asked
from segtool.errors import SegtoolError

_LAYOUT = "<qqqddd"
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") / 1024
_KEPT = 50
"""Findings of a process beyond which no more are written."""


class Counters:
    """Figures of a process, in a file so that they outlive it."""

    def __init__(self, path: Path) -> None:
        size = struct.calcsize(_LAYOUT)
        if not path.exists():
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), size)
        self.read()

    def read(self) -> None:
        """Take over what the file says."""
        values = struct.unpack(_LAYOUT, self._memory[:])
        self.tried, self.accepted, self.refused, self.slowest_s, self.growth_mb, self.since = values

    def write(self) -> None:
        """Put the figures into the file."""
        self._memory[:] = struct.pack(
            _LAYOUT, self.tried, self.accepted, self.refused, self.slowest_s, self.growth_mb, self.since
        )


class Probe:
    """Reads one input after the other.

    Args:
        target: The reader.
        folder: Of this process, in memory.
        findings: Where bytes that show a fault are kept.
    """

    def __init__(self, target: Target, folder: Path, findings: Path) -> None:
        self.target, self.counters = target, Counters(folder / "counters")
        self._folder, self._findings = folder / "files", findings
        self._folder.mkdir(exist_ok=True)
        self._kinds: set[str] = set()
        self._is_bounded = False

    def __call__(self, data: bytes) -> None:
        """Try one input; never raises because of it."""
        self._bound()
        path = self.target.place(self._folder, data)
        counters = self.counters
        counters.tried += 1
        counters.since = time.monotonic()
        counters.write()
        before, start = _start_peak(), time.process_time()
        said = ""
        try:
            self.target.read(path)
            counters.accepted += 1
        except SegtoolError as error:
            counters.refused += 1
            if memory_asked(error):
                said = self._trace("memory asked before the check", error)
            elif "\n" in str(error):
                said = self._trace("more than one line", error)
        except Exception as error:  # noqa: BLE001 - whatever comes out is what is looked for
            said = self._trace(type(error).__name__, error)
        elapsed, growth = time.process_time() - start, _peak_mb() - before
        counters.since = 0.0
        counters.slowest_s = max(counters.slowest_s, elapsed)
        counters.growth_mb = max(counters.growth_mb, growth)
        counters.write()
        if said:
            self._keep(said, data)
        if elapsed > SECONDS:
            self._keep(f"slow\n{elapsed:.1f} s", data)
        if growth > GROWTH_MB:
            self._keep(f"large\n{growth:.0f} MB", data)

    def _bound(self) -> None:
        """Bound the address space, once all that the first input needs is there."""
        if self._is_bounded:
            return
        self._is_bounded = True
        for seed in self.target.seeds():
            self.target.read(self.target.place(self._folder, seed))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE_KB * 1024
        most = int(used + HEADROOM_MB * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    @staticmethod
    def _trace(kind: str, error: BaseException) -> str:
        """The kind and the innermost place of ours first, since findings are told apart by the first line."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = next((f"{f.name}:{f.lineno}" for f in reversed(frames) if "segtool" in f.filename), "")
        inner = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return f"{kind} at {ours} in {inner}\n" + "".join(traceback.format_exception(error))

    def _keep(self, said: str, data: bytes) -> None:
        kind = said.partition("\n")[0]
        if kind in self._kinds or len(self._kinds) >= _KEPT:
            return
        self._kinds.add(kind)
        keep_finding(self._findings, said, data)


def keep_finding(folder: Path, said: str, data: bytes) -> None:
    """Write a finding, unless one of its kind is there."""
    kind = said.partition("\n")[0]
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(kind.encode()).hexdigest()[:12]
    if not (folder / f"{name}.json").exists():
        (folder / f"{name}.bin").write_bytes(data)
        (folder / f"{name}.json").write_text(json.dumps({"kind": kind, "said": said}, indent=1), encoding="utf-8")


def _start_peak() -> float:
    """Forget the peak of the process; its memory now, in MB."""
    Path("/proc/self/clear_refs").write_bytes(b"5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_KB / 1024


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_bytes()
    return int(status.partition(b"VmHWM:")[2].split(maxsplit=1)[0]) / 1024
