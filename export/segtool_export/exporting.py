"""From a run's folder to a model file that has proved itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from segtool.atomic import atomic_path
from segtool.errors import ModelError, UsageError
from segtool.model_file import sha256, write_spec
from segtool.spec import ModelSpec
from segtool_export.cases import folder_samples, validation_samples
from segtool_export.onnx_file import write_onnx
from segtool_export.parity import Parity, compare
from segtool_train.run_folder import RunFolder
from segtool_train.training import build_network

PARITY_SAMPLES = 64  # spread over the cases: minutes of a CPU for slices, and the worst of 64 is a hard test


@dataclass(frozen=True)
class Exported:
    """A model file and the proof that it segments as the trained network does."""

    path: Path
    spec: ModelSpec
    parity: Parity
    size_bytes: int
    sha256: str


def export_run(
    run_path: Path, output: Path, cases: Path | None, opset: int, min_component_share: float | None = None
) -> Exported:
    """Export the best weights of a run.

    Args:
        run_path: Folder that `segtool train` wrote.
        output: The ``.onnx`` file; it appears only once parity is proved.
        cases: Scans to compare on; None takes the run's validation cases.
        opset: ONNX operator set.
        min_component_share: Replaces the rule of the spec's post-processing; None keeps the recipe's.

    Raises:
        UsageError: Not a run, no cases, or ``output`` is no ``.onnx`` file.
        ModelError: The export segments otherwise than the trained network, or the weights do not fit it.
        OutputError: The file cannot be written.
    """
    if output.suffix != ".onnx":
        raise UsageError(f"--output {output}: not the name of an .onnx file", "End it in .onnx.")
    run = RunFolder(run_path)
    spec = run.read_spec()
    network = trained_network(run)
    limit = PARITY_SAMPLES
    samples = validation_samples(run, limit) if cases is None else folder_samples(cases, spec, limit)
    with atomic_path(output) as temporary:
        write_onnx(network, spec, temporary, opset)
        parity = compare(network, temporary, spec, samples)
        parity.check(output)
        export = {"opset": opset, "parity": parity.to_provenance()}
        update: dict[str, Any] = {"provenance": {**spec.provenance, "export": export}}
        if min_component_share is not None:
            rules = {"min_component_share": min_component_share}
            update["postprocess"] = spec.postprocess.model_copy(update=rules)
        spec = spec.model_copy(update=update)
        write_spec(temporary, spec, temporary)
    return Exported(output, spec, parity, output.stat().st_size, sha256(output))


def trained_network(run: RunFolder) -> nn.Module:
    """The network of a run with its best weights, in inference mode.

    Raises:
        UsageError: Not a run that has ended an epoch.
        ModelError: The weights do not fit the recipe's network.
    """
    network, _ = build_network(run.read_recipe())
    try:
        network.load_state_dict(run.read_best())
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        raise ModelError(
            f"{run.best_file}: does not fit the network of {run.recipe_file.name} ({first_line})",
            "Train again, or restore the folder.",
        ) from error
    return network.eval()
