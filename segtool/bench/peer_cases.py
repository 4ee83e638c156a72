"""Whole cases by another tool, one after the other, with the network loaded once."""

import time
from collections.abc import Sequence
from pathlib import Path

from segtool.bench.memory import peak_mb
from segtool.bench.peers import SegmentsCases
from segtool.case import CaseSource, Source
from segtool.errors import CaseError
from segtool.formats import get_format
from segtool.loading import load_reference
from segtool.report import CaseResult, Report, score, structures_of
from segtool.scan import ScanOptions, scan
from segtool.spec import ModelSpec
from segtool.version import __version__


def segment_by(
    peer: SegmentsCases, spec: ModelSpec, inputs: Path, output: Path, masks: Path | None
) -> tuple[Report, float]:
    """Segment and score the cases below ``inputs``, with label maps where segtool would put its own.

    Args:
        peer: The tool.
        spec: Of the model.
        inputs: The scans.
        output: Folder of the label maps.
        masks: References that do not lie beside the scans.

    Returns:
        The report, whose ``elapsed_s`` is from the first byte read to the last written, finding the cases and loading
        the network left out; and the process's peak memory in MB before anything was scored.

    Raises:
        UsageError: No scans.
    """
    cases = scan([inputs], spec, ScanOptions(masks=masks)).cases
    targets = [output / f"{case.output_stem}.nii.gz" for case in cases]
    results = []
    start = time.perf_counter()
    for case, target in zip(cases, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        before = peer.network_s
        try:
            peer.segment(case, target)
        except CaseError as error:
            results.append(CaseResult(case.name, "failed", error=str(error)))
        else:
            results.append(CaseResult(case.name, "done", seconds={"infer": peer.network_s - before}))
    elapsed_s, peak = time.perf_counter() - start, peak_mb()
    scored = [_scored(result, case, target, spec) for result, case, target in zip(results, cases, targets, strict=True)]
    return Report("bench", __version__, tuple(scored), elapsed_s), peak


def _scored(result: CaseResult, case: CaseSource, target: Path, spec: ModelSpec) -> CaseResult:
    if result.status != "done" or case.reference is None:
        return result
    written = get_format("nifti").read_labels(Source("nifti", (target,)))
    assert written is not None
    try:
        reference = load_reference(case, written.geometry)
    except CaseError as error:
        return CaseResult(case.name, "failed", error=str(error), seconds=result.seconds)
    labels = None if reference is None else reference.labels
    scores, slices = score(written.labels, labels, written.geometry, structures_of(spec))
    return CaseResult(case.name, "done", scores=scores, slices=slices, seconds=result.seconds)


def failures(report: Report) -> list[str]:
    """A line for each thing that went wrong; cases of which the same is to be said share one."""
    names: dict[str, list[str]] = {}
    for case in report.failures:
        names.setdefault(str(case.error), []).append(case.name)
    return [f"{_listed(cases)}: {error}" for error, cases in names.items()]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
