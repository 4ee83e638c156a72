"""The next point of an Optuna search, from the trials that have ended.

Nothing but the sweep's folder is kept between trials: the study is made anew for each of them, and its sampler is
seeded by the trial's number, so that an interrupted search goes on as if it had not been.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from segtool.errors import UsageError
from segtool_train.sweep.plan import Choices, Range, Search, Values
from segtool_train.sweep.trial import Trial

_STATES = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Proposal:
    """A trial that Optuna has drawn.

    Args:
        search: The space.
        before: Trials that have ended.
        number: Of the new one.
        values: What it was given earlier, None to draw.

    Raises:
        UsageError: Earlier trials are not of this space.
    """

    def __init__(self, search: Search, before: Sequence[Trial], number: int, values: Values | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=_seed(search.seed, number), n_startup_trials=search.startup),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=search.startup, n_warmup_steps=search.warmup),
        )
        distributions = {key: _distribution(entry) for key, entry in search.space.items()}
        try:
            for trial in before:
                study.add_trial(_frozen(search, trial))
            if values is not None:
                study.enqueue_trial(_parameters(search, values))
        except (ValueError, KeyError) as error:
            raise UsageError(
                f"the trials before {number} are of another search ({error})",
                "Resume with the same [optuna.space], or sweep into another folder.",
            ) from error
        self._trial = study.ask(distributions)
        self._prune, self._reported = search.prune, 0
        self.values: Values = {
            key: entry.choices[self._trial.params[key]] if isinstance(entry, Choices) else self._trial.params[key]
            for key, entry in search.space.items()
        }

    def should_stop(self, curve: Sequence[float]) -> bool:
        """True where the search gives this trial up; ``curve`` is its validation Dice of every epoch so far."""
        for epoch in range(self._reported, len(curve)):
            self._trial.report(curve[epoch], epoch)
        self._reported = len(curve)
        return self._prune and bool(curve) and self._trial.should_prune()


def _seed(seed: int, number: int) -> int:
    """One a trial, unlike those of other searches."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _distribution(entry: Range | Choices) -> BaseDistribution:
    if isinstance(entry, Choices):
        # By number: Optuna stores none but plain values.
        return CategoricalDistribution(range(len(entry.choices)))
    if isinstance(entry.low, int) and isinstance(entry.high, int):
        return IntDistribution(entry.low, entry.high, log=entry.log, step=int(entry.step or 1))
    return FloatDistribution(entry.low, entry.high, log=entry.log, step=entry.step)


def _parameters(search: Search, values: Values) -> dict[str, Any]:
    """Values as Optuna knows them."""
    return {
        key: entry.choices.index(values[key]) if isinstance(entry, Choices) else values[key]
        for key, entry in search.space.items()
    }


def _frozen(search: Search, trial: Trial) -> FrozenTrial:
    """An ended trial as Optuna knows it. Without a Dice it counts as failed."""
    dice = trial.validation.get("dice")
    return create_trial(
        state=TrialState.FAIL if dice is None else _STATES[trial.state],
        value=dice if trial.state == "done" else None,  # of pruned trials the sampler looks at their curves
        params=_parameters(search, trial.values),
        distributions={key: _distribution(entry) for key, entry in search.space.items()},
        intermediate_values={epoch: dice for epoch, dice in enumerate(trial.curve) if not math.isnan(dice)},
    )
