"""Several models as one, and test-time flips, through the whole road."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from shell import segtool
from tiny import T1CE, bright_spec, disc, volume_spec, write_model, write_pictures

import segtool as python_interface
from segtool.ensemble import parse_flips, read_models
from segtool.errors import ModelError, UsageError
from segtool.model_file import sha256
from segtool.pipeline import PredictOptions, predict_folder
from segtool.spec import ChannelSpec, ConfidenceSpec, IntensitySpec, LabelSpec, ModelSpec, PostprocessSpec, SliceSpec


def model(folder: Path, name: str, weight: float = 1.0, spec: ModelSpec | None = None, **changes: object) -> Path:
    """A model whose logit is ``weight`` times the brightness less 0.5."""
    spec = (spec or bright_spec()).model_copy(update={"name": name, **changes})
    weights = np.zeros((spec.output_channels, len(spec.channels)))
    weights[-1, 0] = weight
    return write_model(folder / f"{name}.onnx", spec, weights)


def ramp(folder: Path) -> Path:
    """A picture 32 by 32 whose columns get brighter from 0 to 1."""
    folder.mkdir()
    Image.fromarray(np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))).save(folder / "ramp.png")
    return folder


def test_slices_get_the_mean_of_the_probabilities(tmp_path: Path) -> None:
    scans = ramp(tmp_path / "in")
    both = [model(tmp_path, "a", 1.0), model(tmp_path, "b", 9.0)]
    predict_folder([scans], PredictOptions(model=both, output=tmp_path / "out", save_probabilities=True))
    with np.load(tmp_path / "out" / "ramp_probabilities.npz") as stored:
        share = stored["probabilities"][0, 0].astype(float)
    brightness = np.linspace(0, 255, 32).astype(np.uint8) / 255
    wanted = sum(1 / (1 + np.exp(-(weight * brightness - 0.5))) for weight in (1, 9)) / 2
    np.testing.assert_allclose(share, wanted, atol=1e-3)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_volumes_are_labelled_where_the_mean_exceeds_a_half(tmp_path: Path, activation: str) -> None:
    spec = volume_spec(activation=activation)
    volume = np.zeros((20, 20, 20), np.float32)
    volume[5:15, 5:15, 5:15] = 1
    nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "p.nii.gz")
    # Inside, one model is sure against the label and the other a little less sure for it.
    models = [model(tmp_path, "for", 3.0, spec), model(tmp_path, "against", -9.0, spec)]
    predict_folder([tmp_path / "p.nii.gz"], PredictOptions(model=models, output=tmp_path / "out"))
    assert not np.asarray(nib.load(tmp_path / "out" / "p.nii.gz").dataobj).any()
    models.append(model(tmp_path, "more", 4.0, spec))
    predict_folder([tmp_path / "p.nii.gz"], PredictOptions(model=models, output=tmp_path / "out"))
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out" / "p.nii.gz").dataobj), volume)


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("channels", {"channels": (ChannelSpec(name="flair"),)}),
        ("labels", {"labels": (LabelSpec(name="tumour", value=2),)}),
        ("labels", {"labels": (LabelSpec(name="tumour", value=1, reference_values=(1,)),)}),
        ("activation", {"activation": "softmax"}),
        ("input.size", {"input": SliceSpec(size=(64, 64))}),
        ("input.plane", {"input": SliceSpec(size=(32, 32), plane="axial")}),
        ("intensity.kind", {"intensity": IntensitySpec(kind="zscore")}),
    ],
)
def test_models_that_do_not_fit_are_told_by_file_and_field(
    tmp_path: Path, field: str, changes: dict[str, object]
) -> None:
    paths = [model(tmp_path, "a"), model(tmp_path, "b", **changes)]
    with pytest.raises(ModelError, match=rf"b\.onnx: {field} is .+ but .*a\.onnx has .+Average models of one recipe"):
        read_models(paths)


def test_what_is_as_it_always_was_is_named_too(tmp_path: Path) -> None:
    paths = [model(tmp_path, "a"), model(tmp_path, "b", input=SliceSpec(size=(32, 32), crop_to_nonzero=True))]
    with pytest.raises(ModelError, match=r"input\.crop_to_nonzero is True, but .*a\.onnx has False"):
        read_models(paths)


def test_models_may_differ_in_what_the_network_does_not_see(tmp_path: Path) -> None:
    second = model(tmp_path, "b", divisor=32, channels=(T1CE.model_copy(update={"aliases": ("gd",)}),), threshold=0.3)
    models = read_models([model(tmp_path, "a"), second])
    assert models.notes == ("thresholds and post-processing are those of the first model, a",)
    assert models.spec.threshold == 0.5


def test_whose_temperature_and_training_confidence_and_checks_go_by_is_said(tmp_path: Path) -> None:
    second = model(tmp_path, "b", divisor=32, confidence=ConfidenceSpec(temperature=2.0))
    assert read_models([model(tmp_path, "a"), second]).notes == (
        "the temperature of confidence and what scans are held against are those of the first model, a",
    )


def test_a_model_named_twice_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path, "a")
    with pytest.raises(UsageError, match="Name every model once"):
        read_models([path, path])


def test_the_report_names_every_model_and_continue_checks_them_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "in")
    a, b, c = (model(tmp_path, name, weight) for name, weight in (("a", 1), ("b", 2), ("c", 3)))
    run = ("predict", tmp_path / "in", "-o", tmp_path / "out")
    answer = segtool(capsys, *run, "-m", a, "-m", b)
    assert answer.code == 0, answer.err
    assert answer.lines("model")[0].startswith("a + b  t1ce -> tumour")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["model"] == "a 1 + b 1"
    assert report["models"] == [{"model": "a 1", "sha256": sha256(a)}, {"model": "b 1", "sha256": sha256(b)}]
    assert report["model_sha256"] is None
    assert "3 kept from before" in segtool(capsys, *run, "-m", a, "-m", b, "--continue").out
    for others in ((a,), (a, c), (b, a)):
        flags = [part for one in others for part in ("-m", one)]
        refused = segtool(capsys, *run, *flags, "--continue")
        assert refused.code == 2
        assert "choose another folder with --output" in refused.err


def test_continue_reads_reports_that_name_one_model_by_its_checksum(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in")
    options = PredictOptions(model=model(tmp_path, "a"), output=tmp_path / "out")
    predict_folder([tmp_path / "in"], options)
    path = tmp_path / "out" / "report.json"
    older = json.loads(path.read_text())
    del older["models"]
    path.write_text(json.dumps(older))
    again = PredictOptions(model=options.model, output=options.output, resume=True)
    assert predict_folder([tmp_path / "in"], again).counts["skipped"] == 3


@pytest.mark.parametrize(
    ("text", "rank", "axes"),
    [
        ("none", 2, ()),
        ("flips", 2, ("horizontal", "vertical")),
        ("flips", 3, ("horizontal", "vertical", "depth")),
        ("horizontal", 2, ("horizontal",)),
        ("depth, horizontal", 3, ("horizontal", "depth")),
    ],
)
def test_flips_are_named_by_axis(text: str, rank: int, axes: tuple[str, ...]) -> None:
    assert parse_flips(text, rank) == axes


@pytest.mark.parametrize(("text", "rank"), [("depth", 2), ("left", 3), ("", 2), ("vertical,vertical", 2)])
def test_other_axes_are_refused_with_the_possible_ones(text: str, rank: int) -> None:
    with pytest.raises(UsageError, match="Choose none, flips, or some of: horizontal,vertical"):
        parse_flips(text, rank)


def test_flips_change_nothing_for_a_model_without_a_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in")
    # 31 columns in a frame of 32: the padding lies on one side.
    Image.fromarray(np.where(disc()[:, :31], 200, 30).astype(np.uint8)).save(tmp_path / "in" / "odd.png")
    path, labels = model(tmp_path, "a", test_time_flips=("horizontal",)), []
    for tta in ([], ["--tta", "none"], ["--tta", "flips"]):
        answer = segtool(capsys, "predict", tmp_path / "in", "-m", path, "-o", tmp_path / "out", *tta)
        assert answer.code == 0, answer.err
        labels.append([(tmp_path / "out" / f"{name}.png").read_bytes() for name in ("slice_0", "slice_2", "odd")])
        flips = json.loads((tmp_path / "out" / "report.json").read_text())["options"].get("test_time_flips")
        axes = {"none": None, "flips": ["horizontal", "vertical"]}.get(tta[-1] if tta else "", ["horizontal"])
        assert flips == (axes and {"a 1": axes})
        assert bool(answer.lines("flips")) == bool(axes)
    assert labels[0] == labels[1] == labels[2]


def test_flips_of_volumes_are_undone_in_every_window(tmp_path: Path) -> None:
    path = model(tmp_path, "a", spec=volume_spec(16))
    volume = np.random.default_rng(0).integers(0, 9, (21, 9, 17)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([1.0, -1, 3, 1])), tmp_path / "p.nii.gz")
    results = []
    for tta in ("none", "depth", "flips"):
        options = PredictOptions(model=path, output=tmp_path / "out", tta=tta, save_probabilities=True)
        predict_folder([tmp_path / "p.nii.gz"], options)
        results.append(np.asarray(nib.load(tmp_path / "out" / "p_probabilities.nii.gz").dataobj))
    np.testing.assert_allclose(results[1], results[0], atol=1e-3)
    np.testing.assert_allclose(results[2], results[0], atol=1e-3)


def test_python_takes_lists_of_models_and_flips(tmp_path: Path) -> None:
    paths = [model(tmp_path, "a"), model(tmp_path, "b", 2.0)]
    loaded = python_interface.load_model(paths, device="cpu", tta="flips")
    picture = np.where(disc(), 200, 30)
    np.testing.assert_array_equal(loaded.segment(picture).labels, disc())
    write_pictures(tmp_path / "in")
    report = python_interface.predict(tmp_path / "in", model=paths, output=tmp_path / "out", tta="horizontal")
    assert [name for name, _ in report.models] == ["a 1", "b 1"]
    assert report.summary["tumour"]["dice_mean_all"] == 1.0


def test_the_first_model_decides_on_components(tmp_path: Path) -> None:
    rules = PostprocessSpec(min_component_voxels=10_000)
    write_pictures(tmp_path / "in")
    paths = [model(tmp_path, "a", postprocess=rules), model(tmp_path, "b", 2.0)]
    report = predict_folder([tmp_path / "in"], PredictOptions(model=paths, output=tmp_path / "out"))
    assert report.summary["tumour"]["n_missed"] == 3
    assert "those of the first model, a" in report.notes[0]
