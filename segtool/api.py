"""The Python interface: what ``import segtool`` offers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.backends import Device, runnable
from segtool.backends.base import Precision
from segtool.bundled import default_model, find_model
from segtool.case import Case, LabelMap
from segtool.ensemble import read_models
from segtool.errors import GridError, UsageError
from segtool.geometry import Geometry
from segtool.pipeline import PredictOptions, predict_folder
from segtool.postprocess import SliceAssembler, VolumeAssembler, background_logits, thresholds_for
from segtool.preprocess import SlicedCase, WindowedCase
from segtool.report import Report
from segtool.resample import on_host
from segtool.scan import ScanOptions
from segtool.signatures import verified_copies
from segtool.sliding_window import Windows, window_extent
from segtool.spec import ModelSpec

PathLike = str | Path


class Model:
    """A loaded model, or several whose probabilities are averaged, that segments arrays in memory.

    Attributes:
        spec: What the model file says about itself; of several models the first.
        backend: The engine; its ``device`` is what is really used.
    """

    def __init__(
        self,
        path: Path | Sequence[Path],
        device: Device = "auto",
        threads: int | None = None,
        tta: str | None = None,
        precision: Precision | None = None,
    ) -> None:
        models = read_models([path] if isinstance(path, Path) else path, tta)
        self.spec: ModelSpec = models.spec
        self.backend = models.load(device, threads, precision=precision)

    def segment(
        self, image: npt.NDArray[Any], affine: npt.ArrayLike | None = None, threshold: float | None = None
    ) -> LabelMap:
        """Segment one picture or volume.

        Args:
            image: ``(H, W)`` or ``(C, H, W)`` without ``affine``; ``(I, J, K)`` or ``(C, I, J, K)`` with it.
                Channels in the order of ``spec.channels``.
            affine: ``(4, 4)`` index to RAS millimetres, as nibabel gives it.
            threshold: Probability above which a voxel belongs to a label; None for the model's own.

        Returns:
            The label map on the image's own grid.

        Raises:
            GridError: The shape does not fit the model.
            UsageError: ``threshold`` is no probability.
        """
        case = self._case(np.asarray(image), affine)
        cut = thresholds_for(self.spec, threshold)
        if self.spec.input.rank == 3:
            volume = WindowedCase(case, self.spec)
            whole = VolumeAssembler(volume, self.spec, cut)
            extent = window_extent(volume.tensor.shape[1:], runnable(self.backend, self.spec))
            windows = Windows(volume.tensor, extent, self.spec.input.overlap)
            for slab in windows.slabs(self.backend.run, xp=self.backend.xp, background=background_logits(self.spec)):
                whole.add(slab.logits)
            return whole.finish()[0]
        sliced = SlicedCase(case, self.spec)
        assembler = SliceAssembler(sliced, self.spec, cut)
        for index in range(sliced.count):
            if not sliced.is_blank(index):
                batch = self.backend.xp.asarray(sliced.tensor(index)[None])
                assembler.add(index, on_host(self.backend.run(batch))[0])
        return assembler.finish()[0]

    def _case(self, image: npt.NDArray[Any], affine: npt.ArrayLike | None) -> Case:
        rank = 2 if affine is None else 3
        data = image[None] if image.ndim == rank else image
        channels = len(self.spec.channels)
        if data.ndim != rank + 1 or data.shape[0] != channels:
            axes = "H, W" if rank == 2 else "I, J, K"
            raise GridError(
                f"an image of shape {image.shape}, wanted ({channels}, {axes})"
                + (" or without the channel axis" if channels == 1 else ""),
                "Give channels first; give `affine` with volumes and leave it out with pictures.",
            )
        if rank == 2 and self.spec.input.rank == 3:
            raise GridError("a 3D model needs a volume", "Give the volume's `affine` too.")
        shape = data.shape[1:]
        geometry = Geometry.of_pixels(shape) if affine is None else Geometry.of_volume(shape, affine)
        return Case("array", data, geometry)


def load_model(
    model: PathLike | Sequence[PathLike] | None = None,
    *,
    device: Device = "auto",
    threads: int | None = None,
    tta: str | None = None,
    precision: Precision | None = None,
    require_signature: PathLike | None = None,
) -> Model:
    """Load a model file, or a bundled model by name; without ``model`` the bundled default.

    Args:
        model: A file or name, or several whose probabilities are averaged.
        device: Where to run.
        threads: CPU threads of the engine; None for one a core.
        tta: Test-time augmentation: ``none``, ``flips``, or axes such as ``horizontal,vertical``; None for what
            the model asks for.
        precision: Of the arithmetic, such as bf16 with ``device="openvino"``; None for what suits the engine,
            see :func:`segtool.backends.load_backend`.
        require_signature: Public key (PEM, Ed25519) with which every file must be signed.

    Raises:
        ModelError: Not signed with that key, not a segtool model, or models that do not fit each other.
        DeviceError: ``device`` is not there.
    """
    files = _files(model) or default_model()
    key = None if require_signature is None else Path(require_signature)
    with verified_copies([files] if isinstance(files, Path) else files, key) as copies:
        return Model(copies, device, threads, tta, precision)


def _files(model: PathLike | Sequence[PathLike] | None) -> Path | list[Path] | None:
    if model is None or isinstance(model, (str, Path)):
        return None if model is None else find_model(model)
    return [find_model(one) for one in model]


def predict(
    inputs: PathLike | Sequence[PathLike],
    *,
    model: PathLike | Sequence[PathLike] | None = None,
    output: PathLike = "segtool-output",
    masks: PathLike | None = None,
    **options: Any,  # noqa: ANN401 - the fields of PredictOptions, checked there
) -> Report:
    """Segment a folder of scans, as ``segtool predict`` does.

    Args:
        inputs: Folders and files.
        model: A model file or the name of a bundled one, or several whose probabilities are averaged.
        output: Folder of label maps, ``report.json`` and ``report.csv``.
        masks: Folder of references, where they do not lie beside the scans.
        **options: Further fields of :class:`~segtool.pipeline.PredictOptions`, such as ``overlay=True``.

    Returns:
        The report; failed cases are in ``report.failures``.

    Raises:
        UserError: As the command prints it.
    """
    paths = [inputs] if isinstance(inputs, (str, Path)) else list(inputs)
    base = PredictOptions(
        model=_files(model),
        output=Path(output),
        scan=ScanOptions(masks=None if masks is None else Path(masks)),
    )
    try:
        chosen = replace(base, **options)
    except TypeError as error:
        known = ", ".join(PredictOptions.__dataclass_fields__)
        raise UsageError(f"segtool.predict: {error}", f"The options are: {known}.") from error
    return predict_folder([Path(path) for path in paths], chosen)
