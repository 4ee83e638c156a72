"""Silence around libraries that warn of and log what headers say."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

# They log the values that they doubt, and a value may be a name.
for _library in ("pydicom", "highdicom"):
    logging.getLogger(_library).setLevel(logging.ERROR)

_LOCK = threading.Lock()
_inside = 0
_outside: "warnings.catch_warnings[None] | None" = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings inside the block, in all threads: the first that comes silences them, the last that leaves ends it.

    Those of pydicom and highdicom concern values that do not follow the standard to the letter, as scanners write
    them. Whatever matters is checked by the caller.
    """
    global _inside, _outside
    with _LOCK:
        if not _inside:
            _outside = warnings.catch_warnings()
            _outside.__enter__()
            warnings.simplefilter("ignore")
        _inside += 1
    try:
        yield
    finally:
        with _LOCK:
            _inside -= 1
            if not _inside and _outside is not None:
                _outside.__exit__(None, None, None)
