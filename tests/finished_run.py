"""A run that is trained and finished, for the tests of export."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_cheng import RECIPE, write_cheng


@dataclass(frozen=True)
class Finished:
    """A run, what finishing it gave and said."""

    run: Path
    facts: dict[str, Any]
    lines: list[str]


@pytest.fixture(scope="session")
def finished(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run that finds its discs, with five patients to validate and five to test, and its finish."""
    from segtool_export.finish import finish_run
    from segtool_train.recipe import parse_recipe
    from segtool_train.training import Options, train_run

    folder = tmp_path_factory.mktemp("finished")
    recipe = parse_recipe(
        RECIPE,
        "discs",
        "discs.toml",
        {"training.epochs": 12, "training.ema_decay": None, "inference.learn_flips": True},
    )
    data, run = write_cheng(folder / "discs", patients=25), folder / "run"
    train_run(recipe, Options(data, run), lambda _line: None)
    lines: list[str] = []
    return Finished(run, finish_run(run, device="cpu", log=lines.append), lines)
