import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_cheng import RECIPE

from segtool.errors import ModelError, UsageError
from segtool.model_file import read_spec, sha256
from segtool_export import parity
from segtool_export.exporting import export_run, trained_network
from segtool_export.parity import Gate
from segtool_train.data.base import spread
from segtool_train.recipe import parse_recipe
from segtool_train.run_folder import RunFolder
from segtool_train.training import Options, train_run


@pytest.fixture(scope="module")
def run(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    recipe = parse_recipe(RECIPE, "discs", "discs.toml", {"training.epochs": 1})
    train_run(recipe, Options(discs, folder), lambda _line: None)
    return folder


def test_an_export_is_one_file_that_carries_spec_and_proof(run: Path, tmp_path: Path):
    exported = export_run(run, tmp_path / "model.onnx", None, 17)
    spec = read_spec(tmp_path / "model.onnx")
    assert spec == exported.spec
    assert spec.name == "discs"
    proof = spec.provenance["export"]["parity"]
    assert proof["mask_dice_worst"] >= proof["gate"] == 0.9999
    assert proof["samples"] == 4  # two validation patients with two slices each
    assert spec.provenance["recipe"] == "discs"
    assert exported.sha256 == sha256(tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_parity_on_a_folder_of_scans(run: Path, discs: Path, tmp_path: Path):
    exported = export_run(run, tmp_path / "model.onnx", discs / "images", 17)
    assert exported.spec.provenance["export"]["parity"]["samples"] == 20


def test_an_export_that_segments_otherwise_is_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # A gate that no pair of masks passes stands for an export that went wrong.
    monkeypatch.setitem(parity.GATES, "fp32", Gate(1.5, 1.5, -1))
    with pytest.raises(ModelError, match=r"gate fp32 mask Dice >= 1.5 in every case fails on '\d+'.*another --opset"):
        export_run(run, tmp_path / "model.onnx", None, 17)
    assert not list(tmp_path.iterdir())


def test_weights_that_do_not_fit_the_recipe_are_refused(run: Path, tmp_path: Path):
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    state = load_file(broken / "best.safetensors")
    del state["head.weight"]
    save_file(state, broken / "best.safetensors")
    with pytest.raises(ModelError, match="Train again"):
        export_run(broken, tmp_path / "model.onnx", None, 17)


def test_damaged_weights_are_refused(run: Path, tmp_path: Path):
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    (broken / "best.safetensors").write_bytes((run / "best.safetensors").read_bytes()[:100])
    with pytest.raises(ModelError, match="restore the folder"):
        export_run(broken, tmp_path / "model.onnx", None, 17)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="Give the folder that `segtool train -o` wrote"):
        export_run(tmp_path, tmp_path / "model.onnx", None, 17)


def test_an_output_that_is_no_onnx_file_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"End it in \.onnx"):
        export_run(run, tmp_path / "model.pt", None, 17)


def test_a_run_whose_cache_is_gone_asks_for_cases(run: Path, tmp_path: Path):
    moved = tmp_path / "run"
    shutil.copytree(run, moved, ignore=shutil.ignore_patterns("cache"))
    data = json.loads((moved / "data.json").read_text(encoding="utf-8"))
    (moved / "data.json").write_text(json.dumps({**data, "cache": str(tmp_path / "gone")}), encoding="utf-8")
    with pytest.raises(UsageError, match="--cases"):
        export_run(moved, tmp_path / "model.onnx", None, 17)


def test_the_trained_network_is_the_best_one(run: Path):
    state = trained_network(RunFolder(run)).state_dict()
    best = load_file(run / "best.safetensors")
    assert all(torch.equal(state[key], best[key]) for key in best)


def test_samples_are_spread_over_all_cases():
    assert spread(list(range(10)), 4) == [0, 2, 5, 7]
    assert spread([1, 2], 4) == [1, 2]


def test_a_share_for_components_goes_into_the_spec(run: Path, tmp_path: Path):
    export_run(run, tmp_path / "model.onnx", None, 17, min_component_share=0.25)
    assert read_spec(tmp_path / "model.onnx").postprocess.min_component_share == 0.25
