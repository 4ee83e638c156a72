"""What a target of fuzzing is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import ClassVar

from benchmarks.fuzz import TARGETS
from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import havoc
from segtool.errors import SegtoolError
from segtool.limits import Limits

LIMITS = Limits(
    voxels=2**22, unpacked_bytes=2**26, files=1000, pages=100, labels=1000, drawn_pixels=2**20, text_bytes=2**20
)
"""Small, so that what takes much memory has got past them."""

_STEPS = (1, 1, 1, 2, 3, 4)
"""Numbers of changes; most files with many are refused at once."""
_STRUCTURED = 4
"""Of five changes this many know the structure."""


class Target(ABC):
    """A reader, real files for it, and how to damage them. See :mod:`benchmarks.fuzz`."""

    suffix: ClassVar[str] = ".bin"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.formats",)
    limits: ClassVar[Limits] = LIMITS
    fixed: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def seeds(self) -> list[bytes]:
        """Small real files, at least one."""

    @abstractmethod
    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """``data`` with one change that knows the structure; None where there is none left."""

    @abstractmethod
    def read(self, path: Path) -> object:
        """Read the file as predict does; what it returns is thrown away.

        Raises:
            SegtoolError: It is refused. All else is a finding.
        """

    def place(self, folder: Path, data: bytes) -> Path:
        """Put an input where ``read`` shall find it."""
        path = folder / f"input{self.suffix}"
        path.write_bytes(data)
        return path


def load(name: str) -> Target:
    """The target called ``name``: a key of :data:`~benchmarks.fuzz.TARGETS`, or ``module:Class``."""
    module, _, attribute = TARGETS.get(name, name).partition(":")
    target: Target = getattr(import_module(module), attribute)()
    return target


def damaged(target: Target, data: bytes, choices: Choices) -> bytes:
    """``data`` after one to four changes, most of which know the structure."""
    for _ in range(choices.one(_STEPS)):
        is_structured = choices.whole(0, _STRUCTURED) > 0
        changed = target.mutate(data, choices) if is_structured else None
        data = havoc(data, choices) if changed is None else changed
    return data


def all_of(*reads: Callable[[], object]) -> None:
    """Try every one of ``reads``.

    Raises:
        SegtoolError: The last one that came out, where none went well.
    """
    last, failed = None, 0
    for read in reads:
        try:
            read()
        except SegtoolError as error:
            if memory_asked(error):
                raise
            last, failed = error, failed + 1
    try:
        if last is not None and failed == len(reads):
            raise last
    finally:
        last = None  # or its traceback and this frame would keep each other, and the voxels of their frames


def memory_asked(error: BaseException) -> bool:
    """True where a MemoryError lies behind an error: memory was asked for before the claim was checked."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
