import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from finished_run import Finished

from segtool.errors import ModelError
from segtool.model_file import read_spec
from segtool.postprocess.learning import PostprocessLearner
from segtool.spec import LabelRules
from segtool_export import learning
from segtool_export.exporting import export_run
from segtool_export.learning import LEARNT, with_learnt
from segtool_train.run_folder import RunFolder


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.fixture
def run(finished: Finished, tmp_path: Path) -> RunFolder:
    shutil.copytree(finished.run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "cache"))
    return RunFolder(tmp_path / "run")


def test_what_was_chosen_stands_in_the_file_with_its_gain(finished: Finished):
    learnt = read_spec(finished.run / "model.onnx").provenance["learnt"]
    assert learnt["on"] == "validation"
    assert learnt["patients"] == 5
    assert [step["what"] for step in learnt["steps"]] == ["flips", "post-processing"]
    assert all(step["after"] >= step["before"] for step in learnt["steps"])
    assert [line for line in finished.lines if line.startswith("learn   on ")][:2] == [
        "learn   on 10 validation cases",
        "learn   on 10 validation cases, flips: horizontal",
    ]


def test_a_later_export_of_the_same_weights_carries_it_too(run: RunFolder, tmp_path: Path):
    edit(run.path / LEARNT, threshold=0.4, test_time_flips=["horizontal"], postprocess={"min_component_voxels": 7})
    spec = export_run(run.path, tmp_path / "again.onnx", None, 17).spec
    assert spec.threshold == 0.4
    assert spec.test_time_flips == ("horizontal",)
    assert spec.postprocess.min_component_voxels == 7
    assert spec.provenance["learnt"]["on"] == "validation"
    assert read_spec(tmp_path / "again.onnx") == spec


def test_other_weights_do_not(run: RunFolder):
    edit(run.path / LEARNT, threshold=0.4, weights_sha256="0" * 64)
    assert with_learnt(run, run.read_spec()) == run.read_spec()


def test_a_damaged_file_is_refused(run: RunFolder):
    (run.path / LEARNT).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="Remove it"):
        with_learnt(run, run.read_spec())


def test_a_share_given_by_hand_replaces_what_was_learnt_for_single_labels(run: RunFolder, tmp_path: Path):
    own = {"tumour": LabelRules(min_component_share=0.5, fill_holes=True).model_dump()}
    edit(run.path / LEARNT, postprocess={"labels": own})
    spec = export_run(run.path, tmp_path / "again.onnx", None, 17, min_component_share=0.1).spec
    assert spec.postprocess.rules_of("tumour") == LabelRules(min_component_share=0.1, fill_holes=True)


def test_few_patients_teach_nothing(run: RunFolder, finished: Finished):
    lines: list[str] = []
    items = [SimpleNamespace(patient="1"), SimpleNamespace(patient="2")]
    recipe = run.recipe_file.read_text(encoding="utf-8").replace("learn_flips = true", "learn_flips = false")
    run.recipe_file.write_text(recipe, encoding="utf-8")
    assert learning.learn(run, run.path / "model.onnx", items, "cpu", lines.append) is None
    assert lines == ["learn   no post-processing: validation patients 2, needed 5"]
    assert not (run.path / LEARNT).exists()


def outcome(default: float, chosen: float) -> SimpleNamespace:
    """What learning gives, with one label."""
    rules = LabelRules()
    rows = (
        SimpleNamespace(label="a", threshold=0.5, rules=rules, dice=default, is_default=True, is_chosen=False),
        SimpleNamespace(label="a", threshold=0.4, rules=rules, dice=chosen, is_default=False, is_chosen=True),
    )
    return SimpleNamespace(spec="learnt", table=rows, as_dict=lambda: {"a": {"dice": float("nan")}})


@pytest.mark.parametrize(
    ("one", "two", "chosen"),
    [
        (0.801, 0.801, ()),  # less than the margin
        (0.810, 0.811, ("horizontal",)),  # the second axis does not pay for its time
        (0.810, 0.820, ("horizontal", "vertical")),
        (0.801, 0.806, ("horizontal", "vertical")),  # both together do
    ],
)
def test_flips_must_pay_for_their_time(run: RunFolder, one: float, two: float, chosen: tuple[str, ...]):
    tried = {
        (): outcome(0.8, 0.8),
        ("horizontal",): outcome(one, one),
        ("horizontal", "vertical"): outcome(two, two),
    }
    choice = learning._choose(run.read_spec(), tried, rules=False)
    assert choice.spec.test_time_flips == chosen


def test_rules_are_those_of_the_chosen_flips_and_json_gets_no_nan(run: RunFolder):
    choice = learning._choose(run.read_spec(), {(): outcome(0.8, 0.85)}, rules=True)
    assert choice.spec == "learnt"
    (step,) = choice.provenance["steps"]
    assert (step["before"], step["after"], step["chosen"]) == (0.8, 0.85, "a threshold 0.4")
    assert choice.provenance["postprocessing"] == {"a": {"dice": None}}


def test_nothing_is_learnt_where_no_reference_holds_a_label(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_all_cases", lambda _model, spec, _items, _device: PostprocessLearner(spec))
    lines: list[str] = []
    items = [SimpleNamespace(patient=str(number)) for number in range(5)]
    assert learning.learn(run, run.path / "model.onnx", items, "cpu", lines.append) is None
    assert lines[-1].startswith("learn   nothing: no post-processing can be learnt")
    assert not (run.path / LEARNT).exists()


def test_only_flips_that_training_showed_are_tried(run: RunFolder):
    assert learning._flips_to_try(run.read_recipe()) == [(), ("horizontal",)]
