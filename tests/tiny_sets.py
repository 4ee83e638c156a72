"""Labelled sets of a few small images, one writer a layout, whose answers can be worked out by hand.

A picture has 16x12 pixels with a bright block of 3 rows and 4 columns, its lesion: 12 pixels.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import nibabel
import numpy as np
from PIL import Image

SHAPE = (16, 12)
BLOCK = (slice(5, 8), slice(2, 6))
BRATS_CHANNELS = ("t1", "t1ce", "t2", "flair")

_RANDOM = np.random.default_rng(11)


def mask(value: int = 1) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[BLOCK] = value
    return labels


def picture() -> np.ndarray:
    return (_RANDOM.integers(20, 90, SHAPE) + 100 * mask()).astype(np.uint8)


def save_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_volume(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def save_hdf5(path: Path, **datasets: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


def lesion_volume(value: int = 1) -> np.ndarray:
    labels = np.zeros((6, 5, 4), np.uint8)
    labels[2:4, 1:3, 1] = value
    return labels


def scan_volume(channels: int = 0) -> np.ndarray:
    return _RANDOM.integers(1, 200, (6, 5, 4, channels) if channels else (6, 5, 4)).astype(np.int16)


def write_cjdata(path: Path, patient: str, label: int) -> None:
    """One file of Cheng's, by columns as MATLAB stores."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["cjdata/image"] = picture().astype(np.int16).T
        file["cjdata/tumorMask"] = mask().T
        file["cjdata/PID"] = np.array([[ord(letter)] for letter in patient], np.uint16)
        file["cjdata/label"] = np.array([[float(label)]])


def cheng_mat(folder: Path) -> None:
    for number, (patient, label) in enumerate((("MR10B", 1), ("MR10", 1), ("77", 2), ("8", 3)), start=1):
        part = "brainTumorDataPublic_1-2" if number < 3 else "brainTumorDataPublic_3-4"
        write_cjdata(folder / part / f"{number}.mat", patient, label)
    save_hdf5(folder / "cvind.mat", cvind=np.array([[5.0, 5.0, 1.0, 2.0]]))


def cheng(folder: Path) -> None:
    rows = ["id,label,label_name,patient_id,patient_group,official_fold"]
    for name, patient in (("1", "7"), ("2", "7"), ("3", "9")):
        save_picture(folder / "images" / f"{name}.png", picture())
        save_picture(folder / "masks" / f"{name}.png", mask(255))
        rows.append(f"{name},2,glioma,{patient},{patient},{patient}")
    (folder / "index.csv").write_text("\n".join(rows))


BOX = [2, 5, 4, 3]
"""Of the block: x, y, width, height."""
POLYGON = [[2, 5, 6, 5, 6, 8, 2, 8]]
RUNS = {"size": list(SHAPE), "counts": [2 * 16 + 5, *([3, 13] * 3), 3, 8 + 6 * 16]}
"""Down the columns: 2 empty ones and 5 rows, then 3 set and 13 not, four times."""


def coco_json(names: list[str], outline: Mapping[str, object], categories: tuple[str, ...] = ("tumour",)) -> str:
    """Every picture has one object, of category 1."""
    content = {
        "images": [{"id": n, "file_name": name, "height": 16, "width": 12} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, **outline} for n in range(len(names))],
        "categories": [{"id": n, "name": name} for n, name in enumerate(categories, start=1)],
    }
    return json.dumps(content)


def coco(folder: Path) -> None:
    """Folders of folds; two copies of one picture."""
    outlines = {"train": {"segmentation": POLYGON}, "valid": {"bbox": BOX}, "test": {"segmentation": RUNS}}
    for number, (fold, outline) in enumerate(outlines.items()):
        names = [f"{number}_jpg.rf.{copy}.png" for copy in ("aa", "bb")]
        for name in names:
            save_picture(folder / fold / name, picture())
        (folder / fold / "_annotations.coco.json").write_text(coco_json(names, outline))


def coco_annotations(folder: Path) -> None:
    """COCO's own arrangement."""
    for fold in ("train", "val"):
        save_picture(folder / f"{fold}2017" / f"{fold}.png", picture())
        (folder / "annotations").mkdir(exist_ok=True)
        text = coco_json([f"{fold}.png"], {"segmentation": POLYGON})
        (folder / "annotations" / f"instances_{fold}2017.json").write_text(text)


def coco_images(folder: Path) -> None:
    save_picture(folder / "images" / "a.png", picture())
    (folder / "labels.json").write_text(coco_json(["a.png"], {"segmentation": [], "bbox": BOX}))


def hdf5_slices(folder: Path, names: tuple[str, ...] = ("TCGA_A_1", "TCGA_A_2", "TCGA_B_1")) -> None:
    for name in names:
        save_hdf5(folder / f"{name}.h5", x=picture(), y=mask(255))


def hdf5_pair(folder: Path) -> None:
    save_hdf5(folder / "train_images.h5", data=np.stack([picture() for _ in range(11)])[..., None])
    save_hdf5(folder / "train_masks.h5", data=np.stack([mask(n) for n in range(11)])[..., None])


def hdf5_stack(folder: Path) -> None:
    save_hdf5(folder / "all.h5", x=np.stack([picture()] * 9), y=np.stack([mask()] * 9))


def hdf5_patients(folder: Path) -> None:
    for name in ("P1", "P2"):
        save_hdf5(folder / f"{name}.h5", x=np.stack([picture()] * 9), y=np.stack([mask()] * 9))


def brats_h5(folder: Path) -> None:
    for volume, number in ((1, 3), (1, 4), (12, 0)):
        one_hot = np.zeros((16, 16, 3), np.uint8)
        one_hot[*BLOCK, 1] = 1
        image = _RANDOM.normal(size=(16, 16, 4))
        save_hdf5(folder / "data" / f"volume_{volume}_slice_{number}.h5", image=image, mask=one_hot)


def brats(folder: Path) -> None:
    cases = {"BraTS-GLI-00005-000": "-", "BraTS-GLI-00005-001": "-", "BraTS20_Training_001": "_"}
    new = dict(zip(BRATS_CHANNELS, ("t1n", "t1c", "t2w", "t2f"), strict=True))
    for name, joint in cases.items():
        for channel in BRATS_CHANNELS:
            called = new[channel] if joint == "-" else channel
            save_volume(folder / name / f"{name}{joint}{called}.nii.gz", scan_volume())
        save_volume(folder / name / f"{name}{joint}seg.nii.gz", lesion_volume(4))


def brats2018(folder: Path) -> None:
    for grade, name in (("HGG", "Brats18_TCIA01_131_1"), ("LGG", "Brats18_2013_0_1")):
        for channel in BRATS_CHANNELS:
            save_volume(folder / grade / name / f"{name}_{channel}.nii.gz", scan_volume())
        save_volume(folder / grade / name / f"{name}_seg.nii.gz", lesion_volume(4))


def decathlon(folder: Path) -> None:
    task = folder / "Task01_BrainTumour"
    names = ("BRATS_001", "BRATS_002")
    for name in names:
        save_volume(task / "imagesTr" / f"{name}.nii.gz", scan_volume(4))
        save_volume(task / "labelsTr" / f"{name}.nii.gz", lesion_volume(3))
    save_volume(task / "imagesTs" / "BRATS_485.nii.gz", scan_volume(4))
    content = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    (task / "dataset.json").write_text(json.dumps(content))


def nnunet(folder: Path) -> None:
    for name in ("BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "GBM_7"):
        for number in range(2):
            save_volume(folder / "imagesTr" / f"{name}_{number:04d}.nii.gz", scan_volume())
        save_volume(folder / "labelsTr" / f"{name}.nii.gz", lesion_volume())
    content = {"channel_names": {"0": "T1", "1": "FLAIR"}, "labels": {"background": 0, "tumour": 1}, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps(content))


def kaggle_3m(folder: Path) -> None:
    for case, number in (("TCGA_CS_4941_19960909", 1), ("TCGA_CS_4941_19970101", 1), ("TCGA_DU_6401_19831001", 9)):
        pixels = np.stack([picture()] * 3, axis=-1) + np.arange(3, dtype=np.uint8)
        save_picture(folder / case / f"{case}_{number}.tif", pixels)
        save_picture(folder / case / f"{case}_{number}_mask.tif", mask(255))


def images_masks(folder: Path) -> None:
    for fold, patient, mask_name in (("train", "P1", "a"), ("train", "P2", "a_mask"), ("test", "P3", "a")):
        save_picture(folder / fold / "images" / patient / "a.png", picture())
        save_picture(folder / fold / "masks" / patient / f"{mask_name}.png", mask(255))


def visits(folder: Path) -> None:
    for case in ("01_Pre", "01_Post", "02_Pre"):
        save_volume(folder / case / f"{case}_t1ce.nii.gz", scan_volume())
        save_volume(folder / case / f"{case}_mask.nii.gz", lesion_volume())


@dataclass(frozen=True)
class Set:
    """A set, and what must be found in it.

    Args:
        layout: What it is recognised as.
        write: Makes it in an empty folder.
        items: Name to (patient, group, fold).
        labelled: Pixels with each value in the reference of the last item, in the order of names.
        note: Part of a note, or empty for no note at all.
    """

    layout: str
    write: Callable[[Path], None]
    items: Mapping[str, tuple[str, str, str]]
    labelled: Mapping[int, int] = field(default_factory=lambda: {1: 12})
    note: str = ""


UNKNOWN = "each counts as a patient, and validation is too good"
_COPIES = [f"{n}_jpg.rf.{copy}" for n in range(3) for copy in ("aa", "bb")]
_COPY_FOLDS = ("train", "train", "valid", "valid", "test", "test")

SETS = {
    "cheng": Set(
        "cheng",
        cheng,
        {"1": ("7", "glioma", "7"), "2": ("7", "glioma", "7"), "3": ("9", "glioma", "9")},
        {255: 12},
    ),
    "cheng as published": Set(
        "cheng_mat",
        cheng_mat,
        {
            "1": ("patient-003", "meningioma", "5"),
            "2": ("patient-003", "meningioma", "5"),
            "3": ("patient-001", "glioma", "1"),
            "4": ("patient-002", "pituitary", "2"),
        },
        note="1 patient ids differ from another one in the letter at their end",
    ),
    "coco in folds, with copies": Set(
        "coco",
        coco,
        {name: (name.split(".rf.")[0], "", fold) for name, fold in zip(_COPIES, _COPY_FOLDS, strict=True)},
        note=UNKNOWN,
    ),
    "coco as COCO does it": Set(
        "coco",
        coco_annotations,
        {"train": ("train2017/train.png", "", "train"), "val": ("val2017/val.png", "", "valid")},
        note=UNKNOWN,
    ),
    "coco beside images": Set("coco", coco_images, {"a": ("images/a.png", "", "")}, note=UNKNOWN),
    "hdf5 slices": Set(
        "hdf5_xy",
        hdf5_slices,
        {"TCGA_A_1": ("TCGA_A", "", ""), "TCGA_A_2": ("TCGA_A", "", ""), "TCGA_B_1": ("TCGA_B", "", "")},
        {255: 12},
        "the patient is the file name up to the slice number: 2 patients",
    ),
    "hdf5 images and masks": Set(
        "hdf5_xy",
        hdf5_pair,
        {f"train_images-{n:02d}": (f"train_images-{n:02d}", "", "train") for n in range(11)},
        {10: 12},
        UNKNOWN,
    ),
    "hdf5 stack": Set("hdf5_xy", hdf5_stack, {f"all-{n}": (f"all-{n}", "", "") for n in range(9)}, note=UNKNOWN),
    "hdf5 stack a patient": Set(
        "hdf5_xy",
        hdf5_patients,
        {f"{patient}-{n}": (f"{patient}.h5", "", "") for patient in ("P1", "P2") for n in range(9)},
        note="each of 2 files is taken for one patient",
    ),
    "brats slices": Set(
        "brats_h5",
        brats_h5,
        {
            "volume_12_slice_0": ("volume_12", "", ""),
            "volume_1_slice_3": ("volume_1", "", ""),
            "volume_1_slice_4": ("volume_1", "", ""),
        },
        {2: 12},
        "the recipe's order is taken",
    ),
    "brats": Set(
        "brats",
        brats,
        {
            "BraTS-GLI-00005-000/BraTS-GLI-00005-000": ("BraTS-GLI-00005", "", ""),
            "BraTS-GLI-00005-001/BraTS-GLI-00005-001": ("BraTS-GLI-00005", "", ""),
            "BraTS20_Training_001/BraTS20_Training_001": ("BraTS20_Training_001", "", ""),
        },
        {4: 4},
    ),
    "brats of 2018, graded": Set(
        "brats",
        brats2018,
        {
            "HGG/Brats18_TCIA01_131_1/Brats18_TCIA01_131_1": ("Brats18_TCIA01_131", "HGG", ""),
            "LGG/Brats18_2013_0_1/Brats18_2013_0_1": ("Brats18_2013_0", "LGG", ""),
        },
        {4: 4},
    ),
    "decathlon": Set(
        "decathlon",
        decathlon,
        {"BRATS_001": ("BRATS_001", "", ""), "BRATS_002": ("BRATS_002", "", "")},
        {3: 4},
        "each case is taken for one patient",
    ),
    "nnunet": Set(
        "nnunet",
        nnunet,
        {
            "BraTS-GLI-00001-000": ("BraTS-GLI-00001", "", ""),
            "BraTS-GLI-00001-001": ("BraTS-GLI-00001", "", ""),
            "GBM_7": ("GBM_7", "", ""),
        },
        {1: 4},
        "each case is taken for one patient",
    ),
    "kaggle_3m": Set(
        "kaggle_3m",
        kaggle_3m,
        {
            "TCGA_CS_4941_19960909/TCGA_CS_4941_19960909_1": ("TCGA_CS_4941", "", ""),
            "TCGA_CS_4941_19970101/TCGA_CS_4941_19970101_1": ("TCGA_CS_4941", "", ""),
            "TCGA_DU_6401_19831001/TCGA_DU_6401_19831001_9": ("TCGA_DU_6401", "", ""),
        },
        {255: 12},
    ),
    "images and masks": Set(
        "images_masks",
        images_masks,
        {
            "test/images/P3/a": ("P3", "", "test"),
            "train/images/P1/a": ("P1", "", "train"),
            "train/images/P2/a": ("P2", "", "train"),
        },
        {255: 12},
        "each of the 3 folders",
    ),
    "folders of visits": Set(
        "folder",
        visits,
        {
            "01_Post/01_Post": ("01", "", ""),
            "01_Pre/01_Pre": ("01", "", ""),
            "02_Pre/02_Pre": ("02", "", ""),
        },
        {1: 4},
        "differ in the visit alone for the same one: 2 patients",
    ),
}
