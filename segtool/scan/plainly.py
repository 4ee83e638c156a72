"""What a scan found, told as the user knows it: archives by their names, and nothing of a patient."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from segtool.errors import UsageError
from segtool.scan.archives import Unpacked
from segtool.scan.cases import scan
from segtool.scan.found import Scan, ScanOptions
from segtool.spec import ModelSpec

Look = Callable[[Sequence[Path], ModelSpec | None, ScanOptions | None], Scan]


def scan_unpacked(
    folders: Unpacked, spec: ModelSpec | None = None, options: ScanOptions | None = None, look: Look = scan
) -> Scan:
    """As :func:`segtool.scan.scan`, of inputs among which archives may be.

    Args:
        folders: The inputs, as :func:`segtool.scan.unpacked` gives them.
        spec: As of the scan.
        options: As of the scan.
        look: The scan, or what stands in its place.

    Raises:
        UsageError: As the scan raises it.
    """
    try:
        found = look(folders.inputs, spec, options)
    except UsageError as error:
        raise UsageError(folders.mended(error.problem), folders.mended(error.remedy)) from error
    privacy = found.privacy.showing(folders.names)
    problems = (problem.told(privacy.plain) for problem in (*folders.problems, *found.problems))
    return replace(found, problems=tuple(problems), privacy=privacy)
