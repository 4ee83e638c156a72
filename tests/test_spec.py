"""ModelSpec: checked when made."""

import json

import pytest
from pydantic import ValidationError

from segtool.errors import ModelError
from segtool.spec import SCHEMA, ChannelSpec, LabelRules, LabelSpec, ModelSpec, PostprocessSpec, SliceSpec, VolumeSpec

TUMOUR = LabelSpec(name="tumour", value=1)
T1CE = ChannelSpec(name="t1ce", aliases=("T1Gd",))


def make(**changes: object) -> ModelSpec:
    parts = {"name": "m", "channels": (T1CE,), "labels": (TUMOUR,), "input": SliceSpec(size=(64, 64))}
    return ModelSpec(**(parts | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": (T1CE, T1CE)}, "channel names occur twice"),
        ({"labels": (TUMOUR, LabelSpec(name="core", value=1))}, "label values occur twice"),
        ({"labels": (TUMOUR, LabelSpec(name="tumour", value=2))}, "label names occur twice"),
        ({"regions": {"WT": (1, 2)}}, "region 'WT' names values"),
        ({"input": SliceSpec(size=(64, 72))}, "does not divide by 16"),
        ({"threshold": 1.0}, "less than 1"),
        ({"name": "../up"}, "match pattern"),
        ({"labels": ({"name": "tumour", "value": 1, "threshold": 1.0},)}, "less than 1"),
        ({"postprocess": {"labels": {"core": {"fill_holes": True}}}}, "post-processing of \\['core'\\]"),
        ({"test_time_flips": ("horizontal", "horizontal")}, "not different axes"),
        ({"test_time_flips": ("depth",)}, "not different axes of the input"),
        ({"test_time_flips": ("left",)}, "'horizontal', 'vertical' or 'depth'"),
        ({"colour": "red"}, "Extra inputs"),
        ({"input": {"rank": 3, "patch": (16, 16, 16), "orientation": "XYZ"}}, "not an orientation"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**changes)


def test_json_round_trip_keeps_the_kind_of_input() -> None:
    for extent in (SliceSpec(size=(64, 64)), VolumeSpec(patch=(32, 32, 32))):
        spec = make(input=extent)
        assert ModelSpec.from_json(spec.to_json()) == spec


def test_a_channel_answers_to_its_aliases_in_any_case() -> None:
    assert T1CE.is_called("t1gd")
    assert T1CE.is_called("T1CE")
    assert not T1CE.is_called("t1")


def test_softmax_has_one_output_more_for_the_background() -> None:
    assert make().output_channels == 1
    assert make(activation="softmax").output_channels == 2


OWN = LabelSpec(name="tumour", value=1, threshold=0.3)
RULES = PostprocessSpec(fill_holes=True, labels={"tumour": LabelRules(min_component_voxels=5)})


@pytest.mark.parametrize("changes", [{"labels": (OWN,)}, {"postprocess": RULES}, {"test_time_flips": ("vertical",)}])
def test_what_an_older_reader_would_get_wrong_raises_the_schema(changes: dict[str, object]) -> None:
    spec = make(**changes)
    assert json.loads(spec.to_json())["schema"] == 2
    assert ModelSpec.from_json(spec.to_json()) == spec


def test_cases_that_are_one_window_raise_it_once_more() -> None:
    box = VolumeSpec(patch=(32, 32, 32), whole_case_voxels=1000)
    assert json.loads(make(input=box).to_json())["schema"] == 3
    assert "whole_case_voxels" not in make(input=VolumeSpec(patch=(32, 32, 32))).to_json()


def test_a_spec_that_uses_nothing_new_is_written_as_before() -> None:
    written = json.loads(make(postprocess=PostprocessSpec(largest_component=True)).to_json())
    assert written["schema"] == 1
    assert next(iter(written)) == "schema"
    assert "test_time_flips" not in written
    assert set(written["labels"][0]) == {"name", "value", "reference_values"}
    rules = {"min_component_voxels", "min_component_share", "largest_component", "fill_holes"}
    assert set(written["postprocess"]) == rules


@pytest.mark.parametrize("schema", [0, -1, "2", 2.5, True, None])
def test_a_schema_that_is_no_number_of_one_is_refused(schema: object) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx: the spec has schema .*Export the model again"):
        ModelSpec.from_json(json.dumps(json.loads(make().to_json()) | {"schema": schema}), "m.onnx")


def test_a_spec_of_a_newer_schema_asks_for_an_update_and_one_without_is_of_the_first() -> None:
    content = json.loads(make().to_json())
    with pytest.raises(ModelError, match=f"reads up to {SCHEMA}.*pip install -U"):
        ModelSpec.from_json(json.dumps(content | {"schema": SCHEMA + 1}))
    del content["schema"]
    assert ModelSpec.from_json(json.dumps(content)) == make()


def test_a_label_has_its_own_threshold_and_rules_or_the_models() -> None:
    labels = (OWN, LabelSpec(name="core", value=2))
    spec = make(labels=labels, threshold=0.6, postprocess=RULES)
    assert spec.thresholds == (0.3, 0.6)
    assert spec.postprocess.rules_of("tumour") == LabelRules(min_component_voxels=5)
    assert spec.postprocess.rules_of("core") == LabelRules(fill_holes=True)


def test_labels_with_codes_of_their_own_raise_it_to_the_fourth() -> None:
    code = {
        "category": {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Abnormal Structure"},
        "type": {"value": "79654002", "scheme": "SCT", "meaning": "Edema"},
        "colour": (0, 128, 255),
    }
    spec = make(labels=({"name": "ED", "value": 1, "code": code},))
    assert json.loads(spec.to_json())["schema"] == 4
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert "code" not in make().to_json()
    with pytest.raises(ValidationError, match="less than or equal to 255"):
        make(labels=({"name": "ED", "value": 1, "code": code | {"colour": (0, 0, 256)}},))
