"""The 3D road from start to end: BraTS folders, the shipped recipe at a small patch, export, prediction."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segtool.model_file import read_spec
from segtool.pipeline import PredictOptions, predict_folder
from segtool_export.exporting import export_run
from segtool_train.data import cache_filling, list_items
from segtool_train.data.cache import open_cache
from segtool_train.data.dataset import TrainingSamples
from segtool_train.held_out import score_test
from segtool_train.preview import draw_preview
from segtool_train.recipe import find_recipe, parse_recipe, read_recipe
from segtool_train.training import Options, train_run

CHANNELS = ("t1", "t1ce", "t2", "flair")
SHAPE = (36, 30, 26)  # larger than the patch along two axes, so that windows must be blended


def write_brats(folder: Path, patients: int) -> Path:
    """Heads of noise with a lesion of three nested cubes, labels 2, 4 and 1 from outside in, 4 as up to 2021."""
    for number in range(patients):
        random = np.random.default_rng(number)
        labels = np.zeros(SHAPE, np.uint8)
        corner = random.integers(6, 10, 3)
        for value, inset in ((2, 0), (4, 2), (1, 4)):
            labels[tuple(slice(c + inset, c + 12 - inset) for c in corner)] = value
        case = folder / f"BraTS20_Training_{number:03d}"
        case.mkdir(parents=True)
        affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        nib.save(nib.Nifti1Image(labels, affine), case / f"{case.name}_seg.nii.gz")
        for channel, name in enumerate(CHANNELS):
            image = random.normal(300, 30, SHAPE) + 150 * np.isin(labels, (1 + channel, 4, 2)[: 1 + channel % 3])
            image[:3] = image[-3:] = 0
            nib.save(nib.Nifti1Image(image.astype(np.int16), affine), case / f"{case.name}_{name}.nii.gz")
    return folder


@pytest.fixture(scope="module")
def brats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_brats(tmp_path_factory.mktemp("brats"), 6)


def test_the_light_3d_network_trains_exports_and_predicts(brats: Path, tmp_path: Path) -> None:
    text = find_recipe("brats3d-light").read_text(encoding="utf-8")
    text = text.replace("patch = [128, 128, 128]", "patch = [24, 24, 24]")
    text = text.replace("test = 0.1, validation = 0.15", "test = 0.17, validation = 0.2")
    recipe = parse_recipe(
        text, "brats3d-light", "brats3d-light.toml", {"training.epochs": 2, "training.precision": "fp32"}
    )
    lines: list[str] = []
    outcome = train_run(recipe, Options(brats, tmp_path / "run"), lines.append)
    assert len(outcome.rows) == 2
    assert any("val dice" in line for line in lines)
    split = outcome.run.read_split()
    assert not set(split.train_patients) & set(split.validation_patients)

    held_out = score_test(outcome.run, Options(brats, tmp_path / "run"))
    assert set(held_out.by_group) == {"NCR", "ED", "ET"}
    assert 0 <= held_out.mean["dice"] <= 1

    exported = export_run(tmp_path / "run", tmp_path / "light.onnx", None, 17)
    assert exported.parity.worst.mask_dice >= 0.9999
    spec = read_spec(tmp_path / "light.onnx")
    assert spec.channel_names == CHANNELS
    assert spec.provenance["recipe"] == "brats3d-light"

    report = predict_folder([brats], PredictOptions(model=tmp_path / "light.onnx", output=tmp_path / "out"))
    assert report.counts == {"cases": 6, "done": 6, "failed": 0, "skipped": 0}
    assert set(report.summary) == {"NCR", "ED", "ET", "WT", "TC"}
    assert all(summary["n_with_reference"] == 6 for summary in report.summary.values())
    case = "BraTS20_Training_000"
    (written,) = (tmp_path / "out").rglob(f"{case}*.nii.gz")
    assert nib.load(written).shape == SHAPE
    assert set(np.unique(np.asarray(nib.load(written).dataobj))) <= {0, 1, 2, 3}


def test_patches_on_labels_show_each_label_equally_often(
    brats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Oedema has 12^3 - 8^3 = 1216 voxels, enhancing tumour 8^3 - 4^3 = 448, the necrotic core 4^3 = 64: a random
    # labelled voxel would lie in the core in one patch of 27.
    monkeypatch.setattr(cache_filling, "_MOST_CENTRES", 100)
    spec = read_recipe(find_recipe("brats3d-light")).spec
    cache = open_cache(tmp_path, list_items("brats", brats, spec).items, spec)
    assert [sample.centres for sample in cache.samples] == [(64, 100, 100)] * 6  # NCR, ED, ET
    random, counts = np.random.default_rng(0), np.zeros(3)
    for _ in range(100):
        for index in range(6):
            voxel = cache.labelled_voxel(index, random)
            assert voxel is not None
            counts += cache.target(index)[(slice(None), *voxel)] > 0
    assert counts.sum() == 600
    assert list(counts / 600) == pytest.approx([1 / 3] * 3, abs=0.07)
    batch = TrainingSamples(cache, (8, 8, 8), 1.0, 0).__getitems__([(epoch, 5) for epoch in range(20)])
    assert batch.target.flatten(1).any(dim=1).all()
    assert len({tuple(image.flatten().tolist()) for image in batch.image}) > 1  # the pass decides the place


def test_a_volume_without_a_label_is_cut_anywhere(tmp_path: Path) -> None:
    folder = write_brats(tmp_path / "brats", 1)
    (mask,) = folder.rglob("*_seg.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.uint8), nib.load(mask).affine), mask)
    spec = read_recipe(find_recipe("brats3d-light")).spec
    cache = open_cache(tmp_path / "cache", list_items("brats", folder, spec).items, spec)
    assert cache.labelled_voxel(0, np.random.default_rng(0)) is None
    assert not cache.samples[0].labelled
    assert TrainingSamples(cache, (8, 8, 8), 1.0, 0).__getitems__([(0, 0)]).image.shape == (1, 4, 8, 8, 8)


def test_a_preview_shows_the_fullest_slice_of_every_channel_with_each_label_in_its_colour(brats: Path, tmp_path: Path):
    text = find_recipe("brats3d-light").read_text(encoding="utf-8")
    recipe = parse_recipe(text.replace("patch = [128, 128, 128]", "patch = [24, 24, 24]"), "light", "light.toml")
    lines: list[str] = []
    draw_preview(recipe, brats, tmp_path / "seen.png", lines.append)
    assert [line.split()[-1] for line in lines if line.startswith("row")] == [*CHANNELS, *CHANNELS]  # two cases
    picture = np.asarray(Image.open(tmp_path / "seen.png"))
    for colour in ((0, 255, 0), (255, 160, 0), (255, 0, 255)):
        assert (picture[:, :160] == colour).all(axis=-1).any()
