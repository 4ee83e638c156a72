"""Engines that were built on this machine, kept for the next time.

An engine is only ever loaded where everything that it was built from and for is the same, its bytes are whole, and
file and folder are the user's own and nobody else may write them: it holds machine code. Whatever else lies in the
folder is built again, never loaded.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from segtool.atomic import PARTIAL_PREFIX, atomic_path
from segtool.errors import OutputError, UsageError

_MAGIC = b"segtool engine 1\n"
_SUFFIX = ".engine"
_POLL_S = 0.1
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_REMEDY = "Free some space with `segtool models --cache --clear`, or set SEGTOOL_CACHE to another folder."


def cache_folder() -> Path:
    """``SEGTOOL_CACHE``, or ``segtool`` in the user's cache folder."""
    named = os.environ.get("SEGTOOL_CACHE")
    if named:
        return Path(named)
    base = os.environ.get("LOCALAPPDATA") if os.name == "nt" else os.environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "segtool"


def model_sha256(path: Path, external: Iterable[str] = ()) -> str:
    """Checksum of a model, in hexadecimal.

    Args:
        path: The model's file, whose own checksum it is where that is all.
        external: Files beside it that hold weights, as it names them; their bytes count too.
    """
    digests = [_sha256(path), *(_sha256(path.parent / name) for name in sorted(external))]
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ShapeProfile:
    """Input shapes ``(N, C, *S)`` that an engine takes, and the one that it is fastest at."""

    smallest: tuple[int, ...]
    usual: tuple[int, ...]
    largest: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join("x".join(map(str, shape)) for shape in (self.smallest, self.usual, self.largest))


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on: with any part different it is another engine.

    Args:
        model: Its name, for who reads it.
        onnx_sha256: Of the model, weights in files of their own included.
        engine: What built it, with its version.
        gpu: The GPU's name.
        capability: The GPU's, such as ``9.0``.
        precision: Of the model file.
        profile: Of shapes.
    """

    model: str
    onnx_sha256: str
    engine: str
    gpu: str
    capability: str
    precision: str
    profile: ShapeProfile

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self) | {"profile": str(self.profile)}

    @property
    def digest(self) -> str:
        """Of all parts; the engine's file is named by it."""
        return hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Entry:
    """One file of the cache.

    Args:
        path: Where it lies.
        bytes: Its size.
        built: When, in seconds since 1970.
        facts: Those of its key; empty where it is none of our engines.
    """

    path: Path
    bytes: int
    built: float
    facts: dict[str, Any]


class EngineCache:
    """A folder of engines.

    Args:
        folder: None for the user's.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "tensorrt"

    def path(self, key: EngineKey) -> Path:
        """Where the engine of that key lies, or will."""
        return self.folder / f"{key.digest[:32]}{_SUFFIX}"

    def get(self, key: EngineKey) -> bytes | None:
        """The engine, or None where there is none that may be loaded."""
        try:
            if not _is_private(self.folder.stat()):
                return None
            with self.path(key).open("rb") as file:
                if not _is_private(os.fstat(file.fileno())):  # of the file that is open, whatever takes its name now
                    return None
                header = _header(file)
                plan = file.read()
        except OSError:
            return None
        whole = hashlib.sha256(plan).hexdigest() == header.get("plan_sha256")
        return plan if whole and header.get("key") == key.facts() else None

    def put(self, key: EngineKey, plan: bytes) -> None:
        """Keep an engine; it appears whole or not at all.

        Raises:
            OutputError: It cannot be written.
        """
        header = {"key": key.facts(), "plan_sha256": hashlib.sha256(plan).hexdigest()}
        path = self.path(key)
        self.make_folder()
        with atomic_path(path) as temporary:
            try:
                with temporary.open("wb") as file:
                    file.write(_MAGIC + json.dumps(header).encode() + b"\n")
                    file.write(plan)
                temporary.chmod(0o600)
            except OSError as error:
                raise OutputError(
                    f"{path}: an engine of {len(plan) / 1e6:.0f} MB cannot be kept ({error.strerror or error})", _REMEDY
                ) from error

    def get_or_build(self, key: EngineKey, build: Callable[[], bytes], log: Callable[[str], None]) -> bytes:
        """The engine from the cache, else a new one.

        Only one process builds at a time: another that wants the same engine waits and then finds it; and a build
        times kernels on the GPU, which a second build would disturb.

        Raises:
            OutputError: The folder cannot be written.
        """
        if (plan := self.get(key)) is not None:
            return plan
        with self._locked(log):
            if (plan := self.get(key)) is not None:
                return plan
            self._sweep()
            plan = build()
            self.put(key, plan)
            return plan

    def drop(self, key: EngineKey) -> None:
        """Forget an engine."""
        self.path(key).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """Every file of the cache but its lock, by name."""
        if not self.folder.is_dir():
            return []
        return [_entry(path) for path in sorted(self.folder.rglob("*")) if path.is_file() and path != self._lock]

    def clear(self) -> int:
        """Delete everything in it; returns the bytes that were freed.

        Raises:
            UsageError: An engine is just being built.
            OutputError: A file cannot be deleted.
        """
        if not self.folder.is_dir():
            return 0
        with self._locked(None):
            entries = self.entries()
            try:
                for entry in entries:
                    entry.path.unlink(missing_ok=True)
                for folder in sorted((path for path in self.folder.rglob("*") if path.is_dir()), reverse=True):
                    folder.rmdir()
            except OSError as error:
                raise OutputError(
                    f"{error.filename}: cannot be deleted ({error.strerror})", f"Delete {self.folder} yourself."
                ) from error
        return sum(entry.bytes for entry in entries)

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"

    def make_folder(self, name: str = "") -> Path:
        """The folder itself, or one inside it, for this user alone.

        Raises:
            OutputError: It cannot be made, or is there and others may write into it.
        """
        folder = self.folder / name
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            for each in (self.folder, folder):  # `parents` would make the first one for others too
                each.mkdir(mode=0o700, exist_ok=True)
            private = [_is_private(each.stat()) for each in (self.folder, folder)]
        except OSError as error:
            raise OutputError(f"{folder}: cannot be made ({error.strerror or error})", _REMEDY) from error
        if not all(private):
            raise OutputError(
                f"{folder}: belongs to another user or can be written by others, and engines are machine code",
                "Run chmod 700 on it, or set SEGTOOL_CACHE to a folder of your own.",
            )
        return folder

    def _sweep(self) -> None:
        """Remove what a build left that was killed while it wrote."""
        for path in self.folder.glob(f"{PARTIAL_PREFIX}*"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, log: Callable[[str], None] | None) -> Iterator[None]:
        """Hold the folder's lock, which the system takes back from a process that dies.

        Args:
            log: Told once that another process holds it; None to refuse instead of waiting.
        """
        self.make_folder()
        try:
            file = self._lock.open("a+b")
        except OSError as error:
            raise OutputError(f"{self._lock}: cannot be written ({error.strerror or error})", _REMEDY) from error
        with file:
            waited = False
            while not _try_lock(file):
                if log is None:
                    raise UsageError(f"{self.folder}: an engine is being built in it", "Try again when that is done.")
                if not waited:
                    log("waiting for another segtool that builds an engine")
                waited = True
                time.sleep(_POLL_S)
            yield  # closing the file gives the lock back


def _try_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_private(found: os.stat_result) -> bool:
    """False where another user put the file or folder there, or may change it."""
    return sys.platform == "win32" or (found.st_uid == os.getuid() and not found.st_mode & _OTHERS_WRITE)


def _header(file: BinaryIO) -> dict[str, Any]:
    """What the file says of its engine, empty where it is none of this version's."""
    if file.read(len(_MAGIC)) != _MAGIC:
        return {}
    try:
        header = json.loads(file.readline(1 << 16))
    except ValueError:
        return {}
    return header if isinstance(header, dict) else {}


def _entry(path: Path) -> Entry:
    facts: dict[str, Any] = {}
    if path.suffix == _SUFFIX:
        with contextlib.suppress(OSError), path.open("rb") as file:
            facts = _header(file).get("key", {})
    ours = isinstance(facts, dict) and facts.keys() == {field.name for field in fields(EngineKey)}
    found = path.stat()
    return Entry(path, found.st_size, found.st_mtime, facts if ours else {})
