"""Learns the bundled model's temperature on its validation patients and writes it, and its card, with what it does.

The graph and whatever decides a label map stay as they are. How far the probabilities can be believed is measured on
validation and test patients, and stands in the file's provenance, whence the card takes it.

Run: ``python -m benchmarks.bundled_confidence [--model M.onnx] [--output N.onnx]`` (default: the bundled file itself,
whose card and reliability diagram are then written too)
"""

import tempfile
from pathlib import Path

from benchmarks.cheng import cheng_items, model_and_output
from benchmarks.model_card import diagram_of, rewrite_card
from segtool.bundled import default_model
from segtool.model_file import read_spec, write_spec
from segtool_export.confidence import confidence_results, learn_temperature
from segtool_export.evaluation import evaluate_items
from segtool_export.figures import draw_reliability


def write_confidence(model: Path, output: Path) -> None:
    """Learn on validation, measure on test, write ``output`` at once when all is known."""
    items = cheng_items()
    learnt = learn_temperature(model, items["validation"], "cpu")
    spec = read_spec(model).model_copy(update={"confidence": learnt.spec})
    with tempfile.TemporaryDirectory() as folder:
        tried = Path(folder) / model.name
        write_spec(model, spec, tried)
        evaluation = evaluate_items(tried, items["test"], Path(folder) / "labels", "cpu", print)
    assert not evaluation.failures, evaluation.failures[0].error
    provenance = {**spec.provenance, "calibration": confidence_results(learnt, "test", evaluation)}
    write_spec(model, spec.model_copy(update={"provenance": provenance}), output)


def main() -> None:
    """Learn, measure, write."""
    model, output = model_and_output(__doc__)
    write_confidence(model, output)
    calibration = read_spec(output).provenance["calibration"]
    print(f"{output}   temperature {calibration['temperature']}")
    for side, one in calibration["sides"].items():
        before, after = one["before"], one["after"]
        print(
            f"{side:12} {one['cases']} slices   calibration error {before['ece']:.4f} -> {after['ece']:.4f}   "
            f"negative log likelihood {before['nll']:.4f} -> {after['nll']:.4f}"
        )
    print(f"ranking      {calibration['ranking']}")
    if output == default_model():
        draw_reliability(calibration["sides"], calibration["temperature"], diagram_of(output))
        print(rewrite_card(output))


if __name__ == "__main__":
    main()
