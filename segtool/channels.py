"""The names that MRI channels go by in the field."""

_ALIASES: dict[str, tuple[str, ...]] = {
    "t1": ("t1", "t1n", "t1w", "t1pre", "t1wpre", "t1native", "t1precontrast"),
    "t1ce": (
        *("t1ce", "t1c", "t1gd", "t1gad", "t1post", "t1wce", "t1wgd", "t1wgad", "t1wpost", "t1cgd"),
        *("t1contrast", "t1wcontrast", "t1postcontrast", "t1wc", "t1km"),
    ),
    "t2": ("t2", "t2w"),
    "flair": ("flair", "t2f", "fla", "t2flair", "t2wflair"),
}
"""Canonical channel to the names it goes by, lower-case and without separators (``T1_Gd`` is ``t1gd``)."""

_CANONICAL = {alias: channel for channel, aliases in _ALIASES.items() for alias in aliases}


def folded(name: str) -> str:
    """``name`` as it is compared: lower-case letters and digits only."""
    return "".join(filter(str.isalnum, name.casefold()))


def canonical_channel(name: str) -> str | None:
    """``t1``, ``t1ce``, ``t2`` or ``flair`` where ``name`` is a known name of it, in any case; else None."""
    return _CANONICAL.get(folded(name))
