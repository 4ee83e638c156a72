"""Lists image files below the inputs: every folder is read once, DICOM series are put together."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.errors import UsageError
from segtool.formats import SUFFIXES, suffix_of
from segtool.scan.found import Entry, Problem
from segtool.scan.names import natural_key

_LOOKED_FOR = f"Looked for {' '.join(SUFFIXES)} and DICOM files without a suffix."
_RESULTS = frozenset({"report.json", "report.csv"})
_OUR_REPORT = b'"tool": "segtool"'
_NOT_SCANS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})


@dataclass
class Found:
    """What lies below one or several inputs."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    file_folders: list[Path] = field(default_factory=list)
    """Folders of the inputs that are files."""


def find_entries(inputs: Sequence[Path], skip: Path | None = None) -> Found:
    """The image files and DICOM series of all inputs, each once.

    Hidden files, half-written ones and folders of our own results are passed over. Links are followed to
    files inside the input; links to folders are not, so that nothing is met twice.

    Args:
        inputs: Folders and files.
        skip: A folder below an input that holds no scans, such as that of the references.

    Raises:
        UsageError: An input does not exist or holds no file that segtool reads.
    """
    found = Found()
    seen: set[str] = set()
    skipped = skip.resolve() if skip else None
    by_folder: dict[Path, list[Path]] = {}
    for path in inputs:
        if path.is_dir():
            _add(found, _walk(path, skipped, found.problems), seen, str(path))
        elif path.is_file():
            by_folder.setdefault(path.parent, []).append(path)
        else:
            raise UsageError(f"{path}: no such file or folder", "Check the path.")
    found.file_folders += by_folder
    for folder, files in by_folder.items():
        root = folder.resolve().as_posix()
        for file in files:
            if not (suffix_of(file) or _may_be_dicom(file.name)):
                raise UsageError(f"{file}: not a kind of file that segtool reads", _LOOKED_FOR)
        _add(found, _entries(root, "", files, found.problems), seen, ", ".join(map(str, files)))
    return found


def _add(found: Found, entries: Iterable[Entry], seen: set[str], where: str) -> None:
    before, any_entry = len(found.problems), False
    for entry in entries:
        any_entry = True
        if entry.identity not in seen:
            seen.add(entry.identity)
            found.entries.append(entry)
    if not any_entry:
        problems = found.problems[before:]
        reason = f" ({problems[0].where}: {problems[0].problem})" if problems else ""
        raise UsageError(f"{where}: nothing that segtool can read{reason}", _LOOKED_FOR)


def _walk(top: Path, skipped: Path | None, problems: list[Problem]) -> Iterator[Entry]:
    root = top.resolve().as_posix()
    links: Counter[str] = Counter()
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            with os.scandir(f"{root}/{folder}") as listing:
                items = sorted((i for i in listing if not i.name.startswith(".")), key=lambda item: item.name)
        except OSError as error:
            problems.append(Problem(folder or str(top), f"cannot be read ({error.strerror})", "Check its permissions."))
            continue
        if folder and {item.name for item in items} >= _RESULTS and _is_our_report(f"{root}/{folder}/report.json"):
            continue
        files = []
        for item in items:
            if item.is_dir(follow_symlinks=False):
                if item.name not in _NOT_SCANS and Path(item.path) != skipped:
                    pending.append(f"{folder}/{item.name}" if folder else item.name)
            elif not item.is_symlink() or _follow(item, root, links):
                files.append(item.name)
        shown = top / folder
        yield from _entries(root, folder, [shown / name for name in files], problems)
    problems += (Problem(str(top), f"{_LINKS[kind][0]}: {count}", _LINKS[kind][1]) for kind, count in links.items())


_LINKS = {
    "out": ("links that leave the folder are not followed", "Give their targets as inputs."),
    "nowhere": ("links lead nowhere", "Fetch their files, as with `datalad get`, or remove them."),
}


def _is_our_report(path: str) -> bool:
    """True where segtool wrote the report, and not another program that calls its report alike."""
    try:
        with Path(path).open("rb") as file:
            return _OUR_REPORT in file.read(200)
    except OSError:
        return False


def _follow(link: os.DirEntry[str], root: str, links: Counter[str]) -> bool:
    """True for a link to a file below ``root``; others are counted where a scan may be missed."""
    if not Path(link.path).resolve().is_relative_to(root):
        links["out"] += 1
        return False
    is_file = link.is_file()
    if not is_file and not link.is_dir() and suffix_of(Path(link.name)):
        links["nowhere"] += 1
    return is_file


def _may_be_dicom(name: str) -> bool:
    """True for names without a suffix, and those that end in a number (``IM.0001``, a UID)."""
    ending = name.rpartition(".")[2] if "." in name else ""
    return name != "DICOMDIR" and (not ending or ending.isdecimal())


def _entries(root: str, folder: str, files: Sequence[Path], problems: list[Problem]) -> Iterator[Entry]:
    """The entries of one folder."""
    dicom: list[Path] = []
    for file in files:
        suffix = suffix_of(file)
        if not suffix:
            if _may_be_dicom(file.name):
                dicom.append(file)
        elif SUFFIXES[suffix] == "dicom":
            dicom.append(file)
        else:
            yield Entry(root, folder, file.name[: -len(suffix)], suffix, SUFFIXES[suffix], (file,))
    if dicom:
        yield from _series(root, folder, dicom, problems)


def _series(root: str, folder: str, files: Sequence[Path], problems: list[Problem]) -> Iterator[Entry]:
    """The DICOM series of one folder.

    A series alone in its folder counts as one file with the folder's name, lying where the folder lies, so
    that ``P1/T1ce/*.dcm`` and ``P1/T2/*.dcm`` are two channels of one case.
    """
    # Brings numpy, which most folders do without until they are read.
    from segtool.formats.dicom_read import SeriesKey, read_series_key

    series: dict[SeriesKey, list[Path]] = {}
    broken: list[Path] = []
    for file in sorted(files, key=lambda path: natural_key(path.name)):
        key = read_series_key(file)
        if key is None:
            if suffix_of(file) or _begins_like_dicom(file):
                broken.append(file)
        elif key.is_image:
            series.setdefault(key, []).append(file)
    if len(series) == 1:
        # A slice without a readable header most likely belongs to the only series: without it the scan would
        # be shorter and nobody would know. Reading the series says what is wrong with the file.
        next(iter(series.values())).extend(file for file in broken if _begins_like_dicom(file))
        broken = [file for file in broken if not _begins_like_dicom(file)]
    problems += (
        Problem(str(file), "not a DICOM file, or a truncated one", "Export or copy it again.") for file in broken
    )
    for key, paths in series.items():
        if len(series) > 1:
            place, stem = (root, folder), key.short_name
        elif folder:
            above, _, stem = folder.rpartition("/")
            place = (root, above)
        else:
            above, _, stem = root.rpartition("/")
            place = (above, "")
        yield Entry(*place, stem, "", "dicom", tuple(paths))


def _begins_like_dicom(file: Path) -> bool:
    from segtool.formats.dicom_elements import looks_like_dicom

    try:
        return looks_like_dicom(file)
    except OSError:
        return True  # it may be one, and reading it says why it cannot be read
