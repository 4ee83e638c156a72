"""Pairs the files of a folder of predictions with those of a folder of references, by name."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.case import Source
from segtool.errors import UsageError
from segtool.formats import ANNOTATIONS
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.case_names import OVERLAYS, PROBABILITIES, plain_name
from segtool.scan.found import Entry
from segtool.scan.names import is_brain_mask, natural_key, reference_base
from segtool.scan.privacy import Privacy
from segtool.scan.references import is_reference
from segtool.scan.walk import find_entries

_PREDICTION = re.compile(r"(?P<base>.+)[_\-.](?:preds?|predictions?|predicted)", re.IGNORECASE | re.DOTALL)
_DRAWN = re.compile(r"(?P<base>.+)\.(?:seg|labelmap|rtstruct)", re.IGNORECASE | re.DOTALL)
"""Names of our results in DICOM."""
_KIND_ORDER = {kind: order for order, kind in enumerate(ANNOTATIONS) if kind != "dicom-seg"} | {"dicom-seg": -1}
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """One case; a missing prediction is None."""

    name: str
    prediction: Source | None
    reference: Source


@dataclass(frozen=True)
class Pairing:
    """What was found.

    Args:
        pairs: One a reference, in natural order of their names.
        lone_predictions: Names of predictions without a reference, which are not scored.
        notes: What was passed over, and why.
        privacy: What messages about these files must not tell.
    """

    pairs: tuple[Pair, ...]
    lone_predictions: tuple[str, ...]
    notes: tuple[str, ...]
    privacy: Privacy = field(default_factory=Privacy)

    @property
    def remarks(self) -> tuple[str, ...]:
        """The notes, and a line that names the lone predictions."""
        lone = self.lone_predictions
        if not lone:
            return self.notes
        more = f" and {len(lone) - _NAMES_SHOWN} more" if len(lone) > _NAMES_SHOWN else ""
        names = ", ".join(lone[:_NAMES_SHOWN])
        return (*self.notes, f"predictions without a reference, not scored: {names}{more}")


def pair_files(
    predictions: Path, references: Path, follow_links: bool = False, limits: Limits = DEFAULT_LIMITS
) -> Pairing:
    """Pair two folders, searched recursively, or two files.

    A pair has the same path below both folders, else the same file name where it occurs once on either side.
    The suffix of the format does not count, nor do ``_mask``, ``_seg``, ``_pred`` and their like. Where some
    files of a folder carry such a word, those without one are scans and are passed over. With ``follow_links`` links
    may leave the folders.

    Raises:
        UsageError: A path does not exist, a file faces a folder, nothing is readable, or nothing pairs.
    """
    for path in (predictions, references):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder", "Check the path.")
    if predictions.is_dir() != references.is_dir():
        raise UsageError(
            f"{predictions} and {references} are a file and a folder, wanted two of one kind",
            "Give two folders or two files.",
        )
    notes: list[str] = []
    found = tuple(_entries(path, notes, follow_links, limits) for path in (predictions, references))
    privacy = _privacy([*found[0], *found[1]])
    if predictions.is_file():
        (one,), (other,) = found
        return Pairing((Pair(_name(other, privacy), _source(one, limits), _source(other, limits)),), (), (), privacy)
    predicted = _label_maps(found[0], lambda e: is_reference(e) or _is_prediction(e), "predictions", notes)
    referenced = _label_maps(found[1], is_reference, "references", notes)
    pairs, rest, lone = _match(predicted, referenced)
    if not pairs:
        raise UsageError(
            f"no file of {predictions} has the name of a file of {references} (for example "
            f"{privacy.plain(predicted[0].where)!r} and {privacy.plain(referenced[0].where)!r})",
            "Give predictions the names of their references; suffixes and _mask, _seg, _pred do not matter.",
        )
    everything = [Pair(_name(r, privacy), _source(p, limits), _source(r, limits)) for p, r in pairs]
    everything += [Pair(_name(r, privacy), None, _source(r, limits)) for r in rest]
    return Pairing(
        tuple(sorted(everything, key=lambda pair: natural_key(pair.name))),
        tuple(sorted((privacy.plain(entry.where) for entry in lone), key=natural_key)),
        tuple(map(privacy.plain, notes)),
        privacy,
    )


def _privacy(entries: Sequence[Entry]) -> Privacy:
    """What DICOM files among the label maps say of patients."""
    return Privacy(frozenset().union(*(entry.told_of_patient for entry in entries)))


def _name(entry: Entry, privacy: Privacy) -> str:
    """What the case of a reference is called: its key, without what tells a patient."""
    key = _key(entry)
    return plain_name(entry, _base(entry), privacy) if privacy.is_personal(key) else key


def _entries(path: Path, notes: list[str], follow_links: bool, limits: Limits) -> list[Entry]:
    if path.is_file():
        return find_entries([path], limits=limits).entries
    # Of our own results only the label maps count.
    found = find_entries([path], path / OVERLAYS, follow_links, limits)
    notes += map(str, found.problems)
    entries = [entry for entry in found.entries if not entry.stem.endswith(PROBABILITIES)]
    if not entries:
        raise UsageError(f"{path}: holds probability maps and no label maps", "Give the folder of label maps.")
    return entries


def _source(entry: Entry, limits: Limits) -> Source:
    return Source(entry.format, entry.paths, limits=limits)


def _is_prediction(entry: Entry) -> bool:
    return _PREDICTION.fullmatch(entry.stem) is not None


def _is_drawn(entry: Entry) -> bool:
    """True for DICOM SEG and RTSTRUCT, which are label maps whatever their names."""
    return entry.format in ANNOTATIONS


def _label_maps(
    entries: Sequence[Entry], is_marked: Callable[[Entry], bool], what: str, notes: list[str]
) -> list[Entry]:
    """The entries whose names say that they are label maps, or all of them where no name does."""
    able = [entry for entry in entries if not is_brain_mask(entry.stem)]
    marked = [entry for entry in able if is_marked(entry) or _is_drawn(entry)]
    # Beside SEG alone there may be label maps whose names say nothing, and scans only as DICOM.
    others = [entry for entry in able if not _is_drawn(entry) and entry.format != "dicom"]
    chosen = [*marked, *([] if any(map(is_marked, others)) else others)] if marked else able
    if len(chosen) < len(entries):
        passed = len(entries) - len(chosen)
        notes.append(f"{passed} {'file' if passed == 1 else 'files'} beside the {what} passed over: scans by name")
    if not chosen:
        raise UsageError(f"no {what}: {entries[0].where!r} is a mask of the brain", "Give the folder of label maps.")
    return _one_kind_each(chosen, what, notes)


def _one_kind_each(entries: Sequence[Entry], what: str, notes: list[str]) -> list[Entry]:
    """Of one label map that lies there in several kinds, such as NIfTI and SEG, the one that says most.

    Those with a grid of the whole scan come before SEG, and that before contours.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_key(entry), []).append(entry)
    kept = []
    for group in groups.values():
        whole = [entry for entry in group if not _is_drawn(entry)]
        kept += whole or sorted(group, key=lambda entry: _KIND_ORDER[entry.format])[:1]
    passed = len(entries) - len(kept)
    if passed:
        files = "1 file" if passed == 1 else f"{passed} files"
        notes.append(f"{files} of the {what} passed over: the same in another kind of file")
    return kept


def _base(entry: Entry) -> str:
    """The name without ``_seg``, ``_pred`` or ``.rtstruct``; empty where the folder names the case."""
    drawn = _DRAWN.fullmatch(entry.stem) if entry.format in ANNOTATIONS else None
    stem = drawn["base"] if drawn else entry.stem
    base = reference_base(stem)
    if base is not None:
        return base
    match = _PREDICTION.fullmatch(stem)
    return match["base"] if match else stem


def _key(entry: Entry) -> str:
    """Path of the case below the folder: ``P1/seg`` is ``P1``, ``P1/a_mask`` is ``P1/a``."""
    return "/".join(part for part in (entry.folder, _base(entry)) if part) or entry.stem


def _match(
    predicted: Sequence[Entry], referenced: Sequence[Entry]
) -> tuple[list[tuple[Entry, Entry]], list[Entry], list[Entry]]:
    """Pairs, references left over, predictions left over."""
    pairs: list[tuple[Entry, Entry]] = []
    left, right = list(predicted), list(referenced)
    for key_of in (_key, lambda entry: _key(entry).rpartition("/")[2]):
        mine, theirs = _unique(left, key_of), _unique(right, key_of)
        both = [(mine[key], theirs[key]) for key in mine if key in theirs]
        pairs += both
        paired = {id(entry) for pair in both for entry in pair}
        left, right = ([e for e in side if id(e) not in paired] for side in (left, right))
    return pairs, right, left


def _unique(entries: Sequence[Entry], key_of: Callable[[Entry], str]) -> dict[str, Entry]:
    """Entries by key, without the keys that occur twice: nothing tells which of them is meant."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key_of(entry), []).append(entry)
    return {key: group[0] for key, group in groups.items() if len(group) == 1}
