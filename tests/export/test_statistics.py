"""What the training cases are like goes into the model file, and stays in it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from finished_run import Finished
from PIL import Image
from tiny_cheng import write_cheng
from typer.testing import CliRunner

from segtool.errors import ModelError, UsageError
from segtool.model_file import read_metadata, read_spec
from segtool.spec import ModelSpec
from segtool_export.exporting import export_run
from segtool_export.statistics import STATISTICS, add_statistics, with_statistics
from segtool_train.run_folder import RunFolder


def test_finishing_a_run_learns_from_its_training_cases_alone(finished: Finished) -> None:
    statistics = read_spec(finished.run / "model.onnx").statistics
    assert statistics is not None
    # 25 patients, 5 to test and 5 to validate, two slices each
    assert statistics.cases == 30
    assert "learn   statistics of 30 training cases" in finished.lines
    assert statistics.mask is not None
    assert (statistics.mask.cases, statistics.mask.empty) == (30, 0.0)
    assert statistics.grid is None  # pictures


def test_a_later_export_carries_them_too(finished: Finished, tmp_path: Path) -> None:
    again = export_run(finished.run, tmp_path / "again.onnx", None, 17).spec
    assert again.statistics == read_spec(finished.run / "model.onnx").statistics


def test_damaged_statistics_are_named_with_the_remedy(finished: Finished, tmp_path: Path) -> None:
    shutil.copy(finished.run / "spec.json", tmp_path / "spec.json")
    (tmp_path / STATISTICS).write_text('{"cases": -1}', encoding="utf-8")
    run = RunFolder(tmp_path)
    with pytest.raises(ModelError, match=r"statistics\.json: damaged.*`segtool export --card`"):
        with_statistics(run, read_spec(finished.run / "model.onnx"))


@pytest.fixture
def model(finished: Finished, tmp_path: Path) -> Path:
    """The same weights as another tool may have made them: without statistics."""
    from segtool.model_file import write_spec

    spec = read_spec(finished.run / "model.onnx")
    write_spec(finished.run / "model.onnx", spec.model_copy(update={"statistics": None}), tmp_path / "plain.onnx")
    return tmp_path / "plain.onnx"


def test_any_model_gets_them_from_a_folder_and_nothing_else_of_it_changes(model: Path, tmp_path: Path) -> None:
    from segtool_export.cli import export

    images = write_cheng(tmp_path / "discs", patients=12) / "images"
    import typer

    app = typer.Typer()
    app.command()(export)
    output = tmp_path / "known.onnx"
    done = CliRunner().invoke(app, [str(model), "--statistics", str(images), "-o", str(output)], catch_exceptions=False)
    assert done.stdout == f"done    {output}   24 cases\n"
    before, after = read_spec(model), read_spec(output)
    assert after.statistics is not None
    assert after.model_copy(update={"statistics": None}) == before
    entries = [{k: v for k, v in read_metadata(file).items() if k != ModelSpec.KEY} for file in (model, output)]
    assert entries[0] == entries[1]
    grown = output.stat().st_size - model.stat().st_size
    assert grown == pytest.approx(len(after.to_json()) - len(before.to_json()), abs=4)


def test_broken_scans_are_left_out_by_name_and_too_few_refused(model: Path, tmp_path: Path) -> None:
    folder, said = tmp_path / "few", []
    folder.mkdir()
    for index in range(4):
        Image.fromarray(np.full((32, 32), index * 40, np.uint8)).save(folder / f"{index}.png")
    (folder / "0.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(UsageError, match=r"statistics of 0 cases.*needed 20"):
        add_statistics(model, folder, tmp_path / "out.onnx", said.append)
    assert [line for line in said if "0.png" in line]
    assert not (tmp_path / "out.onnx").exists()


def test_other_options_beside_statistics_are_refused(model: Path, tmp_path: Path) -> None:
    from segtool_export.cli import export

    with pytest.raises(UsageError, match=r"--statistics adds to a model\.onnx.*-o FILE alone"):
        export(model, statistics=tmp_path)
