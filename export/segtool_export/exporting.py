"""From a run's folder to a model file that has proved itself."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segtool.errors import UsageError
from segtool.model_file import sha256
from segtool.spec import ModelSpec, PostprocessSpec
from segtool_export.cases import Sample, folder_samples, item_samples, validation_samples
from segtool_export.external_data import check_inside, publish, weights_facts
from segtool_export.onnx_file import write_onnx
from segtool_export.parity import AnyArray, Original, Parity, Run
from segtool_export.precision import KEPT, Precision
from segtool_export.proving import Candidate, OnEngine, Proof, Tried, prove, prove_on_openvino
from segtool_export.quantisation import CALIBRATION_EXTENT, CALIBRATION_SAMPLES, Calibration, int8_candidates
from segtool_export.weights import RunWeights
from segtool_train.data.base import Item, spread
from segtool_train.run_folder import RunFolder

PARITY_SAMPLES = {2: 64, 3: 4}
"""By rank, spread over the cases: minutes of a CPU, and the worst of 64 slices, or of 4 volumes of a hundred windows
each, is a hard test."""


@dataclass(frozen=True)
class Conversion:
    """What a file is to be beside the network in it.

    Args:
        precision: Of the arithmetic in the graph.
        static: Fix batch and extent.
        calibrate: Scans from which INT8 takes its ranges; None takes those that parity is proved on.
        calibration: How it takes them; ``best`` tries all ways.
    """

    precision: Precision = "fp32"
    static: bool = False
    calibrate: Path | None = None
    calibration: Calibration = "best"

    def __post_init__(self) -> None:
        if self.calibrate is not None and self.precision != "int8":
            raise UsageError("--calibrate is for --precision int8", "Add it, or leave --calibrate out.")

    @property
    def plain(self) -> bool:
        """Nothing but the network, in full precision and for any extent."""
        return self.precision == "fp32" and not self.static

    @property
    def file_name(self) -> str:
        """Of the file in its run, such as ``model-fp16.onnx``."""
        static = "-static" if self.static else ""
        return "model" + (f"-{self.precision}" if self.precision != "fp32" else "") + f"{static}.onnx"


PLAIN = Conversion()


@dataclass(frozen=True)
class Exported:
    """A model file and the proof that it segments as its original does."""

    path: Path
    spec: ModelSpec
    parity: Parity
    size_bytes: int
    sha256: str
    tried: tuple[Tried, ...] = ()
    also: tuple[OnEngine, ...] = ()
    notes: tuple[str, ...] = ()


def export_run(
    run_path: Path,
    output: Path,
    cases: Path | Sequence[Item] | None,
    opset: int,
    min_component_share: float | None = None,
    conversion: Conversion = PLAIN,
) -> Exported:
    """Export weights of a run.

    Args:
        run_path: Folder that `segtool train` wrote, whose best weights are taken, or a file of weights in it.
        output: The ``.onnx`` file; it appears only once parity is proved.
        cases: Scans to compare on, a folder or items; None takes the run's validation cases from its cache.
        opset: ONNX operator set.
        min_component_share: Replaces the rule of the spec's post-processing; None keeps the recipe's.
        conversion: Precision and shapes.

    Raises:
        UsageError: Not a run, no cases, or ``output`` is no ``.onnx`` file.
        ModelError: The export segments otherwise than the trained network, or the weights do not fit it.
        OutputError: The file cannot be written.
    """
    check_output(output)
    weights = RunWeights.at(run_path)
    spec, network = weights.spec(), weights.network()
    if min_component_share is not None:
        spec = spec.model_copy(update={"postprocess": with_share(spec.postprocess, min_component_share)})
    if conversion.static:
        spec = spec.in_windows()
    samples = _samples(weights.run, spec, cases)
    with tempfile.TemporaryDirectory(prefix="segtool-export-") as folder:
        original = Original(_torch_run(network), "torch fp32", Path(folder))
        rounds = _rounds(network, spec, opset, conversion, samples, Path(folder))
        proof = prove(original, rounds, spec, samples, conversion.precision, output)
        also = prove_on_openvino(original, proof.chosen.path, spec, samples, conversion.precision)
        return store(proof, spec, output, {"opset": opset}, conversion, also)


def store(
    proof: Proof,
    spec: ModelSpec,
    output: Path,
    facts: dict[str, Any],
    conversion: Conversion,
    also: tuple[OnEngine, ...] = (),
    notes: tuple[str, ...] = (),
) -> Exported:
    """Write the file that passed, with the proof in its spec.

    Args:
        proof: From :func:`segtool_export.proving.prove`.
        spec: Of the model.
        output: Where to write.
        facts: Of its provenance, beside precision and proof.
        conversion: What it was to be.
        also: How it segments on other engines.
        notes: For who exports.

    Raises:
        OutputError: The file cannot be written.
    """
    chosen = proof.chosen
    export = {"precision": conversion.precision, **facts, **chosen.candidate.facts}
    if conversion.static:
        export["static_shape"] = True
        spec = spec.in_windows()
    weights = weights_facts(chosen.path, output.name)
    if weights is not None:
        export["weights"] = weights
        notes = (*notes, f"its weights lie beside it in {weights['file']}: the two belong together")
    export["parity"] = chosen.parity.to_provenance()
    if also:
        export["proved_on"] = [one.to_provenance() for one in also]
    spec = spec.model_copy(update={"provenance": {**spec.provenance, "export": export}})
    publish(chosen.path, spec, output)
    size_bytes = output.stat().st_size + (0 if weights is None else weights["size_bytes"])
    return Exported(output, spec, chosen.parity, size_bytes, sha256(output), proof.tried, also, notes)


def _rounds(
    network: nn.Module, spec: ModelSpec, opset: int, conversion: Conversion, samples: Sequence[Sample], folder: Path
) -> Iterator[Sequence[Candidate]]:
    """What to try, in rounds, see :func:`segtool_export.proving.prove`."""
    write = partial(_write, network, spec, opset, static=conversion.static)
    if conversion.precision == "fp32":
        yield [Candidate("fp32", write, {})]
    elif conversion.precision == "fp16":
        for kept in KEPT:
            name = "fp16" if kept == "nothing" else f"fp16, {kept} in fp32"
            yield [Candidate(name, partial(write, half=kept), {} if kept == "nothing" else {"kept_in_fp32": kept})]
    else:
        full = folder / "full.onnx"
        write(full)
        check_inside(full, conversion.precision)
        yield from int8_candidates(full, calibration_images(conversion, spec, samples), conversion.calibration)


def _write(network: nn.Module, spec: ModelSpec, opset: int, path: Path, **options: Any) -> None:  # noqa: ANN401 - as write_onnx
    write_onnx(network, spec, path, opset, **options)


def calibration_images(conversion: Conversion, spec: ModelSpec, samples: Sequence[Sample]) -> Sequence[AnyArray]:
    """Inputs ``(C, *S)`` from which INT8 takes its ranges: slices, or a window from the middle of each volume."""
    limit = CALIBRATION_SAMPLES[spec.input.rank]
    chosen = spread(samples, limit)
    if conversion.calibrate is not None:
        chosen = folder_samples(conversion.calibrate, spec, limit, "--calibrate")
    if spec.input.rank == 2:
        return [sample.image for sample in chosen]
    largest = CALIBRATION_EXTENT // spec.divisor * spec.divisor
    extent = spec.input.patch if conversion.static else tuple(min(n, largest) for n in spec.input.patch)
    return [middle(sample.image, extent) for sample in chosen]


def middle(image: AnyArray, extent: Sequence[int]) -> AnyArray:
    """The middle ``(C, *extent)`` of ``(C, *S)``; where that is smaller, its lowest value is around it."""
    pairs = list(zip(image.shape[1:], extent, strict=True))
    missing = [max(0, wanted - n) for n, wanted in pairs]
    padding = [(0, 0), *((n // 2, n - n // 2) for n in missing)]
    padded = np.pad(image, padding, constant_values=float(image.min()))
    starts = [max(0, n - wanted) // 2 for n, wanted in pairs]
    return padded[(slice(None), *(slice(start, start + n) for start, n in zip(starts, extent, strict=True)))]


def _torch_run(network: nn.Module) -> Run:
    network = network.eval().float().cpu()

    @torch.inference_mode()
    def run(batch: AnyArray) -> AnyArray:
        logits: AnyArray = network(torch.from_numpy(np.array(batch, np.float32))).numpy()
        return logits

    return run


def _samples(run: RunFolder, spec: ModelSpec, cases: Path | Sequence[Item] | None) -> Sequence[Sample]:
    limit = PARITY_SAMPLES[spec.input.rank]
    if cases is None:
        return validation_samples(run, limit)
    return folder_samples(cases, spec, limit) if isinstance(cases, Path) else list(item_samples(cases, spec, limit))


def check_output(output: Path) -> None:
    """Before any work is done.

    Raises:
        UsageError: It is a folder, or not called as a model.
    """
    if output.suffix != ".onnx":
        raise UsageError(f"--output {output}: not the name of an .onnx file", "End it in .onnx.")
    if output.is_dir():
        raise UsageError(f"--output {output}: is a folder", f"Name a file in it: {output / 'model.onnx'}")


def with_share(rules: PostprocessSpec, share: float) -> PostprocessSpec:
    """The rules with another ``min_component_share``, for every label."""
    changed = {"min_component_share": share}
    labels = {name: one.model_copy(update=changed) for name, one in rules.labels.items()}
    return rules.model_copy(update={**changed, "labels": labels})


def trained_network(run: RunFolder) -> nn.Module:
    """The network of a run with its best weights, in inference mode; errors as :meth:`RunWeights.network`."""
    return RunWeights(run).network()
