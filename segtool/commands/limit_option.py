"""The option ``--limit NAME=VALUE`` of several commands."""

from collections.abc import Iterable

from segtool.errors import UsageError
from segtool.limits import DEFAULT_LIMITS, Limits

HELP = f"Let one file claim more, or less: NAME is one of {', '.join(Limits.names())}. Repeatable."


def limits_of(texts: Iterable[str] | None) -> Limits:
    """The default limits with those that are named.

    Raises:
        UsageError: One is not ``NAME=VALUE``, no limit, or no whole number above 0.
    """
    given: dict[str, int] = {}
    for text in texts or ():
        name, _, value = text.partition("=")
        if name not in Limits.names():
            raise UsageError(f"--limit {text}: no such limit", f"The limits are {', '.join(Limits.names())}.")
        if not (value.isascii() and value.isdecimal() and 0 < len(value) < 20 and int(value)):
            raise UsageError(
                f"--limit {text}: wanted {name}=VALUE, a whole number",
                f"For instance: --limit {name}={2 * getattr(DEFAULT_LIMITS, name)}",
            )
        given[name] = int(value)
    return Limits(**{**{name: getattr(DEFAULT_LIMITS, name) for name in Limits.names()}, **given})
