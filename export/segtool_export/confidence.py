"""The temperature of a run's model file, learnt on validation cases, and how far its probabilities can be believed.

What was learnt lies in RUN/confidence.json, so that every later export of the same weights carries it too.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segtool.atomic import write_text
from segtool.backends import Device
from segtool.errors import ModelError, UsageError, UserError
from segtool.job import Job
from segtool.model_file import read_spec, sha256, write_spec
from segtool.postprocess.calibration import Calibration, Calibrator
from segtool.spec import ConfidenceSpec, ModelSpec
from segtool_export.evaluation import Evaluation
from segtool_export.figures import mean_dice
from segtool_export.segmenting import gather, segment
from segtool_train.data.base import Item, spread
from segtool_train.run_folder import RunFolder

CONFIDENCE = "confidence.json"
FEWEST_RANKED = 10
MOST_CASES = {2: 500, 3: 50}
"""By rank: one number needs no more, and every case goes through the network for it."""


def learn_confidence(
    run: RunFolder, model: Path, items: Sequence[Item], device: Device, log: Callable[[str], None]
) -> Calibration | None:
    """Learn the temperature with all that the file says, flips included, and write it into file and run.

    Args:
        run: The run; an earlier temperature in it is forgotten.
        model: Its exported file.
        items: The validation cases.
        device: Where to run.
        log: Told what came out, or why nothing did.

    Raises:
        UserError: A case cannot be read, or the file cannot be used.
    """
    forget_confidence(run)
    try:
        found = learn_temperature(model, items, device)
    except UsageError as error:  # no case holds any label
        log(f"learn   no temperature: {error.problem}")
        return None
    content = {"weights_sha256": sha256(run.best_file), "confidence": found.spec.model_dump(mode="json")}
    write_text(run.path / CONFIDENCE, json.dumps(content, indent=1) + "\n")
    write_spec(model, read_spec(model).model_copy(update={"confidence": found.spec}), model)
    log(
        f"learn   temperature {found.spec.temperature:g}: calibration error {found.before.ece:.4f} -> "
        f"{found.after.ece:.4f} near the structures of {found.cases} validation {_unit(read_spec(model))}"
    )
    return found


def learn_temperature(model: Path, items: Sequence[Item], device: Device) -> Calibration:
    """The temperature of a model file on labelled cases, spread over them where they are many.

    Raises:
        UsageError: Neither predictions nor references hold a label.
        UserError: A case cannot be read, or the file cannot be used.
    """
    spec = read_spec(model)
    calibrator, errors = Calibrator(spec), list[UserError]()

    def finish(job: Job) -> None:
        if job.error is not None:
            errors.append(job.error)
        else:
            gather(calibrator, job)

    segment(model, spec, spread(items, MOST_CASES[spec.input.rank]), device, finish, logits=True)
    if errors:
        raise errors[0]
    return calibrator.learn()


def forget_confidence(run: RunFolder) -> None:
    """Remove what was learnt earlier."""
    (run.path / CONFIDENCE).unlink(missing_ok=True)


def with_confidence(run: RunFolder, spec: ModelSpec) -> ModelSpec:
    """``spec`` with the temperature that was learnt for the run's present weights; as it is where none was.

    Raises:
        ModelError: RUN/confidence.json is damaged.
    """
    path = run.path / CONFIDENCE
    if not path.is_file():
        return spec
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["weights_sha256"] != sha256(run.best_file):
            return spec  # learnt for the weights of an earlier epoch
        return spec.model_copy(update={"confidence": ConfidenceSpec.model_validate(stored["confidence"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: damaged ({error})", "Remove it, or learn again with `segtool export --card`."
        ) from error


def confidence_results(learnt: Calibration, side: str, evaluation: Evaluation) -> dict[str, Any]:
    """What the card says: temperature, what it does where it was learnt and where it was measured, and the ranking.

    Args:
        learnt: On validation cases.
        side: Of the cases that were measured.
        evaluation: Of them.
    """
    sides = {"validation": learnt.as_dict()}
    if evaluation.calibration is not None and side != "validation":
        sides[side] = evaluation.calibration.as_dict()
    return {"temperature": learnt.spec.temperature, "sides": sides, "ranking": _ranking(evaluation)}


def _ranking(evaluation: Evaluation) -> dict[str, Any] | None:
    """How well expected Dice ranks what was measured, by the mean Dice over structures; None of too few."""
    expected: dict[str, float] = {}
    for case in evaluation.cases:
        by_row = {case.name: case.confidence} | {f"{case.name}[{i}]": one for i, one in case.slice_confidence.items()}
        expected |= {name: one["expected_dice"] for name, one in by_row.items() if one}
    pairs = [(expected[row.name], mean_dice(row)) for row in evaluation.rows if row.name in expected]
    known = [(one, dice) for one, dice in pairs if not math.isnan(dice)]
    if len(known) < FEWEST_RANKED:
        return None
    doubt, dice = [-one for one, _ in known], [dice for _, dice in known]
    return ranked(doubt, dice)


def ranked(doubt: Sequence[float], dice: Sequence[float]) -> dict[str, Any]:
    """How well doubts rank cases: by rank correlation, and by how many bad cases are met early.

    Args:
        doubt: Of each case; the highest would be looked at first.
        dice: Of each case.

    Returns:
        ``cases``; ``spearman``, between doubt and the lack of Dice, None where either is constant; and
        ``worst_tenth_in_first_fifth``, the share of the worst 10 % that lie among the first 20 % by doubt, where
        chance gives 0.2.
    """
    from scipy.stats import rankdata

    count, ranks = len(dice), (rankdata(doubt), rankdata(dice))
    varied = all(np.ptp(one) > 0 for one in ranks)
    worst = set(np.argsort(dice, kind="stable")[: math.ceil(count / 10)].tolist())
    first = set(np.argsort(np.negative(doubt), kind="stable")[: math.ceil(count / 5)].tolist())
    return {
        "cases": count,
        "spearman": round(-float(np.corrcoef(*ranks)[0, 1]), 4) if varied else None,
        "worst_tenth_in_first_fifth": round(len(worst & first) / len(worst), 4),
    }


def _unit(spec: ModelSpec) -> str:
    return "slices" if spec.input.rank == 2 else "cases"
