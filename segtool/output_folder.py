"""The folder of a run's results: checked before any work is done, and never mistaken for scans."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segtool.atomic import partial_path
from segtool.case import CaseSource
from segtool.errors import OutputError, UsageError

RUN_FILE = ".segtool-run"
"""A hidden file of a run that is under way, or was killed; see :mod:`segtool.shared_run`."""

_REPORT = re.compile(r"report(-part-\d+-of-\d+)?\.json")
_KEPT = ("name", "status", "stamp", "notes", "warnings", "confidence", "slice_confidence", "geometry")
"""What of an earlier run's row cannot be had from its files again."""

_LARGEST_REPORT = 2**29
"""Bytes; of a thousand cases one has about a million."""

Row = Mapping[str, Any]
"""Of a case, as reports have it."""


@dataclass(frozen=True)
class Part:
    """Which share of the cases a process does: every ``of``-th, beginning with ``index``.

    Raises:
        UsageError: There is no such share.
    """

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        if self.of < 1:
            raise UsageError(f"--num-parts {self.of}: no number of parts", "Give 1 or more.")
        if not 0 <= self.index < self.of:
            raise UsageError(
                f"--part-id {self.index}: not one of {self.of} parts", f"They are counted from 0 to {self.of - 1}."
            )

    @property
    def is_whole(self) -> bool:
        """True where there is one part only."""
        return self.of == 1

    @property
    def _suffix(self) -> str:
        return "" if self.is_whole else f"-part-{self.index}-of-{self.of}"

    @property
    def run_file(self) -> str:
        """Name of the run file."""
        return RUN_FILE + self._suffix

    @property
    def report(self) -> str:
        """Name of the report, without its suffix."""
        return "report" + self._suffix


@dataclass(frozen=True)
class RunIdentity:
    """What must be the same where processes share a run, or one goes on with another's results.

    Args:
        version: Of segtool.
        model: Names and versions of the models, for messages.
        checksums: SHA-256 of the model files.
        options: Whatever else changes a label map, as the report has it.
        files: What is written besides label maps, such as ``--overlay``: processes that share a run agree in it too.
    """

    version: str
    model: str
    checksums: tuple[str, ...]
    options: Mapping[str, Any]
    files: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tool_version": self.version,
            "model": self.model,
            "models": [{"sha256": checksum} for checksum in self.checksums],
            "options": dict(self.options),
            "files": list(self.files),
        }

    @classmethod
    def from_dict(cls, content: Row) -> "RunIdentity":
        """Of a run file, or of a report.

        Raises:
            KeyError: The report is of no prediction.
        """
        # Reports of an older version name one model, by its checksum alone.
        checksums = [one["sha256"] for one in content.get("models", ())] or [content["model_sha256"]]
        return cls(
            str(content.get("tool_version")),
            str(content.get("model")),
            tuple(checksums),
            dict(content["options"]),
            tuple(content.get("files", ())),
        )

    def difference(self, other: "RunIdentity", *, at_once: bool = False) -> str:
        """What ``other`` has in place of this run's, such as ``threshold 0.4 instead of 0.5``; empty where nothing.

        Args:
            other: Another run.
            at_once: They are to share the work, and not to go on with each other's.
        """
        if at_once and self.version != other.version:
            return f"segtool {other.version} instead of {self.version}"
        if at_once and self.files != other.files:
            theirs, mine = (" ".join(one.files) or "label maps alone" for one in (other, self))
            return f"{theirs} instead of {mine}"
        if self.checksums != other.checksums:
            if self.model != other.model:
                return f"the model {other.model} instead of {self.model}"
            return f"another file of the model {other.model}"
        mine, theirs = (json.loads(json.dumps(dict(one.options))) for one in (self, other))
        for name in dict.fromkeys((*mine, *theirs)):
            if mine.get(name) != theirs.get(name):
                return f"{name} {theirs.get(name)} instead of {mine.get(name)}"
        return ""

    def check_same(self, earlier: "RunIdentity", folder: Path, told_by: Path) -> None:
        """Refuse to go on with the results of other models or of other settings: the report would mix them.

        Raises:
            UsageError: ``earlier``, which the file ``told_by`` tells of, is another run.
        """
        if difference := self.difference(earlier):
            raise UsageError(
                f"{folder}: --continue with another model or other options than the earlier run, which {told_by.name} "
                f"says had {difference}",
                "Repeat its options, leave --continue out, or choose another folder with --output.",
            )


def run_files(folder: Path) -> list[Path]:
    """Run files of the whole and of parts."""
    return sorted(folder.glob(f"{RUN_FILE}*"))


def part_reports(folder: Path) -> list[Path]:
    """Reports of parts, of either kind."""
    return sorted(path for path in folder.glob("report-part-*") if _REPORT.fullmatch(path.with_suffix(".json").name))


def earlier_results(
    folder: Path, identity: RunIdentity, killed: Sequence[tuple[Path, RunIdentity, Sequence[Row]]] = ()
) -> list[Row] | None:
    """What earlier runs in ``folder`` made of its cases, the latest where there are several.

    Args:
        folder: Of the results.
        identity: Of the run that goes on with them.
        killed: Run files of parts that were killed: what they are, and their rows.

    Returns:
        The rows, or None where no file tells of an earlier run.

    Raises:
        UsageError: One of them had other models or options, or is no report of ours by its size.
    """
    told = list(killed)
    for path in folder.glob("report*.json"):
        # A pipe of that name would keep its reader waiting.
        if _REPORT.fullmatch(path.name) and path.is_file():
            _check_size(path)
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                told.append((path, RunIdentity.from_dict(content), content["cases"]))
            except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
                continue  # not ours, or not whole
    if not told:
        return None
    rows: dict[str, Row] = {}
    for path, known, cases in sorted(told, key=lambda one: _written(one[0])):
        identity.check_same(known, folder, path)
        for row in cases if isinstance(cases, Sequence) else ():
            if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
                continue
            rows[row["name"]] = {key: row[key] for key in _KEPT if key in row}
    return list(rows.values())


def _check_size(path: Path) -> None:
    """Refuse a report that would take all memory.

    Raises:
        UsageError: It is larger than any.
    """
    size = path.stat().st_size
    if size > _LARGEST_REPORT:
        raise UsageError(
            f"{path}: a report of {size} bytes, wanted {_LARGEST_REPORT} at most",
            "Remove it, or choose another folder with --output.",
        )


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def check_apart(inputs: Sequence[Path], output: Path) -> None:
    """Refuse to put results into a folder of scans, where the next run would take them for scans.

    Raises:
        UsageError: The output folder is one of the inputs.
    """
    if any(path.is_dir() and path.resolve() == output.resolve() for path in inputs):
        raise UsageError(f"{output}: both an input and the output folder", "Choose another folder with --output.")


def check_writable(folder: Path) -> None:
    """Make ``folder`` and try a file in it, before any work is done.

    Raises:
        OutputError: It cannot be made or written.
    """
    trial = partial_path(folder / "trial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be written ({error.strerror or error})",
            "Choose another one with --output.",
        ) from error


def refuse_to_overwrite(target: Path, source: CaseSource) -> None:
    """Refuse a result that would take the place of one of the case's own files.

    Raises:
        OutputError: ``target`` is one of them.
    """
    if not target.exists():
        return
    sources = [*source.channels.values(), *([source.reference] if source.reference else [])]
    if any(target.samefile(path) for one in sources for path in one.paths if path.exists()):
        raise OutputError(
            f"case {source.name!r}: the result would overwrite the scan {target}",
            "Choose another folder with --output.",
        )


def refuse_to_leave(target: Path, folder: Path) -> None:
    """Refuse a result that a link below the output folder would lead out of it. Its own name may be a link, which goes.

    Raises:
        OutputError: It would.
    """
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise OutputError(
            f"{target}: a link leads out of the output folder",
            "Remove the link, or choose another folder with --output.",
        )
