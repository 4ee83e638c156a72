"""Lists image files below the inputs: every folder is read once, DICOM volumes are put together over all of them."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.errors import UsageError
from segtool.formats import SUFFIXES, suffix_of
from segtool.limits import DEFAULT_LIMITS, Limits
from segtool.scan.found import Candidate, Entry, Problem
from segtool.scan.links import Links
from segtool.scan.privacy import Privacy

_LOOKED_FOR = f"Looked for {' '.join(SUFFIXES)} and DICOM files under any other name."
DIRECTORY = "DICOMDIR"
_OTHER_KINDS = frozenset({
    "7z", "avi", "bat", "bib", "bmp", "bval", "bvals", "bvec", "bvecs", "bz2", "cfg", "conf", "css", "csv", "doc",
    "docx", "eps", "exe", "gif", "gz", "htm", "html", "ini", "ipynb", "jar", "jpeg", "jpg", "js", "json", "jsonl",
    "lock", "log", "m4v", "mat", "md", "mgh", "mgz", "mha", "mhd", "mkv", "mov", "mp4", "mpg", "nii", "nrrd", "npy",
    "npz", "odt", "onnx", "pdf", "pickle", "pkl", "png", "ppt", "pptx", "ps", "pt", "pth", "py", "pyc", "rar",
    "rst", "rtf", "sh", "sha1", "sha256", "sqlite", "svg", "tar", "tex", "tgz", "tif", "tiff", "toml", "tsv", "txt",
    "wav", "webp", "xls", "xlsx", "xml", "xz", "yaml", "yml", "zip", "zst",
})  # fmt: skip
"""Endings of names that no DICOM file bears. Files of all others are looked into."""
_RUN_FILE = ".segtool-run"  # of a run that is under way, or was killed, and of its parts
_REPORT = re.compile(r"report(-part-\d+-of-\d+)?\.json")
_OUR_REPORT = b'"tool": "segtool"'
NOT_SCANS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})


@dataclass
class Found:
    """What lies below one or several inputs."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    file_folders: list[Path] = field(default_factory=list)
    """Folders of the inputs that are files."""
    personal: set[str] = field(default_factory=set)
    """What broken DICOM files still say of patients."""


def find_entries(
    inputs: Sequence[Path],
    skip: Path | None = None,
    follow_links: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> Found:
    """The image files and DICOM volumes of all inputs, each once.

    Hidden files, half-written ones and folders of our own results are passed over. Links are followed to
    files inside the input; links to folders there are not, so that nothing is met twice. Pipes, sockets and devices
    are never opened. A ``DICOMDIR`` stands for its folder.

    Args:
        inputs: Folders and files.
        skip: A folder below an input that holds no scans, such as that of the references.
        follow_links: Also follow links to files and folders outside the input.
        limits: What a DICOM file may claim, which is looked into.

    Raises:
        UsageError: An input does not exist or holds no file that segtool reads.
    """
    skipped = skip.resolve() if skip else None
    listings, by_folder = [], dict[Path, list[Path]]()
    for path in inputs:
        if path.is_dir() or (path.is_file() and path.name.upper() == DIRECTORY):
            listings.append(_walk(path if path.is_dir() else path.parent, skipped, follow_links))
        elif path.is_file():
            by_folder.setdefault(path.parent, []).append(path)
        elif path.exists():
            raise UsageError(
                f"{path}: neither a file nor a folder", "Pipes and devices are never opened: copy it to a file."
            )
        else:
            raise UsageError(f"{path}: no such file or folder", "Check the path.")
    for folder, files in by_folder.items():
        for file in files:
            if not (suffix_of(file) or _has_dicom_name(file.name) or _is_dicom(file)):
                raise UsageError(f"{file}: not a kind of file that segtool reads", _LOOKED_FOR)
        listing = _Listing(", ".join(map(str, files)))
        listing.add(folder.resolve().as_posix(), "", files)
        listings.append(listing)
    return _put_together(listings, list(by_folder), limits)


@dataclass
class _Listing:
    """What one input holds."""

    where: str
    entries: list[Entry] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, root: str, folder: str, files: Iterable[Path]) -> None:
        """Add the files of one folder."""
        for file in files:
            suffix = suffix_of(file)
            if suffix and SUFFIXES[suffix] != "dicom":
                stem = file.name[: -len(suffix)]
                self.entries.append(Entry(root, folder, stem, suffix, SUFFIXES[suffix], (file,)))
            elif suffix or may_be_dicom(file.name):
                self.candidates.append(Candidate(root, folder, file))


def _put_together(listings: Sequence[_Listing], file_folders: list[Path], limits: Limits) -> Found:
    found = Found(file_folders=file_folders)
    entries = [entry for listing in listings for entry in listing.entries]
    problems: list[Problem] = []
    known: set[str] = set()
    candidates = [candidate for listing in listings for candidate in listing.candidates]
    if candidates:
        # Brings numpy, which most folders do without until they are read.
        from segtool.scan.dicom_entries import dicom_entries

        dicom = dicom_entries(candidates, limits)
        entries += dicom.entries
        problems, known, found.personal = dicom.problems, dicom.known, dicom.personal
    for listing in listings:
        found.problems += listing.problems
        if not listing.entries and not any(file.identity in known for file in listing.candidates):
            shown = {str(file.path) for file in listing.candidates}
            own = [*listing.problems, *(problem for problem in problems if problem.where in shown)]
            hidden = Privacy(found.personal)
            reason = hidden.plain(f" ({own[0].where}: {own[0].problem})") if own else ""
            raise UsageError(f"{listing.where}: nothing that segtool can read{reason}", _LOOKED_FOR)
    found.problems += problems
    once: dict[str, Entry] = {}
    for entry in entries:
        once.setdefault(entry.identity, entry)
    found.entries += once.values()
    return found


def _walk(top: Path, skipped: Path | None, follow_links: bool) -> _Listing:
    found = _Listing(str(top))
    root = top.resolve().as_posix()
    links = Links(Path(root), follow_links)
    pending = [""]
    while pending:
        folder = pending.pop()
        if not links.is_new_folder(f"{root}/{folder}"):
            continue
        try:
            with os.scandir(f"{root}/{folder}") as listing:
                items = sorted(listing, key=lambda item: item.name)
        except OSError as error:
            found.problems.append(
                Problem(folder or str(top), f"cannot be read ({error.strerror})", "Check its permissions.")
            )
            continue
        if folder and _holds_results(f"{root}/{folder}", {item.name for item in items}):
            found.problems.append(
                Problem(
                    folder,
                    "passed over: it holds results of segtool (a report or a run file)",
                    "If it holds scans too, give it as an input of its own.",
                    loses_case=False,
                )
            )
            continue
        items = [item for item in items if not item.name.startswith(".")]
        files = []
        for item in items:
            below = f"{folder}/{item.name}" if folder else item.name
            if item.is_dir(follow_symlinks=False) or (item.is_symlink() and links.leads_to_folder(item)):
                if item.name not in NOT_SCANS and Path(item.path) != skipped:
                    pending.append(below)
            elif links.leads_to_file(item, below) if item.is_symlink() else item.is_file():
                files.append(item.name)
            elif not item.is_symlink() and suffix_of(Path(item.name)):
                links.special.append(below)
        shown = top / folder
        found.add(root, folder, [shown / name for name in files])
    found.problems += links.problems(str(top))
    return found


def _holds_results(folder: str, names: set[str]) -> bool:
    """True of an output folder, whose label maps are no scans, during a run too."""
    reports = (name for name in names if _REPORT.fullmatch(name) and name.removesuffix("json") + "csv" in names)
    return any(name.startswith(_RUN_FILE) for name in names) or any(
        _is_our_report(f"{folder}/{name}") for name in reports
    )


def _is_our_report(path: str) -> bool:
    """True where segtool wrote the report, and not another program that calls its report alike."""
    report = Path(path)
    try:
        # A pipe would keep its reader waiting.
        if not report.is_file():
            return False
        with report.open("rb") as file:
            return _OUR_REPORT in file.read(200)
    except OSError:
        return False


def _has_dicom_name(name: str) -> bool:
    """True for names without a suffix, and those that end in a number (``IM.0001``, a UID)."""
    ending = name.rpartition(".")[2] if "." in name else ""
    return name.upper() != DIRECTORY and (not ending or ending.isdecimal())


def may_be_dicom(name: str) -> bool:
    """False for names of which it is known that something else is in the file."""
    _, dot, ending = name.rpartition(".")
    return name.upper() != DIRECTORY and not (dot and ending.lower() in _OTHER_KINDS)


def _is_dicom(file: Path) -> bool:
    from segtool.formats.dicom.elements import looks_like_dicom

    try:
        return may_be_dicom(file.name) and looks_like_dicom(file)
    except OSError:
        return False
