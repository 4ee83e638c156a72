"""Files appear whole or not at all: write to a temporary name, then rename."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from segtool.errors import OutputError

PARTIAL_PREFIX = ".partial-"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` when the block ends well.

    The temporary name keeps all suffixes of ``path`` (libraries choose a codec by suffix) and is unique to
    this process and target. It is removed when the block raises.

    Raises:
        OutputError: The folder cannot be made, or the file cannot be written or renamed.
    """
    temporary = path.with_name(f"{PARTIAL_PREFIX}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path}: cannot be written ({reason})", "Choose another folder with --output or free the space."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
