"""From a run's folder to a model file that has proved itself."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from segtool.atomic import atomic_path
from segtool.errors import UsageError
from segtool.model_file import sha256, write_spec
from segtool.spec import ModelSpec, PostprocessSpec
from segtool_export.cases import Sample, folder_samples, item_samples, validation_samples
from segtool_export.onnx_file import write_onnx
from segtool_export.parity import Parity, compare
from segtool_export.weights import RunWeights
from segtool_train.data.base import Item
from segtool_train.run_folder import RunFolder

PARITY_SAMPLES = {2: 64, 3: 4}
"""By rank, spread over the cases: minutes of a CPU, and the worst of 64 slices, or of 4 volumes of a hundred windows
each, is a hard test."""


@dataclass(frozen=True)
class Exported:
    """A model file and the proof that it segments as the trained network does."""

    path: Path
    spec: ModelSpec
    parity: Parity
    size_bytes: int
    sha256: str


def export_run(
    run_path: Path,
    output: Path,
    cases: Path | Sequence[Item] | None,
    opset: int,
    min_component_share: float | None = None,
) -> Exported:
    """Export weights of a run.

    Args:
        run_path: Folder that `segtool train` wrote, whose best weights are taken, or a file of weights in it.
        output: The ``.onnx`` file; it appears only once parity is proved.
        cases: Scans to compare on, a folder or items; None takes the run's validation cases from its cache.
        opset: ONNX operator set.
        min_component_share: Replaces the rule of the spec's post-processing; None keeps the recipe's.

    Raises:
        UsageError: Not a run, no cases, or ``output`` is no ``.onnx`` file.
        ModelError: The export segments otherwise than the trained network, or the weights do not fit it.
        OutputError: The file cannot be written.
    """
    _check_output(output)
    weights = RunWeights.at(run_path)
    spec, network = weights.spec(), weights.network()
    samples = _samples(weights.run, spec, cases)
    with atomic_path(output) as temporary:
        write_onnx(network, spec, temporary, opset)
        parity = compare(network, temporary, spec, samples)
        parity.check(output)
        export = {"opset": opset, "parity": parity.to_provenance()}
        update: dict[str, Any] = {"provenance": {**spec.provenance, "export": export}}
        if min_component_share is not None:
            update["postprocess"] = _with_share(spec.postprocess, min_component_share)
        spec = spec.model_copy(update=update)
        write_spec(temporary, spec, temporary)
    return Exported(output, spec, parity, output.stat().st_size, sha256(output))


def _samples(run: RunFolder, spec: ModelSpec, cases: Path | Sequence[Item] | None) -> Iterable[Sample]:
    limit = PARITY_SAMPLES[spec.input.rank]
    if cases is None:
        return validation_samples(run, limit)
    return folder_samples(cases, spec, limit) if isinstance(cases, Path) else item_samples(cases, spec, limit)


def _check_output(output: Path) -> None:
    """Before any work is done."""
    if output.suffix != ".onnx":
        raise UsageError(f"--output {output}: not the name of an .onnx file", "End it in .onnx.")
    if output.is_dir():
        raise UsageError(f"--output {output}: is a folder", f"Name a file in it: {output / 'model.onnx'}")


def _with_share(rules: PostprocessSpec, share: float) -> PostprocessSpec:
    """The rules with another ``min_component_share``, for every label."""
    changed = {"min_component_share": share}
    labels = {name: one.model_copy(update=changed) for name, one in rules.labels.items()}
    return rules.model_copy(update={**changed, "labels": labels})


def trained_network(run: RunFolder) -> nn.Module:
    """The network of a run with its best weights, in inference mode; errors as :meth:`RunWeights.network`."""
    return RunWeights(run).network()
