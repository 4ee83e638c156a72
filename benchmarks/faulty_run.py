"""``segtool`` with one fault let in: ``python -m benchmarks.faulty_run FAULT[:VALUE] predict ...``.

Nothing is faked that a user would not have: the engine is a small class of the Backend protocol around the real one,
files change on the disk, and limits are the operating system's. It runs in a process of its own.
"""

import ctypes
import dataclasses
import os
import resource
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Container, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool import ensemble, pipeline, stages
from segtool.backends.base import Backend
from segtool.case import Case, CaseSource
from segtool.interruption import Interruption
from segtool.predict_options import PredictOptions, Progress
from segtool.report import CaseResult, Report
from segtool.scan import Scan

AnyArray = npt.NDArray[Any]
Run = Callable[[AnyArray], AnyArray]
MARK = 0.999
"""A spoilt case has its highest value in the first voxel."""


class FaultyBackend:
    """The real engine behind a fault.

    Args:
        backend: The engine.
        fault: Given the engine's own ``run`` and a batch; answers or raises.
    """

    def __init__(self, backend: Backend, fault: Callable[[Run, AnyArray], AnyArray]) -> None:
        self._backend, self._fault = backend, fault
        self.name, self.version, self.device = backend.name, backend.version, backend.device
        self.precision, self.why, self.note = backend.precision, backend.why, backend.note
        self.xp: ModuleType = backend.xp

    def run(self, batch: AnyArray) -> AnyArray:
        """As the engine, or not."""
        return self._fault(self._backend.run, batch)

    def close(self) -> None:
        """Close the engine."""
        self._backend.close()


def is_spoilt(batch: AnyArray) -> npt.NDArray[np.bool_]:
    """Of each input ``(C, *S)`` of a batch, whether it is of a spoilt case."""
    firsts: npt.NDArray[np.bool_] = batch.reshape(len(batch), -1)[:, 0] > MARK
    return firsts


def _out_of_memory(asked: int) -> Exception:
    return RuntimeError(f"bfc_arena.cc:360 Failed to allocate memory for requested buffer of size {asked}")


def _raises(run: Run, batch: AnyArray, _value: int) -> AnyArray:
    if is_spoilt(batch).any():
        raise RuntimeError("Non-zero status code returned while running Conv node.\nStatus Message: poisoned")
    return run(batch)


def _always_raises(_run: Run, _batch: AnyArray, _value: int) -> AnyArray:
    raise RuntimeError("CUDA failure 719: unspecified launch failure")


def _nan(run: Run, batch: AnyArray, _value: int) -> AnyArray:
    logits = run(batch)
    logits[is_spoilt(batch)] = np.nan
    return logits


def _small_memory(run: Run, batch: AnyArray, value: int) -> AnyArray:
    """Holds ``value`` voxels a call."""
    if batch.size > value:
        raise _out_of_memory(batch.nbytes)
    return run(batch)


def _slow(run: Run, batch: AnyArray, value: int) -> AnyArray:
    """Takes ``value`` milliseconds more."""
    time.sleep(value / 1000)
    return run(batch)


_UNDER_WAY = threading.Semaphore(1)


def _one_call(run: Run, batch: AnyArray, _value: int) -> AnyArray:
    """Memory for one call at a time."""
    if not _UNDER_WAY.acquire(blocking=False):
        raise _out_of_memory(batch.nbytes)
    try:
        time.sleep(0.02)
        return run(batch)
    finally:
        _UNDER_WAY.release()


ENGINE: dict[str, Callable[[Run, AnyArray, int], AnyArray]] = {
    "engine-raises": _raises,
    "engine-always-raises": _always_raises,
    "engine-nan": _nan,
    "engine-memory": _small_memory,
    "engine-memory-for-one-call": _one_call,
    "engine-slow": _slow,
}
"""What an engine does wrong."""


def _replace(module: ModuleType, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put in the place of a function what ``around`` makes of it."""
    setattr(module, name, around(getattr(module, name)))


def _let_into_engine(name: str, value: int) -> None:
    def around(load: Callable[..., Backend]) -> Callable[..., Backend]:
        return lambda *arguments, **options: FaultyBackend(
            load(*arguments, **options), lambda run, batch: ENGINE[name](run, batch, value)
        )

    _replace(ensemble, "load_backend", around)


MEMORY = ("address-space",)
"""The process gets so many MiB beyond what it has when the engine is loaded."""


def _let_into_memory(_name: str, value: int) -> None:
    def around(load: Callable[..., Backend]) -> Callable[..., Backend]:
        def limited(*arguments: object, **options: object) -> Backend:
            backend = load(*arguments, **options)
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + value * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
            return backend

        return limited

    _replace(ensemble, "load_backend", around)


def _delete(path: Path) -> None:
    path.unlink()


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _socket(path: Path) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # addresses of sockets are short
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _unreadable(path: Path) -> None:
    path.chmod(0)


INPUT: dict[str, Callable[[Path], None]] = {
    "input-deleted": _delete,
    "input-truncated": _truncate,
    "input-emptied": _empty,
    "input-becomes-a-pipe": _pipe,
    "input-becomes-a-socket": _socket,
    "input-becomes-a-device": _device,
    "input-becomes-a-folder": _folder,
    "input-links-to-itself": _loop,
    "input-unreadable": _unreadable,
}
"""What happens to the files of spoilt cases after the folder was searched."""


def _let_into_inputs(name: str, _value: int) -> None:
    def around(search: Callable[..., Scan]) -> Callable[..., Scan]:
        def searched(*arguments: object) -> Scan:
            found = search(*arguments)
            for case in found.cases:
                if "spoilt" in case.name:
                    INPUT[name](case.first.path)
            return found

        return searched

    _replace(pipeline, "scan_unpacked", around)


def _hang(_source: CaseSource) -> None:
    threading.Event().wait()


def _die(_source: CaseSource) -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as a segmentation fault in a library does


def _bug(_source: CaseSource) -> None:
    raise KeyError("nobody thought of this")


def _memory_error(_source: CaseSource) -> None:
    np.empty(2**60, np.uint8)


READER: dict[str, Callable[[CaseSource], None]] = {
    "reader-hangs": _hang,
    "reader-dies": _die,
    "reader-bug": _bug,
    "reader-memory": _memory_error,
}
"""What a reader does with spoilt cases."""


def _let_into_readers(name: str, _value: int) -> None:
    def around(load: Callable[..., Case]) -> Callable[..., Case]:
        def faulty(source: CaseSource, *arguments: object, **options: object) -> Case:
            if "spoilt" in source.name:
                READER[name](source)
            return load(source, *arguments, **options)

        return faulty

    _replace(stages, "load_case", around)


def _output_gone(folder: Path) -> None:
    shutil.rmtree(folder)


def _output_read_only(folder: Path) -> None:
    folder.chmod(0o555)


def _output_becomes_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


OUTPUT: dict[str, Callable[[Path], None]] = {
    "output-deleted": _output_gone,
    "output-read-only": _output_read_only,
    "output-becomes-a-file": _output_becomes_a_file,
}
"""What happens to the output folder after the fifth case."""


def _let_into_output(name: str, _value: int) -> None:
    def around(predict: Callable[..., Report]) -> Callable[..., Report]:
        def faulty(
            inputs: Sequence[Path], options: PredictOptions, progress: Progress, interruption: Interruption
        ) -> Report:
            count, lock = 0, threading.Lock()

            def on_case(result: CaseResult) -> None:
                nonlocal count
                with lock:
                    count += 1
                    if count == 5:
                        OUTPUT[name](options.output)
                progress.on_case(result)

            return predict(inputs, options, dataclasses.replace(progress, on_case=on_case), interruption)

        return faulty

    _replace(pipeline, "predict_folder", around)


def give_up_privileges() -> None:
    """Have permissions hold for root too. Source: capset(2), version 3."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and libc.capset(header, nothing) != 0:
        raise OSError(ctypes.get_errno(), "capset")


_LET_IN: list[tuple[Container[str], Callable[[str, int], None]]] = [
    (MEMORY, _let_into_memory),
    (ENGINE, _let_into_engine),
    (INPUT, _let_into_inputs),
    (READER, _let_into_readers),
    (OUTPUT, _let_into_output),
]


def let_in(fault: str) -> None:
    """Let ``NAME`` or ``NAME:VALUE`` into this process; ``none`` is no fault."""
    name, _, value = fault.partition(":")
    for table, let_into in _LET_IN:
        if name in table:
            let_into(name, int(value or 0))
            return
    if name != "none":
        raise SystemExit(f"no such fault: {name}")


def main() -> None:
    """Let the fault in and run the command."""
    from segtool.cli import main as segtool

    # A shell switches it off for what it starts in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    give_up_privileges()
    let_in(sys.argv[1])
    segtool(sys.argv[2:])


if __name__ == "__main__":
    main()
