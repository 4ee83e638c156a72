import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
import tiny_sets
from tiny_cheng import RECIPE
from tiny_sets import SETS, Set

from segtool.errors import UsageError
from segtool.formats import get_format, label_reader
from segtool.scan.sets import list_items as look
from segtool.scan.sets import recognise
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


# every layout


@pytest.mark.parametrize("one", SETS.values(), ids=SETS)
def test_items_patients_groups_folds_and_references_are_those_of_the_set(tmp_path: Path, one: Set):
    one.write(tmp_path)
    listing = list_items(one.layout, tmp_path, SPEC)
    assert {item.name: (item.patient, item.group, item.fold) for item in listing.items} == one.items
    assert [item.name for item in listing.items] == sorted(one.items)
    assert listing.broken == ()
    assert any(one.note in note for note in listing.notes) if one.note else listing.notes == ()
    last = listing.items[-1].source
    labels = label_reader(last.reference.format).read_labels(last.reference)
    values, counts = np.unique(labels.labels, return_counts=True)
    assert dict(zip(values.tolist()[1:], counts.tolist()[1:], strict=True)) == one.labelled
    assert labels.geometry.same_grid(get_format(last.first.format).read_image(last.first).geometry)


@pytest.mark.parametrize("one", SETS.values(), ids=SETS)
def test_a_set_is_recognised_and_auto_lists_it_alike(tmp_path: Path, one: Set):
    one.write(tmp_path)
    assert recognise(tmp_path)[0].layout == one.layout
    listing = list_items("auto", tmp_path, SPEC)
    assert listing.items == list_items(one.layout, tmp_path, SPEC).items
    assert listing.notes[0].startswith(f"layout {one.layout} (")


def test_every_layout_has_a_set_that_tests_it():
    assert {one.layout for one in SETS.values()} == LAYOUTS.keys() - {"auto"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_or_missing_folder_is_refused(tmp_path: Path, layout: str):
    with pytest.raises(UsageError):
        list_items(layout, tmp_path, SPEC)
    with pytest.raises(UsageError, match="no such folder"):
        list_items(layout, tmp_path / "missing", SPEC)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("folder", "auto")])
def test_a_folder_of_another_kind_is_refused_or_empty(tmp_path: Path, layout: str):
    tiny_sets.save_picture(tmp_path / "holiday.png", tiny_sets.picture())
    with pytest.raises(UsageError):
        list_items(layout, tmp_path, SPEC)
    assert [one.layout for one in recognise(tmp_path)] == ["folder"]


def test_an_unknown_layout_names_the_known_ones(tmp_path: Path):
    with pytest.raises(UsageError, match=r"Name one of: cheng, cheng_mat, coco.*auto"):
        list_items("xray", tmp_path, SPEC)


def test_two_sets_in_one_folder_are_not_guessed_between(tmp_path: Path):
    tiny_sets.brats_h5(tmp_path / "a")
    tiny_sets.kaggle_3m(tmp_path / "b")
    with pytest.raises(UsageError, match=r"could be brats_h5 .* and kaggle_3m .*Name the layout"):
        list_items("auto", tmp_path, SPEC)


def test_items_of_most_layouts_are_cached_as_any_other(tmp_path: Path):
    for name in ("coco in folds, with copies", "hdf5 images and masks", "cheng as published"):
        SETS[name].write(tmp_path / name)
        items = list_items("auto", tmp_path / name, SPEC).items
        cache = open_cache(tmp_path / "cache", items, SPEC)
        covered = [cache.target(index).any() for index in range(len(cache.samples))]
        # The first of the HDF5 masks is empty.
        assert sum(covered) == len(items) - name.startswith("hdf5")


# what is amiss


def drop(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def lone_mask(path: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        if path.endswith(".nii.gz"):
            tiny_sets.save_volume(folder / path, tiny_sets.lesion_volume())
        else:
            tiny_sets.save_picture(folder / path, tiny_sets.mask(255))

    return write


def damage(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_bytes(b"half")


_TASK = "Task01_BrainTumour"


@pytest.mark.parametrize(
    ("name", "spoil", "line"),
    [
        ("cheng", drop("masks/1.png"), r"row '1' has no file in masks/\. Add .*or remove the row"),
        ("cheng", drop("images/1.png"), r"row '1' has no file in images/\. Add"),
        ("cheng", lone_mask("masks/9.png"), r"9\.png: matches no file in images/\. Add its image"),
        ("cheng as published", damage("brainTumorDataPublic_1-2/1.mat"), r"1\.mat: holds no whole struct.*Copy"),
        ("coco in folds, with copies", drop("train/0_jpg.rf.aa.png"), r"the picture '0_jpg.rf.aa.png' is not there"),
        ("coco in folds, with copies", damage("train/_annotations.coco.json"), "cannot be read as JSON.*again"),
        ("hdf5 slices", damage("TCGA_A_1.h5"), r"TCGA_A_1\.h5: cannot be read as HDF5.*again"),
        ("brats", drop("BraTS20_Training_001/BraTS20_Training_001_seg.nii.gz"), "has no reference mask.*Put it"),
        ("brats", lone_mask("BraTS20_Training_009/BraTS20_Training_009_seg.nii.gz"), "without its scan.*Put"),
        ("decathlon", drop(f"{_TASK}/imagesTr/BRATS_001.nii.gz"), "lists imagesTr/BRATS_001.nii.gz, which is not"),
        ("decathlon", drop(f"{_TASK}/labelsTr/BRATS_001.nii.gz"), "'BRATS_001': has no reference mask"),
        ("nnunet", lone_mask("labelsTr/GBM_8.nii.gz"), r"labelsTr/GBM_8\.nii\.gz: matches no image in imagesTr/"),
        ("kaggle_3m", drop("TCGA_DU_6401_19831001/TCGA_DU_6401_19831001_9_mask.tif"), "has no reference mask"),
        ("images and masks", drop("train/masks/P1/a.png"), "'train/images/P1/a': has no reference mask"),
        ("images and masks", lone_mask("train/masks/P1/b.png"), "train/masks/P1/b.png: a reference without its scan"),
    ],
)
def test_what_makes_no_item_is_one_line_and_the_others_are_listed(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], line: str
):
    one = SETS[name]
    one.write(tmp_path)
    spoil(tmp_path)
    listing = list_items(one.layout, tmp_path, SPEC)
    found = [said for said in listing.broken if "\n" not in said]
    assert len(found) == len(listing.broken) >= 1
    with pytest.raises(UsageError, match=line):
        raise UsageError(" ".join(found), "")
    assert 1 <= len(listing.items) <= len(one.items)
    assert {item.name for item in listing.items} <= one.items.keys()


def test_an_image_without_a_mask_is_named_where_it_is_the_only_one(tmp_path: Path, discs: Path):
    shutil.copy(discs / "images" / "0000.png", tmp_path / "alone.png")
    with pytest.raises(UsageError, match="'alone': has no reference mask"):
        list_items("folder", tmp_path, SPEC)


# cheng


def test_cheng_items_know_patient_class_and_fold(discs: Path):
    items = list_items("cheng", discs, SPEC).items
    assert [item.name for item in items] == [f"{n:04d}" for n in range(20)]
    assert (items[7].patient, items[7].group, items[7].fold) == ("3", "meningioma", "4")


@pytest.mark.parametrize(
    ("gone", "remedy"),
    [("index.csv", 'index.csv is missing.*layout = "folder"'), ("masks", "row '0000' has no file in masks/")],
)
def test_a_cheng_folder_without_index_or_masks_is_refused(discs: Path, tmp_path: Path, gone: str, remedy: str):
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


def test_no_hospital_s_number_leaves_a_published_cheng_set(tmp_path: Path):
    tiny_sets.cheng_mat(tmp_path)
    listing = list_items("cheng_mat", tmp_path, SPEC)
    assert not any("MR10" in f"{item.patient} {item.name}" for item in listing.items)


def test_official_folds_that_do_not_reach_are_refused_and_missing_ones_told(tmp_path: Path):
    tiny_sets.cheng_mat(tmp_path)
    (tmp_path / "cvind.mat").unlink()
    listing = list_items("cheng_mat", tmp_path, SPEC)
    assert {item.fold for item in listing.items} == {""}
    assert "official folds are unknown" in listing.notes[0]
    tiny_sets.save_hdf5(tmp_path / "cvind.mat", cvind=np.array([[5.0]]))
    with pytest.raises(UsageError, match=r"1 folds, and files up to 4\.mat"):
        list_items("cheng_mat", tmp_path, SPEC)


def test_folds_of_an_older_matlab_are_read_too(tmp_path: Path):
    from scipy.io import savemat

    tiny_sets.cheng_mat(tmp_path)
    savemat(tmp_path / "cvind.mat", {"cvind": np.array([[4], [3], [2], [1]])})
    assert [item.fold for item in list_items("cheng_mat", tmp_path, SPEC).items] == ["4", "3", "2", "1"]


def test_a_label_that_is_no_class_is_broken(tmp_path: Path):
    tiny_sets.cheng_mat(tmp_path)
    tiny_sets.write_cjdata(tmp_path / "4.mat", "9", 4)
    assert "its label is 4, wanted 1, 2 or 3" in look("cheng_mat", tmp_path).broken[0]


# coco


def coco_file(folder: Path) -> dict:
    return json.loads((folder / "train" / "_annotations.coco.json").read_text())


def test_objects_of_pictures_that_the_file_does_not_list_are_told(tmp_path: Path):
    tiny_sets.coco(tmp_path)
    content = coco_file(tmp_path)
    content["annotations"].append({"id": 7, "image_id": 99, "category_id": 1, "bbox": tiny_sets.BOX})
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    (line,) = list_items("coco", tmp_path, SPEC).broken
    assert "1 of 3 annotations belong to no picture" in line
    assert "annotation 7, picture 99" in line


def test_pictures_behind_a_link_to_a_folder_are_missed_and_the_first_line_says_why(tmp_path: Path):
    tiny_sets.coco_images(tmp_path / "set")
    (tmp_path / "set" / "images").rename(tmp_path / "elsewhere")
    (tmp_path / "set" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r"images: a link to a folder is not followed.*Put the folder in its place"):
        list_items("coco", tmp_path / "set", SPEC)


def test_a_picture_without_objects_has_an_empty_mask_and_is_counted(tmp_path: Path):
    tiny_sets.coco(tmp_path)
    content = coco_file(tmp_path)
    content["annotations"].pop()
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    tiny_sets.save_picture(tmp_path / "train" / "unlisted.png", tiny_sets.picture())
    listing = list_items("coco", tmp_path, SPEC)
    assert len(listing.items) == 6
    assert "1 of 6 pictures have no object" in listing.notes[1]
    assert "1 of 7 pictures below" in listing.notes[2]


def test_a_recipe_of_several_labels_is_told_the_values_of_the_categories(tmp_path: Path):
    tiny_sets.save_picture(tmp_path / "images" / "a.png", tiny_sets.picture())
    text = tiny_sets.coco_json(["a.png"], {"bbox": tiny_sets.BOX}, ("oedema", "core"))
    (tmp_path / "labels.json").write_text(text)
    notes = list_items("coco", tmp_path, SPEC.model_copy(update={"labels": SPEC_3D.labels[1:]})).notes
    assert notes[0] == (
        "labels.json: values of the categories are 'oedema' 1; "
        "no label reads oedema: add them to reference_values, or to [data] background_values"
    )


def test_a_picture_in_two_files_is_taken_once_and_told(tmp_path: Path):
    tiny_sets.coco_annotations(tmp_path)
    folder = tmp_path / "annotations"
    shutil.copy(folder / "instances_val2017.json", folder / "person_keypoints_val2017.json")
    listing = list_items("coco", tmp_path, SPEC)
    assert len(listing.items) == 2
    (line,) = listing.broken
    assert "1 pictures stand in annotations/instances_val2017.json too, such as val2017/val.png" in line


def test_json_about_something_else_is_passed_over_and_told_and_half_a_file_is_broken(tmp_path: Path):
    tiny_sets.coco_annotations(tmp_path)
    (tmp_path / "annotations" / "captions.json").write_text('{"images": [], "annotations": [{"image_id": 1}]}')
    (tmp_path / "annotations" / "half.json").write_text('{"images": [')
    listing = list_items("coco", tmp_path, SPEC)
    assert "captions.json: not a COCO file" in listing.notes[0]
    (line,) = listing.broken
    assert "half.json: cannot be read as JSON" in line


def test_pictures_that_differ_in_their_suffix_alone_keep_their_names_apart(tmp_path: Path):
    for name in ("a.png", "a.bmp"):
        tiny_sets.save_picture(tmp_path / "images" / name, tiny_sets.picture())
    (tmp_path / "c.json").write_text(tiny_sets.coco_json(["a.png", "a.bmp"], {"bbox": tiny_sets.BOX}))
    assert [item.name for item in list_items("coco", tmp_path, SPEC).items] == ["images/a.bmp", "images/a.png"]


# hdf5


def test_items_of_one_name_are_refused(tmp_path: Path):
    tiny_sets.hdf5_stack(tmp_path)
    tiny_sets.save_hdf5(tmp_path / "all-3.h5", x=tiny_sets.picture(), y=tiny_sets.mask())
    with pytest.raises(UsageError, match=r"2 items would be called 'all-3'.*Rename"):
        list_items("hdf5_xy", tmp_path, SPEC)


def test_a_file_without_masks_and_unequal_stacks_are_told(tmp_path: Path):
    tiny_sets.hdf5_slices(tmp_path)
    tiny_sets.save_hdf5(tmp_path / "TCGA_C_1.h5", x=tiny_sets.picture())
    tiny_sets.save_hdf5(tmp_path / "val_x.h5", x=np.zeros((9, 16, 12)))
    tiny_sets.save_hdf5(tmp_path / "val_y.h5", y=np.zeros((8, 16, 12)))
    broken = list_items("hdf5_xy", tmp_path, SPEC).broken
    assert "val_x.h5: holds 9x16x12 pixels, val_y.h5 holds 8x16x12" in broken[0]
    assert "TCGA_C_1.h5: holds images and no masks. Give each image a mask" in broken[1]


@pytest.mark.parametrize("shape", [(3, 16, 12), (3, 16, 12, 1)])
@pytest.mark.parametrize("files", [("images", "masks"), ("all", "all")])
def test_few_slices_are_a_stack_and_no_channels(tmp_path: Path, shape: tuple[int, ...], files: tuple[str, str]):
    stack, masks = np.stack([tiny_sets.picture()] * 3), np.stack([tiny_sets.mask()] * 3).reshape(shape)
    if files[0] == files[1]:
        tiny_sets.save_hdf5(tmp_path / "all.h5", x=stack, y=masks)
    else:
        tiny_sets.save_hdf5(tmp_path / "images.h5", x=stack)
        tiny_sets.save_hdf5(tmp_path / "masks.h5", y=masks)
    items = list_items("hdf5_xy", tmp_path, SPEC).items
    assert [item.name for item in items] == [f"{files[0]}-{number}" for number in range(3)]
    cache = open_cache(tmp_path / "cache", items, SPEC)
    assert len(cache.samples) == 3
    assert cache.target(2).any()


def test_file_names_without_a_patient_are_told(tmp_path: Path):
    for number in range(3):
        tiny_sets.save_hdf5(tmp_path / f"{number}.h5", x=tiny_sets.picture(), y=tiny_sets.mask())
    listing = list_items("hdf5_xy", tmp_path, SPEC)
    assert len({item.patient for item in listing.items}) == 3
    assert tiny_sets.UNKNOWN in listing.notes[0]


def test_slices_of_a_stack_are_read_one_by_one(tmp_path: Path):
    tiny_sets.hdf5_pair(tmp_path)
    with h5py.File(tmp_path / "train_images.h5") as file:
        wanted = file["data"][7, ..., 0]
    item = list_items("hdf5_xy", tmp_path, SPEC).items[7]
    np.testing.assert_array_equal(get_format("hdf5").read_image(item.source.first).data[0], wanted)


# volumes


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


def test_visits_under_names_of_one_s_own_stay_together_in_the_brats_layout_and_a_note_says_so(tmp_path: Path):
    for visit in ("P1_pre", "P1_post", "P2_pre"):
        write_brats(tmp_path, visit, ("t1", "t1ce", "t2", "flair"), "_", 4)
    listing = list_items("brats", tmp_path, SPEC_3D)
    assert [item.patient for item in listing.items] == ["P1", "P1", "P2"]
    assert "P1_post is no name of BraTS" in listing.notes[0]
    tiny_sets.brats(tmp_path / "own")
    assert list_items("brats", tmp_path / "own", SPEC_3D).notes == ()


def test_the_misnamed_segmentation_of_brats_2020_is_taken(tmp_path: Path):
    tiny_sets.brats(tmp_path)
    case = tmp_path / "BraTS20_Training_001"
    (case / "BraTS20_Training_001_seg.nii.gz").rename(case / "W39_1998.09.19_Segm.nii.gz")
    listing = list_items("brats", tmp_path, SPEC_3D)
    assert listing.broken == ()
    assert listing.items[-1].source.reference.path.name == "W39_1998.09.19_Segm.nii.gz"


def test_a_segmentation_among_several_cases_is_nobody_s(tmp_path: Path):
    for name in ("P1", "P2"):
        for channel in tiny_sets.BRATS_CHANNELS:
            tiny_sets.save_volume(tmp_path / "BraTS" / f"{name}_{channel}.nii.gz", tiny_sets.scan_volume())
    tiny_sets.save_volume(tmp_path / "BraTS" / "P3_seg.nii.gz", tiny_sets.lesion_volume())
    with pytest.raises(UsageError, match=r"no labelled image .*without its scan"):
        list_items("brats", tmp_path, SPEC_3D)


def test_the_decathlon_s_names_of_values_stand_beside_what_the_recipe_reads(tmp_path: Path):
    tiny_sets.decathlon(tmp_path)
    listing = list_items("decathlon", tmp_path, SPEC_3D)
    assert listing.notes[1] == (
        "dataset.json calls the values 1 edema, 2 non-enhancing tumor, 3 enhancing tumour; "
        "the recipe reads NCR from 1, ED from 2, ET from 3, 4"
    )
    assert {name: source.index for name, source in listing.items[0].source.channels.items()} == {
        "t1": 1,
        "t1ce": 2,
        "t2": 3,
        "flair": 0,
    }


@pytest.mark.parametrize("layout", ["decathlon", "nnunet", "auto"])
def test_two_tasks_in_one_folder_are_not_guessed_between(tmp_path: Path, layout: str):
    tiny_sets.decathlon(tmp_path / "a")
    tiny_sets.decathlon(tmp_path / "b")
    with pytest.raises(UsageError, match=r"2 folders hold imagesTr/.*Give the folder of one"):
        list_items(layout, tmp_path, SPEC_3D)


def test_a_2d_recipe_sees_the_labelled_slices_of_decathlon_volumes(tmp_path: Path):
    """Of 4 slices one holds the lesion; enhancing tumour is 3 there."""
    tiny_sets.decathlon(tmp_path)
    shared = SPEC_3D.model_dump(include={"channels", "labels", "regions", "activation"})
    spec = SPEC.model_copy(update={name: getattr(SPEC_3D, name) for name in shared})
    items = list_items("decathlon", tmp_path, spec).items
    axial = spec.model_copy(update={"input": spec.input.model_copy(update={"plane": "axial"})})
    cache = open_cache(tmp_path / "cache", items, axial, "labelled")
    assert [(sample.item, sample.slice) for sample in cache.samples] == [("BRATS_001", 1), ("BRATS_002", 1)]
    assert cache.image(0).shape == (4, 64, 64)
    assert cache.target(0).any(axis=(1, 2)).tolist() == [False, False, True]


def test_a_file_that_the_decathlon_does_not_list_is_left_out_and_told(tmp_path: Path):
    tiny_sets.decathlon(tmp_path)
    task = tmp_path / _TASK
    for folder in ("imagesTr", "labelsTr"):
        shutil.copy(task / folder / "BRATS_001.nii.gz", task / folder / "BRATS_003.nii.gz")
    listing = list_items("decathlon", tmp_path, SPEC_3D)
    assert len(listing.items) == 2
    assert "1 of 3 files in imagesTr/ stand not in dataset.json" in listing.notes[-1]


# folders


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


# real sets


@pytest.mark.parametrize(
    ("folder", "layout", "items", "patients", "folds", "groups"),
    [
        ("cheng", "cheng", 2628, 180, set("12345"), {"meningioma", "glioma", "pituitary"}),
        ("kaggle_coco", "coco", 2146, 2146, {"train", "valid", "test"}, {"0", "1", "none"}),
        ("lgg_h5", "hdf5_xy", 343, 28, {""}, {""}),
        ("kaggle_3m", "kaggle_3m", 12, 1, {""}, {""}),
        ("brats2018", "brats", 1, 1, {""}, {""}),
        ("progression", "folder", 8, 4, {""}, {""}),
    ],
)
def test_real_sets_are_recognised_and_listed(
    real_data: Path, folder: str, layout: str, items: int, patients: int, folds: set[str], groups: set[str]
):
    listing = look("auto", real_data / folder)
    assert listing.notes[0].startswith(f"layout {layout} (")
    assert len(listing.items) == items
    assert len({item.patient for item in listing.items}) == patients
    assert {item.fold for item in listing.items} == folds
    assert {item.group for item in listing.items} == groups
    assert listing.broken == ()


def test_a_real_box_covers_its_pixels_whose_centres_it_holds(real_data: Path):
    items = look("coco", real_data / "kaggle_coco").items
    item = next(item for item in items if item.name == "2256_jpg.rf.3afd7903eaf3f3c5aa8da4bbb928bc19")
    labels = label_reader("coco").read_labels(item.source.reference).labels
    # x 58 to 125.5, y 95.5 to 160.5; category 1.
    rows, columns = np.nonzero(labels)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (95, 159, 58, 124)
    assert np.unique(labels).tolist() == [0, 1]
