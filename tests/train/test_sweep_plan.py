"""Sweep files, the search and the table: all that needs no training."""

import math
from pathlib import Path

import pytest

from segtool.errors import UsageError
from segtool_train.columns import measures
from segtool_train.recipe import find_recipe, read_recipe
from segtool_train.sweep.plan import Range, Search, Sweep, find_sweep, read_sweep
from segtool_train.sweep.search import Proposal
from segtool_train.sweep.table import short_names, to_csv, to_markdown
from segtool_train.sweep.trial import Trial, read_trial


def sweep(folder: Path, text: str) -> Sweep:
    (folder / "sweep.toml").write_text(text, encoding="utf-8")
    return read_sweep(folder / "sweep.toml")


@pytest.mark.parametrize(
    "keys",
    [
        '[grid]\n"training.lr" = [0.1, 0.2]\n"training.batch" = [4, 8]',
        "[grid.training]\nlr = [0.1, 0.2]\nbatch = [4, 8]",
    ],
)
def test_a_grid_is_every_combination_and_its_last_key_varies_fastest(tmp_path: Path, keys: str):
    points = sweep(tmp_path, f'recipe = "cheng-unet"\n{keys}\n').points
    rows = [(point["training.lr"], point["training.batch"]) for point in points]
    assert rows == [(0.1, 4), (0.1, 8), (0.2, 4), (0.2, 8)]


def test_explicit_rows_keep_their_order_and_a_path_starts_at_the_sweep_file(tmp_path: Path):
    (tmp_path / "mine.toml").touch()
    rows = "[[trials]]\nnetwork.width = 8\n[[trials]]\nnetwork.width = 4\n"
    found = sweep(tmp_path, f'recipe = "mine.toml"\nset = {{ training.epochs = 3 }}\n{rows}')
    assert found.points == [{"network.width": 8}, {"network.width": 4}]
    assert found.shared == {"training.epochs": 3}
    assert Path(found.recipe) == tmp_path / "mine.toml"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "wanted one of .grid., ..trials.. and .optuna., found none"),
        ('[grid]\n"training.lr" = [1]\n[[trials]]\n"training.lr" = 1', "found grid and trials"),
        ('[grid]\n"training.lr" = []', "at least 1 item"),
        ("[optuna]\ntrials = 2\nspace = {}", "at least 1 item"),
        ('[optuna]\ntrials = 2\n[optuna.space]\n"training.lr" = { low = 2, high = 1 }', "low 2 is not below high 1"),
        ('[optuna]\ntrials = 2\n[optuna.space]\n"training.lr" = { low = 0, high = 1, log = true }', "a positive low"),
        ("[grids]", "grids"),
        ("=", "mend the file"),
    ],
)
def test_a_file_that_is_no_sweep_says_where(tmp_path: Path, text: str, problem: str):
    with pytest.raises(UsageError, match=problem):
        sweep(tmp_path, f'recipe = "cheng-unet"\n{text}\n')


def test_a_name_that_is_no_sweep_lists_what_is_shipped():
    with pytest.raises(UsageError, match=r"Name one of .*cheng-table1"):
        find_sweep("cheng")


def test_the_shipped_table_of_piwonska_and_czuba_has_their_five_rows():
    found = read_sweep(find_sweep("cheng-table1"))
    rows = [(p["training.epochs"], p["training.batch"], p["training.lr"]) for p in found.points]
    assert rows == [(40, 16, 5e-4), (200, 8, 1e-5), (50, 8, 1e-3), (100, 32, 1e-3), (150, 8, 5e-5)]
    for point in found.points:
        recipe = read_recipe(find_recipe(found.recipe), {**found.shared, **point})
        assert (recipe.training.epochs, recipe.training.loss.name, recipe.training.optimiser) == (
            point["training.epochs"],
            "bce",
            "adam",
        )


SPACE = {
    "training.lr": Range(low=1e-5, high=1e-1, log=True),
    "network.depth": Range(low=3, high=5),
    "spec.input.size": {"choices": ([64, 64], [96, 96])},
}


def searched(search: Search, count: int, before: tuple[Trial, ...] = ()) -> list[Trial]:
    """Trials whose Dice is best at a rate of 1e-3."""
    trials = list(before)
    for number in range(len(before), count):
        values = Proposal(search, trials, number).values
        dice = 1 - abs(math.log10(values["training.lr"]) + 3) / 4
        trials.append(Trial(number, values, "done", {"dice": dice}, curve=(dice,)))
    return trials


def test_a_search_stays_in_its_space():
    for trial in searched(Search(trials=8, space=SPACE, startup=4), 8):
        assert 1e-5 <= trial.values["training.lr"] <= 1e-1
        assert trial.values["network.depth"] in (3, 4, 5)
        assert trial.values["spec.input.size"] in ([64, 64], [96, 96])


def test_a_search_closes_in_on_the_best():
    search = Search(trials=24, space={"training.lr": SPACE["training.lr"]}, startup=6)
    # At random half of the rates are within a factor of 10 of the best.
    near = [trial.validation["dice"] > 0.75 for trial in searched(search, 24)]
    assert sum(near[12:]) >= 9


def test_a_search_goes_on_as_if_it_had_not_been_interrupted():
    search = Search(trials=6, space=SPACE, startup=2, seed=5)
    whole = searched(search, 6)
    assert searched(search, 6, tuple(whole[:3])) == whole
    assert searched(search, 6) != searched(Search(trials=6, space=SPACE, startup=2, seed=6), 6)


def test_a_search_counts_failed_and_pruned_trials_and_gives_an_interrupted_one_its_values_back():
    search = Search(trials=3, space=SPACE, startup=1)
    values = searched(search, 1)[0].values
    before = [Trial(0, values, "failed", error="no"), Trial(1, values, "pruned", {"dice": 0.1}, curve=(0.1,))]
    assert Proposal(search, before, 2, values).values == values


def test_a_search_refuses_trials_of_another_space():
    other = Trial(0, {"training.batch": 4}, "done", {"dice": 0.5})
    with pytest.raises(UsageError, match=r"Resume with the same \[optuna.space\]"):
        Proposal(Search(trials=2, space=SPACE), [other], 1)


def test_pruning_stops_what_stays_below_the_median_after_the_warmup():
    space = {"training.lr": Range(low=1e-5, high=1e-1, log=True)}
    good = [Trial(n, {"training.lr": 1e-3}, "done", {"dice": 0.8}, curve=(0.8, 0.8, 0.8)) for n in range(2)]
    for prune, wanted in ((True, [False, True]), (False, [False, False])):
        search = Search(trials=3, space=space, startup=2, prune=prune, warmup=1)
        poor = Proposal(search, good, 2)
        assert [poor.should_stop([0.1]), poor.should_stop([0.1, 0.2])] == wanted
    better = Proposal(Search(trials=3, space=space, startup=2, prune=True, warmup=0), good, 2)
    assert not better.should_stop([0.9])


def test_f1_is_the_harmonic_mean_of_precision_and_recall_and_what_is_not_a_number_is_left_out():
    row = {"val_dice": 0.5, "val_iou": math.nan, "val_precision": 0.5, "val_recall": 1.0, "val_loss": 1.0}
    assert measures(row, "val_") == {"dice": 0.5, "f1": pytest.approx(2 / 3), "precision": 0.5, "recall": 1.0}
    assert measures({"precision": 0.0, "recall": 0.0}) == {"precision": 0.0, "recall": 0.0}


TRIALS = (
    Trial(
        0,
        {"training.lr": 1e-3, "network.width": 16},
        "done",
        {"dice": 0.80456, "iou": 0.7, "f1": 0.75, "precision": 0.6, "recall": 1.0},
        {"dice": 0.7},
        best_epoch=2,
        curve=(0.5, 0.80456),
        elapsed_s=12.34,
    ),
    Trial(1, {"training.lr": 1e-2, "network.width": 16}, "failed", error="out of memory. Lower --batch."),
)


def test_the_table_for_people():
    assert to_markdown(TRIALS[:1]).splitlines()[2].startswith("| 0 | 0.001 | 16 | 0.8046 | 0.7000 | 0.7500 |")
    assert to_markdown(TRIALS).splitlines() == [
        "| trial | lr | width | Dice | IoU | F1 | Precision | Recall "
        "| test Dice | test IoU | test F1 | test Precision | test Recall | state |",
        "|" + " --- |" * 14,
        "| 0 | 0.001 | 16 | 0.8046 | 0.7000 | 0.7500 | 0.6000 | 1.0000 | 0.7000 |  |  |  |  | done |",
        "| 1 | 0.01 | 16 |  |  |  |  |  |  |  |  |  |  | failed |",
        "",
        "- trial 1: out of memory. Lower --batch.",
    ]


def test_the_table_for_machines():
    assert to_csv(TRIALS).splitlines() == [
        "trial,training.lr,network.width,val_dice,val_iou,val_f1,val_precision,val_recall,"
        "test_dice,test_iou,test_f1,test_precision,test_recall,best_epoch,epochs,elapsed_s,state,error",
        "0,0.001,16,0.80456,0.7,0.75,0.6,1,0.7,,,,,2,2,12.3,done,",
        "1,0.01,16,,,,,,,,,,,,0,0.0,failed,out of memory. Lower --batch.",
    ]


def test_columns_are_called_by_the_last_part_of_a_key_unless_two_share_it():
    assert short_names(["training.lr", "network.name", "spec.name"]) == ["lr", "network.name", "spec.name"]


def test_a_trial_reads_back_as_it_was_written(tmp_path: Path):
    for trial in TRIALS:
        trial.write(tmp_path)
        assert read_trial(tmp_path, trial.number) == trial
    assert read_trial(tmp_path, 7) is None
    (tmp_path / "trial-000" / "trial.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UsageError, match="Remove that file"):
        read_trial(tmp_path, 0)
