"""Where MLflow is installed: a run in a database of its own, without a network."""

import csv
from pathlib import Path
from typing import Any

import pytest
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.recipe import parse_recipe
from segtool_train.trackers import MLflow
from segtool_train.training import Options, train_run

mlflow: Any = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'segtool[mlflow]'")

# SQLAlchemy deprecates what MLflow's tables still do.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def no_run_is_left(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    yield
    mlflow.end_run()


def test_every_number_of_every_epoch_is_in_the_database(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    uri = f"sqlite:///{tmp_path / 'runs.db'}"
    recipe = parse_recipe(RECIPE, "discs", "here")
    train_run(recipe, Options(discs, tmp_path / "run", device="cpu", mlflow=uri, tensorboard=False), lambda _line: None)
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("segtool").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["recipe"] == "discs"
    assert float(run.data.params["lr"]) == 1e-2
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for name in ("train_loss", "val_dice", "lr"):
        stored = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        assert stored == [(int(row["epoch"]), pytest.approx(float(row[name]), rel=1e-4)) for row in rows], name
    assert capsys.readouterr().out == ""


def database_that_is_none(folder: Path) -> str:
    (folder / "runs.db").write_text("this is no database, whatever its name says")
    return f"sqlite:///{folder / 'runs.db'}"


@pytest.mark.parametrize(
    "uri", [lambda folder: str(folder / "mlruns"), lambda _folder: "http://127.0.0.1:9", database_that_is_none]
)
def test_a_place_that_takes_no_run_is_one_short_line(tmp_path: Path, uri: Any):
    with pytest.raises(UsageError, match=r"no run can be started .*sqlite:///runs\.db") as caught:
        MLflow(uri(tmp_path), parse_recipe(RECIPE, "discs", "here"), "run")
    assert len(str(caught.value)) < 500
