import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.data import LAYOUTS, list_items
from segtool_train.data.cache import open_cache
from segtool_train.recipe import find_recipe, parse_recipe, read_recipe

SPEC = parse_recipe(RECIPE, "discs", "here").spec
SPEC_3D = read_recipe(find_recipe("brats3d-light")).spec


def write_brats(folder: Path, name: str, channels: tuple[str, ...], joint: str, label: int) -> None:
    """A case of 12x10x8 voxels with a lesion of 3x3x3 and a border of zeros."""
    (folder / name).mkdir(parents=True)
    random = np.random.default_rng(len(name))
    brain = np.zeros((12, 10, 8), np.int16)
    brain[1:-1, 1:-1, 1:-1] = 1
    for channel in channels:
        voxels = (brain * random.integers(50, 200, brain.shape)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / name / f"{name}{joint}{channel}.nii.gz")
    lesion = np.zeros(brain.shape, np.uint8)
    lesion[4:7, 4:7, 3:6] = label
    nib.save(nib.Nifti1Image(lesion, np.eye(4)), folder / name / f"{name}{joint}seg.nii.gz")


def test_cheng_items_know_patient_class_and_fold(discs: Path):
    items = list_items("cheng", discs, SPEC).items
    assert [item.name for item in items] == [f"{n:04d}" for n in range(20)]
    assert (items[7].patient, items[7].group, items[7].fold) == ("3", "meningioma", "4")


def test_real_cheng_groups_cross_folds_and_are_kept_together(real_data: Path):
    items = list_items("cheng", real_data / "cheng", SPEC).items
    assert len(items) == 2628
    assert len({item.patient for item in items}) == 180
    assert {item.group for item in items} == {"meningioma", "glioma", "pituitary"}


@pytest.mark.parametrize(
    ("gone", "remedy"),
    [
        ("index.csv", 'index.csv is missing.*layout = "folder"'),
        ("masks/0003.png", "row '0003' has no file in masks/.*Add"),
        ("images/0003.png", "row '0003' has no file in images/.*or remove the row"),
        ("masks", "row '0000' has no file in masks/"),
    ],
)
def test_a_gap_in_a_cheng_folder_is_one_line_with_a_remedy(discs: Path, tmp_path: Path, gone: str, remedy: str):
    folder = tmp_path / "set"
    shutil.copytree(discs, folder)
    shutil.rmtree(folder / gone) if (folder / gone).is_dir() else (folder / gone).unlink()
    with pytest.raises(UsageError, match=remedy):
        list_items("cheng", folder, SPEC)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        (b"0003\n", "line 22 has no label_name.*Complete the line"),
        (b"0003,1,glioma,1,1,2\n", "row '0003' is there twice.*Remove one"),
        ("0020,1,méningiome,1,1,2\n".encode("latin-1"), "Save it as UTF-8"),
    ],
)
def test_a_wrong_line_of_the_index_is_one_line_with_a_remedy(discs: Path, tmp_path: Path, line: bytes, remedy: str):
    folder = tmp_path / "set"
    shutil.copytree(discs, folder)
    with (folder / "index.csv").open("ab") as file:
        file.write(line)
    with pytest.raises(UsageError, match=remedy):
        list_items("cheng", folder, SPEC)


def test_a_picture_without_a_row_is_left_out_and_told(discs: Path, tmp_path: Path):
    folder = tmp_path / "set"
    shutil.copytree(discs, folder)
    shutil.copy(folder / "images" / "0000.png", folder / "images" / "extra.png")
    listing = list_items("cheng", folder, SPEC)
    assert len(listing.items) == 20
    assert listing.notes[0].startswith("1 of 21 pictures")


def test_brats_names_old_and_new_become_four_channels_with_their_labels(tmp_path: Path):
    write_brats(tmp_path, "BraTS20_Training_001", ("t1", "t1ce", "t2", "flair"), "_", 4)
    for visit in ("000", "001"):
        write_brats(tmp_path, f"BraTS-GLI-00005-{visit}", ("t1n", "t1c", "t2w", "t2f"), "-", 3)
    listing = list_items("brats", tmp_path, SPEC_3D)
    assert {item.patient for item in listing.items} == {"BraTS20_Training_001", "BraTS-GLI-00005"}
    cache = open_cache(tmp_path / "cache", listing.items, SPEC_3D)
    for index in range(3):
        assert cache.image(index).shape == (4, 10, 8, 6)  # the border of zeros is cropped
        assert cache.target(index).any(axis=(1, 2, 3)).tolist() == [False, False, True]  # ET: 4 then, 3 now


def test_a_folder_of_patients_keeps_their_cases_together_and_says_so(tmp_path: Path, discs: Path):
    for number in range(6):
        patient = tmp_path / f"patient{number // 2}"
        patient.mkdir(exist_ok=True)
        shutil.copy(discs / "images" / f"{number:04d}.png", patient / f"{number:04d}.png")
        shutil.copy(discs / "masks" / f"{number:04d}.png", patient / f"{number:04d}_mask.png")
    listing = list_items("folder", tmp_path, SPEC)
    assert {item.patient for item in listing.items} == {"patient0", "patient1", "patient2"}
    assert len(listing.items) == 6
    assert "taken for one patient" in listing.notes[0]


def test_a_flat_folder_warns_that_patients_are_unknown(tmp_path: Path, discs: Path):
    for number in range(2):
        shutil.copy(discs / "images" / f"{number:04d}.png", tmp_path / f"{number:04d}.png")
        shutil.copy(discs / "masks" / f"{number:04d}.png", tmp_path / f"{number:04d}_mask.png")
    listing = list_items("folder", tmp_path, SPEC)
    assert len({item.patient for item in listing.items}) == 2
    assert "put each patient into a folder" in listing.notes[0]


def test_an_image_without_a_mask_is_named(tmp_path: Path, discs: Path):
    shutil.copy(discs / "images" / "0000.png", tmp_path / "alone.png")
    with pytest.raises(UsageError, match="'alone': has no reference mask"):
        list_items("folder", tmp_path, SPEC)


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path):
    with pytest.raises(UsageError, match="Name one of: cheng, brats, folder"):
        list_items("xray", tmp_path, SPEC)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_or_missing_folder_is_refused(tmp_path: Path, layout: str):
    with pytest.raises(UsageError):
        list_items(layout, tmp_path, SPEC)
    with pytest.raises(UsageError, match="no such folder"):
        list_items(layout, tmp_path / "missing", SPEC)
