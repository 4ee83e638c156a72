"""From an ONNX file, ours or anybody's, to a model file that has proved itself."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from segtool.backends import load_backend
from segtool.errors import UsageError
from segtool.model_file import sha256
from segtool.spec import ModelSpec
from segtool_export.cases import Sample, folder_samples
from segtool_export.exporting import (
    PARITY_SAMPLES,
    Conversion,
    Exported,
    calibration_images,
    check_output,
    store,
    with_share,
)
from segtool_export.external_data import check_inside, save_model
from segtool_export.foreign import Adopted, adopt
from segtool_export.onnx_graph import set_dims
from segtool_export.parity import Original
from segtool_export.precision import KEPT
from segtool_export.precision_onnx import halve
from segtool_export.proving import Candidate, OnEngine, prove, prove_on_openvino
from segtool_export.quantisation import int8_candidates

NOISE = "noise"
"""Name of the sample that stands for cases where none are given."""


def export_onnx(
    source: Path,
    output: Path,
    spec_file: Path | None,
    cases: Path | None,
    min_component_share: float | None,
    conversion: Conversion,
) -> Exported:
    """Adopt a file, and give it another precision or fixed shapes.

    Args:
        source: An ONNX file in FP32.
        output: The ``.onnx`` file; it appears only once parity is proved.
        spec_file: TOML of its spec; None takes the one in the file.
        cases: Scans to compare on. FP32 without them is compared on noise: nothing is computed otherwise.
        min_component_share: Replaces the rule of the spec's post-processing; None keeps it.
        conversion: Precision and shapes.

    Raises:
        UsageError: No spec, or no cases for a precision that rounds.
        ModelError: The file cannot be read or run, the spec contradicts it, or the export segments otherwise.
        OutputError: The file cannot be written.
    """
    check_output(output)
    if cases is None and conversion.precision != "fp32":
        raise UsageError(
            f"--precision {conversion.precision} of an .onnx file needs scans to prove it on", "Name them with --cases."
        )
    with tempfile.TemporaryDirectory(prefix="segtool-export-") as name:
        folder = Path(name)
        adopted = adopt(source, spec_file, folder / "adopted.onnx")
        if conversion.precision != "fp32":
            check_inside(adopted.path, conversion.precision)
        spec = adopted.spec.in_windows() if conversion.static else adopted.spec
        if min_component_share is not None:
            spec = spec.model_copy(update={"postprocess": with_share(spec.postprocess, min_component_share)})
        samples = _samples(spec, cases)
        original = Original(load_backend(adopted.path, "cpu").run, "onnxruntime fp32", folder)
        rounds = _rounds(adopted, conversion, samples, folder)
        proof = prove(original, rounds, spec, samples, conversion.precision, output)
        facts = {"opset": adopted.opset, "source_sha256": sha256(source)}
        also: tuple[OnEngine, ...] = ()
        if cases is not None:
            also = prove_on_openvino(original, proof.chosen.path, spec, samples, conversion.precision)
        return store(proof, spec, output, facts, conversion, also, adopted.notes)


def _samples(spec: ModelSpec, cases: Path | None) -> Sequence[Sample]:
    if cases is not None:
        return folder_samples(cases, spec, PARITY_SAMPLES[spec.input.rank])
    extent = spec.extent
    noise = np.random.default_rng(0).standard_normal((len(spec.channels), *extent))
    return [Sample(NOISE, noise.astype(np.float32))]


def _rounds(
    adopted: Adopted, conversion: Conversion, samples: Sequence[Sample], folder: Path
) -> Iterator[Sequence[Candidate]]:
    """What to try, in rounds, see :func:`segtool_export.proving.prove`."""
    full = folder / "full.onnx"
    if conversion.static:
        _fix(adopted, full)
    else:
        shutil.copyfile(adopted.path, full)
    if conversion.precision == "fp32":
        yield [Candidate("fp32", partial(shutil.copyfile, full), {})]
    elif conversion.precision == "fp16":
        for kept in KEPT:
            name = "fp16" if kept == "nothing" else f"fp16, {kept} in fp32"
            facts = {} if kept == "nothing" else {"kept_in_fp32": kept}
            yield [Candidate(name, partial(halve, full, kept=kept), facts)]
    else:
        images = calibration_images(conversion, adopted.spec, samples)
        yield from int8_candidates(full, images, conversion.calibration)


def _fix(adopted: Adopted, path: Path) -> None:
    """A batch of one of the spec's own extent."""
    spec = adopted.spec
    extent = spec.extent
    model = onnx.load(adopted.path)
    set_dims(model, {0: 1, **dict(enumerate(extent, start=2))})
    save_model(model, path)
