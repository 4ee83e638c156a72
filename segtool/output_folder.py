"""The folder of a run's results: checked before any work is done, and never mistaken for scans."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segtool.atomic import PARTIAL_PREFIX
from segtool.case import CaseSource
from segtool.errors import OutputError, UsageError


def check_resumable(folder: Path, checksums: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse to go on with the results of other models or of other settings: the report would mix them.

    Args:
        folder: Of the earlier run's results.
        checksums: SHA-256 of the model files.
        settings: As the report has them.

    Raises:
        UsageError: The report in ``folder`` tells of other models or other settings.
    """
    try:
        earlier = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        # Reports of an older version name one model, by its checksum alone.
        models = [one["sha256"] for one in earlier.get("models", ())] or [earlier["model_sha256"]]
        known = models, earlier["options"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return  # no report, so that nothing is known of the earlier run
    if known != (list(checksums), json.loads(json.dumps(settings))):
        raise UsageError(
            f"{folder}: --continue with another model or other options than the earlier run ({earlier.get('model')})",
            "Repeat its options, leave --continue out, or choose another folder with --output.",
        )


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
    trial = folder / f"{PARTIAL_PREFIX}trial"
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
