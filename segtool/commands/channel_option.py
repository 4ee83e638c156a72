"""The option ``--channel NAME=PATTERN`` of several commands."""

from collections.abc import Iterable

from segtool.errors import UsageError


def channel_patterns(texts: Iterable[str] | None) -> dict[str, str]:
    """Pattern by channel name.

    Raises:
        UsageError: One is not ``NAME=PATTERN``.
    """
    found = {}
    for text in texts or ():
        name, sign, pattern = text.partition("=")
        if not (name and sign and pattern):
            raise UsageError(f"--channel {text}: wanted NAME=PATTERN", "For instance: --channel t1ce=*_gd.nii.gz")
        found[name] = pattern
    return found
