"""Thresholds, rules for components and flips, chosen on a run's validation cases through its exported file.

What was chosen lies in RUN/learnt.json, so that every later export of the same weights carries it too.
"""

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from segtool.atomic import write_text
from segtool.backends import Device
from segtool.errors import ModelError, UsageError, UserError
from segtool.job import Job
from segtool.model_file import read_spec, sha256, write_spec
from segtool.postprocess.learning import Learnt, PostprocessLearner
from segtool.spec import FLIP_AXES, Flip, ModelSpec, PostprocessSpec
from segtool_export.segmenting import segment
from segtool_train.data.base import Item
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder

LEARNT = "learnt.json"
FEWEST_PATIENTS = 5
"""Below it, rules that fit the validation patients say nothing about others."""
FLIP_MARGIN = 0.002
"""Validation Dice that flips must gain: each of them doubles the time of inference."""


@dataclass(frozen=True)
class Choice:
    """What was chosen: the spec that has it, and how, for the provenance."""

    spec: ModelSpec
    provenance: dict[str, Any]


def learn(
    run: RunFolder, model: Path, items: Sequence[Item], device: Device, log: Callable[[str], None]
) -> Choice | None:
    """Choose what the recipe's ``[inference]`` allows and write it into ``model`` and into the run.

    Flips are those that training showed; more of them are added one by one. Then thresholds and rules are chosen
    on the probabilities that the chosen flips give.

    Args:
        run: The run; an earlier choice in it is forgotten.
        model: Its exported file.
        items: The validation cases.
        device: Where to run.
        log: Told what was chosen, or why nothing was.

    Returns:
        None where nothing was to be chosen.
    """
    forget(run)
    recipe = run.read_recipe()
    wanted, patients = recipe.inference, len({item.patient for item in items})
    rules = wanted.learn_postprocessing and patients >= FEWEST_PATIENTS
    flips = _flips_to_try(recipe) if wanted.learn_flips else [()]
    if wanted.learn_postprocessing and not rules:
        log(f"learn   no post-processing: validation patients {patients}, needed {FEWEST_PATIENTS}")
    if not rules and len(flips) == 1:
        return None
    plain = read_spec(model)
    tried: dict[tuple[Flip, ...], Learnt] = {}
    for combination in flips:
        log(f"learn   on {len(items)} validation cases{', flips: ' + ', '.join(combination) if combination else ''}")
        spec = plain.model_copy(update={"test_time_flips": combination})
        learner = _all_cases(model, spec, items, device)
        try:
            tried[combination] = learner.finish()
        except UsageError as error:  # no case holds any label, which no other combination would change
            log(f"learn   nothing: {error.problem}")
            return None
    choice = _choose(plain, tried, rules=rules)
    choice.provenance["patients"] = patients
    _store(run, choice)
    write_spec(model, _with_provenance(choice.spec, choice.provenance), model)
    for step in choice.provenance["steps"]:
        log(f"learn   {step['what']}: {step['chosen']}   validation Dice {step['before']:.4f} -> {step['after']:.4f}")
    return choice


def forget(run: RunFolder) -> None:
    """Remove what was chosen earlier."""
    (run.path / LEARNT).unlink(missing_ok=True)


def with_learnt(run: RunFolder, spec: ModelSpec) -> ModelSpec:
    """``spec`` with what was chosen for the run's present weights; as it is where nothing was.

    Raises:
        ModelError: RUN/learnt.json is damaged.
    """
    path = run.path / LEARNT
    if not path.is_file():
        return spec
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["weights_sha256"] != sha256(run.best_file):
            return spec  # chosen for the weights of an earlier epoch
        thresholds = zip(spec.labels, stored["thresholds"], strict=True)
        update = {
            "threshold": stored["threshold"],
            "labels": tuple(label.model_copy(update={"threshold": own}) for label, own in thresholds),
            "postprocess": PostprocessSpec.model_validate(stored["postprocess"]),
            "test_time_flips": tuple(stored["test_time_flips"]),
        }
        return _with_provenance(spec.model_copy(update=update), stored["provenance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: damaged ({error})", "Remove it, or choose again with `segtool export --card`."
        ) from error


def _flips_to_try(recipe: Recipe) -> list[tuple[Flip, ...]]:
    """No flip, then those that training showed, one more at a time."""
    shown: list[Flip] = [flip for flip in FLIP_AXES if getattr(recipe.augmentation, f"flip_{flip}") > 0]
    return [(), *accumulate((flip,) for flip in shown)]


def _all_cases(model: Path, spec: ModelSpec, items: Sequence[Item], device: Device) -> PostprocessLearner:
    """The learner after all validation cases have gone through the file, as ``spec`` says.

    Raises:
        UserError: A case cannot be read.
    """
    learner, lock = PostprocessLearner(spec), threading.Lock()
    errors: list[UserError] = []

    def finish(job: Job) -> None:
        if job.error is not None:
            errors.append(job.error)
            return
        assert job.case is not None
        assert job.case.reference is not None
        assert job.probabilities is not None
        with lock:
            learner.add(job.probabilities, job.case.reference.labels, job.case.reference.geometry)

    segment(model, spec, items, device, finish)
    if errors:
        raise errors[0]
    return learner


def _choose(plain: ModelSpec, tried: dict[tuple[Flip, ...], Learnt], *, rules: bool) -> Choice:
    """The flips that are worth their time, then the rules that were best with them."""
    dice = {flips: _mean_dice(learnt, "is_default") for flips, learnt in tried.items()}
    best: tuple[Flip, ...] = ()
    steps = []
    for flips in list(tried)[1:]:
        # Every axis doubles the time, and must pay for it by itself.
        if dice[flips] > dice[best] + FLIP_MARGIN * (len(flips) - len(best)):
            best = flips
    if len(tried) > 1:
        steps.append({"what": "flips", "chosen": ", ".join(best) or "none", "before": dice[()], "after": dice[best]})
    spec, provenance = plain.model_copy(update={"test_time_flips": best}), {}
    if rules:
        learnt = tried[best]
        spec, provenance = learnt.spec, _without_nan(learnt.as_dict())
        steps += [
            {
                "what": "post-processing",
                "chosen": _in_words(learnt),
                "before": dice[best],
                "after": _mean_dice(learnt, "is_chosen"),
            }
        ]
    return Choice(spec, {"on": "validation", "steps": steps, "postprocessing": provenance})


def _mean_dice(learnt: Learnt, which: str) -> float:
    """Over the labels, of the default or of the chosen candidates."""
    values = [one.dice for one in learnt.table if getattr(one, which) and not math.isnan(one.dice)]
    return float(np.mean(values))


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - nested tables and what they hold
    """For JSON, which has no NaN: the Dice of a label that no validation case holds is None."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _in_words(learnt: Learnt) -> str:
    words = []
    for one in learnt.table:
        if one.is_chosen and one.is_default:
            words.append(f"{one.label} as before")
        elif one.is_chosen:
            rules = ", ".join(f"{key} {value:g}" for key, value in one.rules.model_dump().items() if value)
            words.append(f"{one.label} threshold {one.threshold:g}{', ' + rules if rules else ''}")
    return "; ".join(words)


def _store(run: RunFolder, choice: Choice) -> None:
    content = {
        "weights_sha256": sha256(run.best_file),
        "threshold": choice.spec.threshold,
        "thresholds": [label.threshold for label in choice.spec.labels],
        "postprocess": choice.spec.postprocess.model_dump(mode="json"),
        "test_time_flips": list(choice.spec.test_time_flips),
        "provenance": choice.provenance,
    }
    write_text(run.path / LEARNT, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _with_provenance(spec: ModelSpec, learnt: dict[str, Any]) -> ModelSpec:
    return spec.model_copy(update={"provenance": {**spec.provenance, "learnt": learnt}})
