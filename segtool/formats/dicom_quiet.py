"""Silence around libraries that warn of and log what headers say."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

# They log the values that they doubt, and a value may be a name.
for _library in ("pydicom", "highdicom"):
    logging.getLogger(_library).setLevel(logging.ERROR)

# warnings.catch_warnings changes the whole process, so one thread at a time; a block may stand in another one.
_ONE_AT_A_TIME = threading.RLock()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings inside the block.

    Those of pydicom and highdicom concern values that do not follow the standard to the letter, as scanners write
    them. Whatever matters is checked by the caller.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
