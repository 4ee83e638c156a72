"""ModelSpec: checked when made."""

import pytest
from pydantic import ValidationError

from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, SliceSpec, VolumeSpec

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
