"""What a prediction can be told, and whom it tells of its progress."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segtool.backends import Device
from segtool.backends.base import Backend, Precision
from segtool.ensemble import Ensemble
from segtool.output_folder import Part
from segtool.outputs import OUTPUTS
from segtool.report import CaseResult
from segtool.scan import Scan, ScanOptions

DEFAULT_OUTPUT = Path("segtool-output")

SAME = "same"
"""The kind of result that is the scan's own kind of file: NIfTI for DICOM."""

FORMATS = (SAME, *OUTPUTS)
"""All kinds of results."""


@dataclass(frozen=True)
class PredictOptions:
    """What ``segtool predict`` can be told.

    Args:
        model: The ``.onnx`` file, or several whose probabilities are averaged; None for the bundled one.
        output: Folder of the results.
        scan: Where references and channels are looked for.
        threshold: Probability above which a voxel belongs to a label; None for the model's own.
        tta: Test-time augmentation: ``none``, ``flips``, or axes such as ``horizontal,vertical``; None for the
            model's own.
        device: Where to run.
        precision: Of the arithmetic, refused where the engine computes in another; None for what suits the engine.
        batch: Slices or windows that the network takes at once; None for what suits the device.
        threads: CPU threads of the engine; None for one a core.
        overlay: Also write pictures with the contours.
        save_probabilities: Also write probability maps.
        soft_metrics: Also score the probabilities, without a threshold, where there are references.
        patients: Of each case, or of each slice such as ``name[17]``: intervals of means then draw whole patients.
        raw: Skip the post-processing that the model's spec asks for.
        resume: Keep results that an earlier run finished.
        strict: Refuse cases whose images had to be brought onto one grid.
        formats: Kinds of label maps to write, of :data:`FORMATS`.
        anonymise: Leave the patient's particulars blank in DICOM results, which otherwise carry them.
        review_worst: How many cases the report lists to be looked at first, see :mod:`segtool.review`.
        part: Which share of the cases to do, and of how many: ``(0, 4)`` is the first of four.
        require_signature: Public key (PEM, Ed25519) with which every model must be signed; None asks for nothing.
        case_timeout_s: How long the reading of one case may take before it fails; None for no end.
    """

    model: Path | Sequence[Path] | None = None
    output: Path = DEFAULT_OUTPUT
    scan: ScanOptions = field(default_factory=ScanOptions)
    threshold: float | None = None
    tta: str | None = None
    device: Device = "auto"
    precision: Precision | None = None
    batch: int | None = None
    threads: int | None = None
    overlay: bool = False
    save_probabilities: bool = False
    soft_metrics: bool = False
    patients: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False
    resume: bool = False
    strict: bool = False
    formats: tuple[str, ...] = (SAME,)
    anonymise: bool = False
    review_worst: int = 0
    part: tuple[int, int] = (0, 1)
    require_signature: Path | None = None
    case_timeout_s: float | None = 600.0

    @property
    def report(self) -> Path:
        """The report."""
        return self.output / f"{Part(*self.part).report}.json"


@dataclass(frozen=True)
class Progress:
    """Told of a run as it goes; every function is called from several threads."""

    on_start: Callable[[Ensemble, Backend, Scan], None] = lambda _models, _backend, _scan: None
    on_case: Callable[[CaseResult], None] = lambda _result: None
    on_units: Callable[[int], None] = lambda _count: None
    on_elsewhere: Callable[[CaseResult], None] = lambda _result: None
    """Told of each case of this run that another process has finished."""
    on_wait: Callable[[str], None] = lambda _line: None
    """Told what is being waited for, such as an engine that is being built."""
