"""A reader with every fault that fuzzing looks for."""

import os
import signal
from pathlib import Path

import numpy as np

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.target import Target
from segtool.errors import UnreadableFileError

KINDS = (b"sound", b"raises", b"refuses", b"dies", b"large", b"asks", b"large claim")


class Faulty(Target):
    """What a file holds says what its reader does."""

    def seeds(self) -> list[bytes]:
        return [b"sound"]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:  # noqa: ARG002 - as of every target
        return choices.one(KINDS)

    def read(self, path: Path) -> object:
        match path.read_bytes():
            case b"raises":
                raise KeyError("a bug")
            case b"refuses":
                raise UnreadableFileError(f"{path}: broken", "Copy it again.")
            case b"dies" if not (path.parent / "died").exists():
                (path.parent / "died").touch()
                os.kill(os.getpid(), signal.SIGSEGV)
            case b"large":
                return np.ones(2**26).sum()
            case b"large claim":
                return bytearray(2**40)
            case b"asks":
                try:
                    return bytearray(2**36)
                except MemoryError as error:
                    raise UnreadableFileError(f"{path}: broken", "Copy it again.") from error
        return None
