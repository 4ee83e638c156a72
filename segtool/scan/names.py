"""Takes file names apart: channel tokens, reference suffixes, folders with a role, natural order."""

import fnmatch
import hashlib
import re
from collections.abc import Mapping

from segtool.case import UNNAMED
from segtool.channels import canonical_channel, folded
from segtool.spec import ModelSpec

_TREATMENTS = frozenset({"subtrmeandivstd", "n4", "bet", "brain", "stripped", "norm", "reg", "registered"})
"""Words that follow a channel token to say what was done to the image (``T1c_subtrMeanDivStd``)."""

_REFERENCES = r"masks?|segm?|segmentations?|labels?|gt|otmulticlass"
_REFERENCE = re.compile(rf"(?:(?P<base>.+)[_\-.])?(?:{_REFERENCES})", re.IGNORECASE | re.DOTALL)
_BRAIN_MASK = re.compile(r"(?:.*[_\-.])?brain[_\-.]?mask", re.IGNORECASE | re.DOTALL)
_ROLE = re.compile(
    r"(?:(?P<image>images?|imgs?|scans?)|(?:labels?|masks?|segmentations?|segs?|gt))[_\-]?(?P<part>tr|ts|val)?",
    re.IGNORECASE,
)
_SEPARATORS = "_-. "
_PARTS = re.compile(r"[^_\-. ]+")
_DIGITS = re.compile(r"(\d+)")
_MOST_DIGITS = 4000
# Beside what no path may hold, marks that nobody sees and that turn the direction of writing.
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\/\ud800-\udfff\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the dot."""
_LONGEST_BYTES = 180
"""Of a part of a path. Most systems allow 255: what is left is for suffixes and for temporary names."""


def natural_key(text: str) -> tuple[tuple[str | int, ...], str]:
    """Sort key that counts: ``slice 2`` comes before ``slice 10``. Case decides only between equals."""
    words = _DIGITS.split(text.casefold())
    parts: list[str | int] = list(words)
    # Python makes no number of more than 4300 digits.
    parts[1::2] = [int(digits[:_MOST_DIGITS]) for digits in words[1::2]]
    return tuple(parts), text


def safe_part(text: str) -> str:
    """``text`` as one part of a path on every system: no separators, ``..``, trailing dots or devices, and not long."""
    safe = _UNSAFE.sub("_", text).rstrip(". ").lstrip(" ") or "_"
    safe = _DEVICE.sub(r"\1_", safe, count=1) if _DEVICE.match(safe) else safe
    if len(safe.encode()) <= _LONGEST_BYTES:
        return safe
    # Long names that differ at their ends stay different.
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{safe.encode()[: _LONGEST_BYTES - 9].decode(errors='ignore').rstrip('. ')}-{digest}"


def reference_base(stem: str) -> str | None:
    """What precedes ``_mask``, ``-seg`` and their like; empty where nothing does; None for other names."""
    match = _REFERENCE.fullmatch(stem)
    return (match["base"] or "") if match else None


def is_brain_mask(stem: str) -> bool:
    """True for masks of the brain, which are neither a scan nor a reference."""
    return _BRAIN_MASK.fullmatch(stem) is not None


def folder_role(name: str) -> tuple[str, str] | None:
    """``("image", "tr")`` for ``imagesTr``, ``("reference", "")`` for ``masks``; None for other folders."""
    match = _ROLE.fullmatch(name)
    if match is None:
        return None
    return "image" if match["image"] else "reference", (match["part"] or "").lower()


class ChannelNames:
    """Tells the channel of a file from its name.

    Args:
        spec: The model whose channel names and aliases count beside the built-in ones, before them.
        patterns: As ``ScanOptions.channels``.
    """

    def __init__(self, spec: ModelSpec | None, patterns: Mapping[str, str]) -> None:
        channels = spec.channels if spec else ()
        self._spec = {folded(alias): channel.name for channel in channels for alias in channel.aliases}
        # A channel's own name beats another's alias.
        self._spec |= {folded(channel.name): channel.name for channel in channels}
        self._patterns = [(name, self.resolve(name), _pattern(text)) for name, text in patterns.items()]
        self.by_user = bool(patterns)
        """True where the user says which files are a channel."""
        self.unmatched = dict(patterns)
        """The user's patterns that no name has matched so far."""

    def known(self, name: str) -> str | None:
        """The model's or the canonical name of the channel called ``name``; None where nobody knows it."""
        return self._spec.get(folded(name)) or canonical_channel(name)

    def resolve(self, name: str) -> str:
        """As :meth:`known`, else ``name`` itself."""
        return self.known(name) or name

    def by_pattern(self, stem: str, suffix: str) -> list[tuple[str, str]]:
        """``(base, channel)`` for each of the user's patterns that the name matches."""
        found = []
        for name, channel, pattern in self._patterns:
            # A glob that says nothing about the suffix is meant for the name without it.
            match = pattern.fullmatch(stem + suffix) or pattern.fullmatch(stem)
            if match:
                self.unmatched.pop(name, None)
                base = "".join(match.groups())
                found.append((_tidy(base.removesuffix(suffix) if suffix else base), channel))
        return found

    def split(self, stem: str) -> tuple[str, str]:
        """``(base, channel)``: ``("P1", "t1ce")`` for ``P1_T1c``, ``(stem, UNNAMED)`` without a token."""
        parts = [(match.start(), match.group()) for match in _PARTS.finditer(stem)]
        while len(parts) > 1 and parts[-1][1].casefold() in _TREATMENTS:
            parts.pop()
        # Two parts first: the ce of P1_t1_ce says more than a t1 alone.
        if len(parts) > 1 and self.known(parts[-2][1]):
            channel = self.known(parts[-2][1] + parts[-1][1])
            if channel:
                return stem[: parts[-2][0]].rstrip(_SEPARATORS), channel
        channel = self.known(parts[-1][1]) if parts else None
        return (stem[: parts[-1][0]].rstrip(_SEPARATORS), channel) if channel else (stem, UNNAMED)


def _pattern(text: str) -> re.Pattern[str]:
    """A regular expression whose groups are what a glob leaves open, or what surrounds plain text."""
    if not any(sign in text for sign in "*?["):
        return re.compile(rf"(.*?){re.escape(text)}(.*)", re.IGNORECASE | re.DOTALL)
    parts = _GLOB_PARTS.findall(text)
    pieces = (f"({_glob_piece(part)})" if _is_wild(part) else re.escape(part) for part in parts)
    return re.compile("".join(pieces), re.IGNORECASE | re.DOTALL)


_GLOB_PARTS = re.compile(r"\[!?+\]?+[^\]]*+\]|.", re.DOTALL)
"""A set such as ``[ab]`` or one character. A ``]`` that comes first in a set belongs to it."""


def _is_wild(part: str) -> bool:
    return part in ("*", "?") or len(part) > 1


def _glob_piece(part: str) -> str:
    """The regular expression of a wildcard; :mod:`fnmatch` knows what sets mean."""
    if part in ("*", "?"):
        return ".*" if part == "*" else "."
    return re.sub(r"\)\\[Zz]$", "", fnmatch.translate(part)).removeprefix("(?s:")


def _tidy(base: str) -> str:
    """What is left of a name after its channel is cut out, without the separators at the seam."""
    return re.sub(r"([_\-. ])[_\-. ]+", r"\1", base).strip(_SEPARATORS)
