"""Scanning: file names in, cases out. Files are empty wherever only their names count."""

import fnmatch
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from tiny import spec_of

from segtool.case import UNNAMED, CaseSource
from segtool.errors import UsageError
from segtool.formats import FORMATS, get_format
from segtool.report import Report
from segtool.scan import Scan, ScanOptions, natural_key, scan
from segtool.scan.cases import HOLD_REFERENCES
from segtool.scan.names import ChannelNames, reference_base, safe_part
from segtool.spec import ChannelSpec

FOUR = ("t1", "t1ce", "t2", "flair")


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def files(case: CaseSource) -> dict[str, str]:
    return {name: source.path.name for name, source in case.channels.items()}


def found(scanned: Scan) -> dict[str, tuple[dict[str, str], str | None]]:
    """Case name to its channels' file names and its reference's."""
    return {c.name: (files(c), c.reference.path.name if c.reference else None) for c in scanned.cases}


def names(scanned: Scan) -> list[str]:
    return [case.name for case in scanned.cases]


LAYOUTS: dict[str, tuple[tuple[str, ...], Mapping[str, tuple[dict[str, str], str | None]]]] = {
    "BraTS up to 2021": (
        tuple(f"B_001/B_001_{c}.nii.gz" for c in ("t1", "t1ce", "t2", "flair", "seg")),
        {"B_001/B_001": ({c: f"B_001_{c}.nii.gz" for c in FOUR}, "B_001_seg.nii.gz")},
    ),
    "BraTS from 2023": (
        tuple(f"B-GLI-00000-000/B-GLI-00000-000-{c}.nii.gz" for c in ("t1n", "t1c", "t2w", "t2f", "seg")),
        {
            "B-GLI-00000-000/B-GLI-00000-000": (
                {
                    "t1": "B-GLI-00000-000-t1n.nii.gz",
                    "t1ce": "B-GLI-00000-000-t1c.nii.gz",
                    "t2": "B-GLI-00000-000-t2w.nii.gz",
                    "flair": "B-GLI-00000-000-t2f.nii.gz",
                },
                "B-GLI-00000-000-seg.nii.gz",
            )
        },
    ),
    "the folder is the case": (
        ("p1/t1ce.nii.gz", "p1/flair.nii.gz", "p1/segmentation.nii.gz", "p2/T1Gd.nii", "p2/mask.nii.gz"),
        {
            "p1": ({"t1ce": "t1ce.nii.gz", "flair": "flair.nii.gz"}, "segmentation.nii.gz"),
            "p2": ({"t1ce": "T1Gd.nii"}, "mask.nii.gz"),
        },
    ),
    "BraTS 2015": (
        (
            "c/T1c_subtrMeanDivStd.nii.gz",
            "c/Flair_subtrMeanDivStd.nii.gz",
            "c/OTMultiClass.nii.gz",
            "c/brainmask.nii.gz",
            "c/License.txt",
        ),
        {
            "c": (
                {"t1ce": "T1c_subtrMeanDivStd.nii.gz", "flair": "Flair_subtrMeanDivStd.nii.gz"},
                "OTMultiClass.nii.gz",
            )
        },
    ),
    "tokens in two parts, any case, any separator": (
        ("a_T1_CE.nii.gz", "a_t2-Flair.nii.gz", "a.t1.nii.gz", "a-T2W.nii.gz", "a_GT.nii.gz"),
        {
            "a": (
                {
                    "t1": "a.t1.nii.gz",
                    "t1ce": "a_T1_CE.nii.gz",
                    "t2": "a-T2W.nii.gz",
                    "flair": "a_t2-Flair.nii.gz",
                },
                "a_GT.nii.gz",
            )
        },
    ),
    "one channel without siblings is named all the same": (
        ("patient_t1.nii.gz",),
        {"patient": ({"t1": "patient_t1.nii.gz"}, None)},
    ),
    "pictures with masks beside them": (
        ("x 2.png", "x 10.png", "x 2_mask.png", "x 10-seg.tif", "x 3.jpg", "x 3_labels.png"),
        {
            "x 2": ({UNNAMED: "x 2.png"}, "x 2_mask.png"),
            "x 3": ({UNNAMED: "x 3.jpg"}, "x 3_labels.png"),
            "x 10": ({UNNAMED: "x 10.png"}, "x 10-seg.tif"),
        },
    ),
    "images and masks in parallel folders": (
        ("images/1.webp", "images/2.webp", "masks/1.png", "masks/2_mask.png"),
        {
            "images/1": ({UNNAMED: "1.webp"}, "1.png"),
            "images/2": ({UNNAMED: "2.webp"}, "2_mask.png"),
        },
    ),
    "a masks folder next to the files": (
        ("P1/1.png", "P1/masks/1.png", "P2/1.png", "labels/P2/1.png"),
        {"P1/1": ({UNNAMED: "1.png"}, "1.png"), "P2/1": ({UNNAMED: "1.png"}, "1.png")},
    ),
    "parts of a set keep to themselves": (
        ("train/images/1.png", "train/masks/1.png", "images/test/1.png", "labels/test/1.png"),
        {
            "images/test/1": ({UNNAMED: "1.png"}, "1.png"),
            "train/images/1": ({UNNAMED: "1.png"}, "1.png"),
        },
    ),
    "patients with a reference named after their folder": (
        (
            "P1/t1ce.nii.gz",
            "P1/P1_seg.nii.gz",
            "P2/P2_t1ce.nii.gz",
            "P2/seg.nii.gz",
            "P3/t1ce.nii.gz",
            "P3_seg.nii.gz",
        ),
        {
            "P1": ({"t1ce": "t1ce.nii.gz"}, "P1_seg.nii.gz"),
            "P2/P2": ({"t1ce": "P2_t1ce.nii.gz"}, "seg.nii.gz"),
            "P3": ({"t1ce": "t1ce.nii.gz"}, "P3_seg.nii.gz"),
        },
    ),
    "a reference named after one channel": (
        ("a_t1ce.nii.gz", "a_flair.nii.gz", "a_flair_seg.nii.gz"),
        {"a": ({"t1ce": "a_t1ce.nii.gz", "flair": "a_flair.nii.gz"}, "a_flair_seg.nii.gz")},
    ),
    "a treatment follows the channel": (
        ("a_t1ce_n4.nii.gz", "a_t2_brain.nii.gz"),
        {"a": ({"t1ce": "a_t1ce_n4.nii.gz", "t2": "a_t2_brain.nii.gz"}, None)},
    ),
    "numbers are slices where nothing says otherwise": (
        ("slice_0000.png", "slice_0001.png"),
        {
            "slice_0000": ({UNNAMED: "slice_0000.png"}, None),
            "slice_0001": ({UNNAMED: "slice_0001.png"}, None),
        },
    ),
    "HDF5 and MATLAB may hold their reference": (
        ("volume_1_slice_2.h5", "volume_1_slice_10.h5", "3.mat"),
        {
            "3": ({UNNAMED: "3.mat"}, "3.mat"),
            "volume_1_slice_2": ({UNNAMED: "volume_1_slice_2.h5"}, "volume_1_slice_2.h5"),
            "volume_1_slice_10": ({UNNAMED: "volume_1_slice_10.h5"}, "volume_1_slice_10.h5"),
        },
    ),
    "a COCO file among pictures holds their references": (
        ("a.png", "b.nii.gz", "_annotations.coco.json"),
        {"a": ({UNNAMED: "a.png"}, "_annotations.coco.json"), "b": ({UNNAMED: "b.nii.gz"}, None)},
    ),
    "other files are passed over": (
        (
            "a.png",
            ".hidden.png",
            ".partial-7-b.png",
            "._a.png",
            "report.json",
            "annotations.json",
            "index.csv",
            "README",
            ".git/x.png",
            "__MACOSX/a.png",
            "Thumbs.db",
        ),
        {"a": ({UNNAMED: "a.png"}, None)},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_is_understood_from_names(tmp_path: Path, layout: str) -> None:
    listing, wanted = LAYOUTS[layout]
    scanned = scan([touch(tmp_path / "data", *listing)])
    assert found(scanned) == wanted
    assert list(found(scanned)) == sorted(wanted, key=natural_key), "in natural order"
    assert scanned.problems == ()


def test_results_of_an_earlier_run_are_no_scans_but_scans_beside_any_report_are(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.png", "out/report.csv", "out/overlays/a.png", "P1/a.png", "P1/report.csv")
    (tmp_path / "out" / "report.json").write_text(Report("predict", "1", (), 0.0).to_json())
    (tmp_path / "P1" / "report.json").write_text("{}")
    scanned = scan([tmp_path])
    assert [case.name for case in scanned.cases] == ["a", "P1/a"]
    (problem,) = scanned.problems
    assert str(problem) == (
        "out: passed over: it holds results of segtool (a report or a run file). "
        "If it holds scans too, give it as an input of its own."
    )
    assert not problem.loses_case


def test_a_patient_folder_given_itself_lends_its_name(tmp_path: Path) -> None:
    folder = touch(tmp_path / "patient 7", "t1ce.nii.gz", "flair.nii.gz", "seg.nii.gz")
    wanted = {"patient 7": ({"t1ce": "t1ce.nii.gz", "flair": "flair.nii.gz"}, "seg.nii.gz")}
    assert found(scan([folder])) == wanted
    # The same through its files, as a shell expands them.
    assert found(scan(sorted(folder.iterdir()))) == wanted


def test_an_images_folder_given_itself_finds_the_masks_beside_it(tmp_path: Path) -> None:
    folder = touch(tmp_path, "images/1.png", "masks/1.png", "masks/2.png", "other/1.png") / "images"
    scanned = scan([folder])
    assert found(scanned) == {"1": ({UNNAMED: "1.png"}, "1.png")}
    assert scanned.problems == (), "masks of scans that were left out are nobody's problem"


def test_a_file_given_alone_finds_its_mask(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a_mask.png", "b.png", "b_mask.png", "c.png", "masks/c.png")
    for name, mask in (("a", "a_mask.png"), ("c", "c.png")):
        scanned = scan([tmp_path / f"{name}.png"])
        assert found(scanned) == {name: ({UNNAMED: f"{name}.png"}, mask)}
        assert scanned.problems == ()


# nnU-Net and Decathlon


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("top", [".", "imagesTr"])
def test_nnunet_numbers_get_their_names_from_dataset_json(tmp_path: Path, top: str) -> None:
    touch(tmp_path, *(f"imagesTr/C_{n:04}.nii.gz" for n in range(4)), "labelsTr/C.nii.gz")
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "T1w", "1": "T1-Gd", "2": "T2w", "3": "FLAIR"}})
    (case,) = scan([tmp_path / top]).cases
    assert case.name == ("C" if top == "imagesTr" else "imagesTr/C")
    assert files(case) == {name: f"C_{n:04}.nii.gz" for n, name in enumerate(FOUR)}
    assert case.reference is not None
    assert case.reference.path == tmp_path / "labelsTr/C.nii.gz"
    assert case.notes == ()


def test_nnunet_numbers_without_json_follow_the_model_and_say_so(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTs/C_0000.nii.gz", "imagesTs/C_0001.nii.gz")
    (case,) = scan([tmp_path], spec_of("flair", "t1ce")).cases
    assert files(case) == {"flair": "C_0000.nii.gz", "t1ce": "C_0001.nii.gz"}
    assert "taken as flair, t1ce" in case.notes[0]


def test_a_folder_for_nnunet_prediction_is_recognised_by_its_numbers(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}_{n:04}.nii.gz" for name in "AB" for n in range(2)))
    two = scan([tmp_path], spec_of("t1ce", "flair"))
    assert found(two)["A"] == ({"t1ce": "A_0000.nii.gz", "flair": "A_0001.nii.gz"}, None)
    assert names(two) == ["A", "B"]
    assert len(scan([tmp_path], spec_of("t1ce")).cases) == 4, "a model of one channel sees four scans"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"channel_names": {"0": "noNorm", "1": "noNorm"}}, None),
        ({"tensorImageSize": "4D"}, None),
        ({"channel_names": {"0": "t1", "2": "t2"}}, "numbered from 0"),
        ({"modality": {"0": ["t1"], "x": "t2"}}, "numbered from 0"),
    ],
)
def test_dataset_json_that_names_nothing_leaves_the_order_of_the_model(
    tmp_path: Path, content: object, problem: str | None
) -> None:
    touch(tmp_path, "imagesTr/C_0000.nii.gz", "imagesTr/C_0001.nii.gz")
    write_json(tmp_path / "dataset.json", content)
    scanned = scan([tmp_path], spec_of("t1", "t2"))
    assert files(scanned.cases[0]) == {"t1": "C_0000.nii.gz", "t2": "C_0001.nii.gz"}
    assert [problem in str(p) for p in scanned.problems if problem] == ([True] if problem else [])
    assert len(scanned.problems) == (problem is not None)


def test_dataset_json_that_is_broken_is_said_once(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/a.nii.gz", "imagesTs/b.nii.gz")
    (tmp_path / "dataset.json").write_text("{")
    (problem,) = scan([tmp_path]).problems
    assert "Repair or remove" in str(problem)


def test_one_channel_that_json_calls_by_no_known_name_is_left_to_the_model(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/C_0000.nii.gz")
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "MRI"}})
    assert files(scan([tmp_path], spec_of("t1ce")).cases[0]) == {UNNAMED: "C_0000.nii.gz"}
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "FLAIR"}})
    assert files(scan([tmp_path], spec_of("t1ce")).cases[0]) == {"flair": "C_0000.nii.gz"}


def test_decathlon_channels_are_positions_in_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_002.nii.gz")
    write_json(tmp_path / "dataset.json", {"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}})
    scanned = scan([tmp_path])
    assert names(scanned) == ["imagesTr/BRATS_001", "imagesTs/BRATS_002"]
    first, second = scanned.cases
    assert {name: source.index for name, source in first.channels.items()} == {
        "t1": 1,
        "t1ce": 2,
        "t2": 3,
        "flair": 0,
    }
    assert first.reference is not None
    assert second.reference is None


def test_numbers_of_patients_are_no_channels(tmp_path: Path) -> None:
    touch(tmp_path, "imagesTr/BRATS_0001.nii.gz", "imagesTr/BRATS_0484.nii.gz", "labelsTr/BRATS_0484.nii.gz")
    assert names(scan([tmp_path], spec_of("t1", "t1ce"))) == ["imagesTr/BRATS_0001", "imagesTr/BRATS_0484"]
    write_json(tmp_path / "dataset.json", {"modality": {"0": "FLAIR", "1": "T1w"}})
    first, second = scan([tmp_path]).cases
    assert {name: source.index for name, source in first.channels.items()} == {"t1": 1, "flair": 0}
    assert second.reference is not None


def test_dataset_json_names_the_channels_of_hdf5_slices(tmp_path: Path) -> None:
    touch(tmp_path, "volume_1_slice_7.h5", "preview.png")
    write_json(tmp_path / "dataset.json", {"channel_names": {"0": "t1", "1": "t1ce"}})
    picture, slices = scan([tmp_path]).cases
    assert {name: source.index for name, source in slices.channels.items()} == {"t1": 0, "t1ce": 1}
    assert slices.reference is not None
    assert list(picture.channels) == [UNNAMED]


def test_kaggle_3m_pictures_hold_three_channels(tmp_path: Path) -> None:
    stem = "TCGA_CS_5396_20010302_7"
    touch(tmp_path, f"P/{stem}.tif", f"P/{stem}_mask.tif", "P/TCGA_CS_5396_20010302_8.tif")
    first, second = scan([tmp_path]).cases
    assert {name: source.index for name, source in first.channels.items()} == {"t1": 0, "flair": 1, "t1ce": 2}
    assert first.reference is not None
    assert list(second.channels) == list(first.channels), "its name says so, with a mask or without"
    assert second.reference is None


# names


@pytest.mark.parametrize(
    ("listing", "wanted"),
    [
        (("a.png", "a.nii.gz"), ["a", "a-nii"]),
        (("a.png", "a.jpg"), ["a", "a-png"]),
        (("a.nii", "a.nii.gz"), ["a", "a-nii"]),
        (("a.png", "A.png"), ["A", "a-2"]),
        (("a.png", "a_t1.png"), ["a", "a-t1"]),
        (("a_t1.nii.gz", "a.nii.gz"), ["a", "a-t1"]),
        (("a/b.png", "a/b.nii.gz", "a/b.mat"), ["a/b", "a/b-mat", "a/b-nii"]),
    ],
)
def test_names_are_unique_even_without_case(tmp_path: Path, listing: tuple[str, ...], wanted: list[str]) -> None:
    called = names(scan([touch(tmp_path, *listing)]))
    assert sorted(called) == sorted(wanted) or {n.casefold() for n in called} == {n.casefold() for n in wanted}
    assert len({name.casefold() for name in called}) == len(listing)


def test_equal_names_in_two_inputs_are_told_apart_by_the_input(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.png", "B/1.png")
    assert names(scan([tmp_path / "A", tmp_path / "B"])) == ["1", "B/1"]


def test_the_same_file_given_twice_is_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.png")
    assert names(scan([tmp_path, tmp_path / "A", tmp_path / "A/1.png"])) == ["A/1"]


@pytest.mark.parametrize(
    ("part", "safe"),
    [
        ("a:b?", "a_b_"),
        ("..", "_"),
        ("tab\tnew\n", "tab_new_"),
        ("name. ", "name"),
        ("Größe", "Größe"),
        ("\udce4", "_"),
        ("CON", "CON_"),
        ("aux.t1", "aux_.t1"),
        ("nul .x", "nul_ .x"),
        ("lpt1", "lpt1_"),
        ("console", "console"),
        ("a\u202egpj", "a_gpj"),
        ("\x9b31m", "_31m"),
        ("é" * 127, "é" * 85 + "-" + hashlib.sha256(("é" * 127).encode()).hexdigest()[:8]),
    ],
)
def test_parts_of_names_are_safe_in_a_path(part: str, safe: str) -> None:
    assert safe_part(part) == safe


def test_numbers_in_names_count() -> None:
    listing = ["slice 10", "slice 2", "Slice 1", "slice", "2", "10", "a1b", "a"]
    assert sorted(listing, key=natural_key) == [
        "2",
        "10",
        "a",
        "a1b",
        "slice",
        "Slice 1",
        "slice 2",
        "slice 10",
    ]


# channels


@pytest.mark.parametrize(
    ("stem", "wanted"),
    [
        ("P1_t1ce", ("P1", "t1ce")),
        ("P1-T1GD", ("P1", "t1ce")),
        ("P1.t1_post", ("P1", "t1ce")),
        ("P1_t1_pre", ("P1", "t1")),
        ("P1_FLA", ("P1", "flair")),
        ("T2-FLAIR", ("", "flair")),
        ("flair", ("", "flair")),
        ("t1_P1", ("t1_P1", UNNAMED)),
        ("brain", ("brain", UNNAMED)),
        ("P1t1", ("P1t1", UNNAMED)),
        ("x_a_t_1", ("x_a_t_1", UNNAMED)),
        ("", ("", UNNAMED)),
        ("___", ("___", UNNAMED)),
    ],
)
def test_the_last_token_of_a_name_tells_the_channel(stem: str, wanted: tuple[str, str]) -> None:
    assert ChannelNames(None, {}).split(stem) == wanted


def test_the_names_of_the_model_come_before_those_everybody_knows(tmp_path: Path) -> None:
    touch(tmp_path, "P_t1c.nii.gz", "P_dwi.nii.gz")
    spec = spec_of(ChannelSpec(name="contrast", aliases=("T1C",)), ChannelSpec(name="adc", aliases=("DWI",)))
    assert found(scan([tmp_path], spec)) == {"P": ({"contrast": "P_t1c.nii.gz", "adc": "P_dwi.nii.gz"}, None)}


def test_a_channels_own_name_beats_anothers_alias() -> None:
    spec = spec_of("t1", ChannelSpec(name="t1ce", aliases=("T1", "km")))
    assert [ChannelNames(spec, {}).split(stem) for stem in ("P_t1", "P_KM")] == [("P", "t1"), ("P", "t1ce")]


def test_the_model_decides_which_channel_comes_first(tmp_path: Path) -> None:
    touch(tmp_path, *(f"P_{name}.nii.gz" for name in FOUR))
    assert list(scan([tmp_path], spec_of("flair", "t1ce")).cases[0].channels) == ["flair", "t1ce", "t1", "t2"]
    assert list(scan([tmp_path]).cases[0].channels) == list(FOUR)


@pytest.mark.parametrize(
    ("pattern", "listing", "wanted"),
    [
        ("_post", ("P1_post.nii.gz", "P2_POST.nii.gz"), {"P1": "P1_post.nii.gz", "P2": "P2_POST.nii.gz"}),
        ("*_km", ("P1_km.nii.gz",), {"P1": "P1_km.nii.gz"}),
        ("*km*.nii.gz", ("P1_km_x.nii.gz",), {"P1_x": "P1_km_x.nii.gz"}),
        ("scan[12]_*.png", ("scan1_a.png", "scan2_a.png"), {"1a": "scan1_a.png", "2a": "scan2_a.png"}),
        ("contrast", ("P1/contrast.nii.gz",), {"P1": "contrast.nii.gz"}),
        ("ser?", ("P1/ser4.nii.gz",), {"P1/4": "ser4.nii.gz"}),
        ("t2", ("P1_t2.nii.gz",), {"P1": "P1_t2.nii.gz"}),
    ],
)
def test_a_pattern_names_the_channel_and_leaves_the_case(
    tmp_path: Path, pattern: str, listing: tuple[str, ...], wanted: dict[str, str]
) -> None:
    scanned = scan([touch(tmp_path, *listing)], options=ScanOptions(channels={"t1ce": pattern}))
    assert {name: channels for name, (channels, _) in found(scanned).items()} == {
        name: {"t1ce": file} for name, file in wanted.items()
    }


@given(
    glob=st.text(alphabet="ab*?[]!-_.", min_size=1, max_size=8).filter(lambda text: set(text) & set("*?[")),
    name=st.text(alphabet="ab-_[]!", max_size=8),
)
def test_globs_mean_what_they_mean_everywhere(glob: str, name: str) -> None:
    matches = ChannelNames(None, {"t1": glob}).by_pattern(name, ".png")
    assert bool(matches) == any(fnmatch.fnmatchcase(full, glob) for full in (name, f"{name}.png"))


def test_patterns_join_files_that_nothing_else_joins(tmp_path: Path) -> None:
    touch(tmp_path, "P1_ser3.nii.gz", "P1_ser4.nii.gz", "P1_t2.nii.gz", "P1_seg.nii.gz")
    options = ScanOptions(channels={"T1CE": "_ser3", "flair": "*_ser4*"})
    wanted = {"t1ce": "P1_ser3.nii.gz", "t2": "P1_t2.nii.gz", "flair": "P1_ser4.nii.gz"}
    assert found(scan([tmp_path], options=options)) == {"P1": (wanted, "P1_seg.nii.gz")}


def test_a_file_that_fits_two_patterns_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "P1_post.nii.gz", "P1_postflair.nii.gz")
    scanned = scan([tmp_path], options=ScanOptions(channels={"t1ce": "_post", "flair": "flair"}))
    assert names(scanned) == ["P1"]
    assert "Make the --channel patterns narrower" in str(scanned.problems[0])


def test_a_pattern_that_fits_nothing_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"t1ce=_km\*: fits no file name\. A glob fits whole names: begin it with \*"):
        scan([touch(tmp_path, "P1_km.nii.gz")], options=ScanOptions(channels={"t1ce": "_km*"}))


def test_where_patterns_name_the_channels_a_nameless_file_is_none(tmp_path: Path) -> None:
    scanned = scan(
        [touch(tmp_path, "P1_gd.nii.gz", "P1_dwi.nii.gz")], spec_of("t1ce"), ScanOptions(channels={"t1ce": "_gd"})
    )
    assert found(scanned) == {"P1": ({"t1ce": "P1_gd.nii.gz"}, None)}


def test_no_case_lies_where_the_pictures_of_the_output_lie(tmp_path: Path) -> None:
    scanned = scan([touch(tmp_path, "overlays/a.png", "P1/overlays/a.png", "overlays.png")])
    assert [case.name for case in scanned.cases] == ["overlays", "overlays_/a", "P1/overlays/a"]


@pytest.mark.parametrize(
    ("channels", "remedy"), [({"t2": "x"}, "Its channels are t1ce"), ({"t1ce": ""}, "--channel t1ce=PATTERN")]
)
def test_a_pattern_for_no_channel_or_of_nothing_is_wrong_usage(
    tmp_path: Path, channels: dict[str, str], remedy: str
) -> None:
    with pytest.raises(UsageError, match=remedy):
        scan([touch(tmp_path, "a.png")], spec_of("t1ce"), ScanOptions(channels=channels))


def test_two_files_for_one_channel_are_a_problem_and_no_case(tmp_path: Path) -> None:
    touch(tmp_path, "a_t1c.nii.gz", "a_t1ce.nii.gz", "b_t1ce.nii.gz")
    scanned = scan([tmp_path], None, ScanOptions())
    assert names(scanned) == ["b"]
    assert str(scanned.problems[0]) == (
        "a: several files are t1ce: a_t1c.nii.gz, a_t1ce.nii.gz. Keep one, or pass --channel t1ce=PATTERN."
    )


def test_who_takes_no_options_is_advised_none(tmp_path: Path) -> None:
    touch(tmp_path, "a_t1c.nii.gz", "a_t1ce.nii.gz", "b_t1ce.nii.gz", "b_mask.nii.gz", "b_seg.nii.gz")
    assert [problem.remedy for problem in scan([tmp_path]).problems] == ["Keep one.", "Keep one."]


# references


def test_a_reference_without_its_scan_is_a_problem(tmp_path: Path) -> None:
    scanned = scan([touch(tmp_path, "a.png", "b_mask.png", "masks/c.png")])
    assert [problem.where for problem in scanned.problems] == ["b_mask.png", "masks/c.png"]
    assert "Put the scan beside it" in scanned.problems[0].remedy


def test_two_references_are_a_problem_and_none_is_taken(tmp_path: Path) -> None:
    scanned = scan([touch(tmp_path, "a.png", "a_mask.png", "a_seg.png")])
    assert found(scanned) == {"a": ({UNNAMED: "a.png"}, None)}
    assert "Keep one" in str(scanned.problems[0])


def test_a_reference_of_the_scans_own_kind_is_preferred(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a_seg.nii.gz", "a_seg.png")
    scanned = scan([tmp_path])
    assert found(scanned) == {"a": ({UNNAMED: "a.nii.gz"}, "a_seg.nii.gz")}


@pytest.mark.parametrize(
    ("scans", "masks", "wanted"),
    [
        (("P1/1.png", "P2/1.png"), ("P1/1.png", "P2/1_mask.png"), ["P1/1.png", "P2/1_mask.png"]),
        (("P1/1.png", "P1/2.png"), ("2_seg.tif", "1.png"), ["1.png", "2_seg.tif"]),
        (("P1/t1ce.nii.gz", "P2/t1ce.nii.gz"), ("P2.nii.gz", "P1_seg.nii"), ["P1_seg.nii", "P2.nii.gz"]),
        (("P1/P1_t1c.nii.gz",), ("P1/seg.nii.gz",), ["P1/seg.nii.gz"]),
        (("P1_t1c.nii.gz",), ("sub/P1_t1c_label.nii.gz",), ["sub/P1_t1c_label.nii.gz"]),
        (("images/1.png",), ("1.png",), ["1.png"]),
        (("1.h5", "2.h5"), ("1.h5",), ["1.h5", None]),
        (("1.png", "2.png"), ("2.png",), [None, "2.png"]),
    ],
)
def test_masks_in_a_folder_match_by_path_then_by_name(
    tmp_path: Path, scans: tuple[str, ...], masks: tuple[str, ...], wanted: list[str | None]
) -> None:
    touch(tmp_path / "scans", *scans)
    folder = touch(tmp_path / "masks", *masks)
    scanned = scan([tmp_path / "scans"], options=ScanOptions(masks=folder))
    assert scanned.problems == ()
    for case, name in zip(scanned.cases, wanted, strict=True):
        if name is not None:
            assert case.reference is not None
            assert case.reference.path == folder / name
            assert case.notes == ()
        elif case.reference is not None:
            assert case.reference.path == case.first.path, "an HDF5 file may still hold its own"
        else:
            assert "no reference found" in case.notes[0]


def test_masks_named_by_the_user_replace_those_beside_the_scans(tmp_path: Path) -> None:
    touch(tmp_path, "scans/a.png", "scans/a_mask.png", "scans/mine/a.png")
    scanned = scan([tmp_path / "scans"], options=ScanOptions(masks=tmp_path / "scans/mine"))
    assert names(scanned) == ["a"]
    assert scanned.cases[0].reference is not None
    assert scanned.cases[0].reference.path == tmp_path / "scans/mine/a.png"
    assert scanned.problems == ()


def test_masks_in_the_folder_of_the_scans_are_told_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a_mask.png", "b.png")
    scanned = scan([tmp_path], options=ScanOptions(masks=tmp_path))
    assert found(scanned) == {"a": ({UNNAMED: "a.png"}, "a_mask.png"), "b": ({UNNAMED: "b.png"}, None)}


def test_a_single_mask_file_belongs_to_the_single_scan(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "drawn.png")
    scanned = scan([tmp_path], options=ScanOptions(masks=tmp_path / "drawn.png"))
    assert found(scanned) == {"a": ({UNNAMED: "a.png"}, "drawn.png")}


def test_a_bare_name_that_two_cases_share_pairs_with_neither(tmp_path: Path) -> None:
    touch(tmp_path, "scans/P1/1.png", "scans/P2/1.png", "masks/1.png")
    scanned = scan([tmp_path / "scans"], options=ScanOptions(masks=tmp_path / "masks"))
    assert [case.reference for case in scanned.cases] == [None, None]
    assert "Give the references the same folders as the scans" in str(scanned.problems[0])


def test_masks_that_match_nothing_are_counted_once(tmp_path: Path) -> None:
    touch(tmp_path, "scans/1.png", "masks/1.png", "masks/x.png", "masks/y.png")
    scanned = scan([tmp_path / "scans"], options=ScanOptions(masks=tmp_path / "masks"))
    (problem,) = scanned.problems
    assert "2 of 3 references match no scan, such as x.png" in problem.problem


@pytest.mark.parametrize("masks", ["nowhere", "empty"])
def test_a_masks_folder_without_masks_is_wrong_usage(tmp_path: Path, masks: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=masks):
        scan([touch(tmp_path / "scans", "a.png")], options=ScanOptions(masks=tmp_path / masks))


@pytest.mark.parametrize(
    ("stem", "base"),
    [
        ("a_mask", "a"),
        ("a-SEG", "a"),
        ("seg", ""),
        ("Labels", ""),
        ("a_segmentation", "a"),
        ("amask", None),
        ("gt", ""),
        ("a.gt", "a"),
        ("001_ground_truth", None),
        ("segment", None),
        ("mask_7", None),
    ],
)
def test_reference_names(stem: str, base: str | None) -> None:
    assert reference_base(stem) == base


def test_datasets_named_by_the_user_reach_the_sources(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan"] = np.zeros((4, 4), np.uint8)
    touch(tmp_path, "b.png")
    options = ScanOptions(image_dataset="scan", mask_dataset="drawn")
    first, second = scan([tmp_path], options=options).cases
    assert first.first.dataset == "scan"
    assert first.reference is not None
    assert first.reference.dataset == "drawn"
    assert second.first.dataset is None


# the walk


def test_an_empty_folder_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Looked for \.nii\.gz \.nii \.png .*DICOM"):
        scan([tmp_path])


@pytest.mark.parametrize("name", ["nowhere", "notes.txt"])
def test_an_input_that_is_no_scan_is_wrong_usage(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "notes.txt", "a.png")
    with pytest.raises(UsageError, match=name):
        scan([tmp_path / "a.png", tmp_path / name])


def test_a_folder_of_references_alone_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"only references such as a_mask\.png"):
        scan([touch(tmp_path, "a_mask.png")])


def test_links_are_followed_inside_the_input_only(tmp_path: Path) -> None:
    touch(tmp_path, "in/.store/x.png", "in/a.png", "out/b.png")
    try:
        (tmp_path / "in/inside.png").symlink_to(tmp_path / "in/.store/x.png")
        (tmp_path / "in/outside.png").symlink_to(tmp_path / "out/b.png")
        (tmp_path / "in/loop").symlink_to(tmp_path / "in")
        (tmp_path / "in/elsewhere").symlink_to(tmp_path / "out")
        (tmp_path / "in/broken.png").symlink_to(tmp_path / "in/gone.png")
    except OSError:
        pytest.skip("this system makes no links")
    scanned = scan([tmp_path / "in"])
    assert names(scanned) == ["a", "inside"]
    assert {problem.problem for problem in scanned.problems} == {
        "links that leave the folder are not followed: 2 (elsewhere, outside.png)",
        "links lead nowhere: 1 (broken.png)",
    }


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "locked/b.png")
    (tmp_path / "locked").chmod(0)
    try:
        scanned = scan([tmp_path])
    finally:
        (tmp_path / "locked").chmod(0o755)
    assert names(scanned) == ["a"]
    assert "permissions" in scanned.problems[0].remedy


# DICOM


def write_dicom(path: Path, series: str, number: int = 1) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientName = series, "MR", "Doe^Jane"
    dataset.Rows = dataset.Columns = 2
    dataset.InstanceNumber = number
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset)


def test_a_dicom_series_is_named_by_its_folder(tmp_path: Path) -> None:
    for number in (10, 2):
        write_dicom(tmp_path / f"P1/IM{number}", "1.2.3", number)
    touch(tmp_path, "P1/README", "P1/DICOMDIR")
    (case,) = scan([tmp_path]).cases
    assert case.name == "P1"
    assert [path.name for path in case.first.paths] == ["IM2", "IM10"]
    assert names(scan([tmp_path / "P1"])) == ["P1"], "also when given itself"


def test_several_series_in_a_folder_get_names_that_tell_nothing(tmp_path: Path) -> None:
    for series in ("1.2.3", "1.2.4"):
        write_dicom(tmp_path / f"P1/{series}.dcm", series)
    called = names(scan([tmp_path]))
    assert len(called) == 2
    assert all(name.startswith("P1/series-") and len(name) == len("P1/series-01234567") for name in called)


def test_series_in_folders_named_by_channel_make_one_case(tmp_path: Path) -> None:
    for folder, series in (("T1_Gd", "1.2.3"), ("FLAIR", "1.2.4")):
        write_dicom(tmp_path / f"P1/{folder}/1.dcm", series)
    touch(tmp_path, "P1/seg.nii.gz")
    (case,) = scan([tmp_path]).cases
    assert (case.name, list(case.channels)) == ("P1", ["t1ce", "flair"])
    assert case.reference is not None


@pytest.mark.parametrize("reference", ["P1/seg.nii.gz", "P1/dicom_mask.nii.gz", "P1/dicom/seg.nii.gz"])
def test_a_dicom_series_finds_its_reference(tmp_path: Path, reference: str) -> None:
    write_dicom(tmp_path / "P1/dicom/1.dcm", "1.2.3")
    write_dicom(tmp_path / "P2/dicom/1.dcm", "1.2.4")
    touch(tmp_path, reference)
    scanned = scan([tmp_path])
    assert [case.reference is not None for case in scanned.cases] == [True, False]
    assert scanned.problems == ()


def test_a_broken_dicom_file_is_a_problem_of_its_own(tmp_path: Path) -> None:
    write_dicom(tmp_path / "P1/1.dcm", "1.2.3")
    (tmp_path / "P1/2.dcm").write_bytes(b"no")
    scanned = scan([tmp_path])
    assert [len(case.first.paths) for case in scanned.cases] == [1]
    assert "2.dcm" in scanned.problems[0].where


# the house


def test_scanning_pictures_and_volumes_loads_no_library_that_reads_them(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b_t1.nii.gz", "c.h5")
    heavy = ("nibabel", "PIL", "pydicom", "h5py", "scipy", "torch", "onnxruntime")
    code = (
        "import sys; from pathlib import Path; from segtool.scan import scan; scan([Path(sys.argv[1])]);"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_formats_agree_on_which_of_them_hold_references() -> None:
    assert {name for name in FORMATS if get_format(name).may_hold_reference} == HOLD_REFERENCES


# real scans


@pytest.mark.parametrize(
    ("folder", "cases", "references", "channels"),
    [
        ("brats2018", 1, 1, {"t1", "t1ce", "t2", "flair"}),
        ("brats2015", 1, 1, {"t1ce", "flair"}),
        ("progression", 8, 8, {"t1ce"}),
        ("kaggle_3m", 12, 12, {"t1", "flair", "t1ce"}),
        ("cheng", 2628, 2628, {UNNAMED}),
        ("lgg_h5", 343, 343, {UNNAMED}),
        ("kaggle_coco", 2146, 2146, {UNNAMED}),
        ("dicom/structural_t1", 1, 0, {"t1"}),
    ],
)
def test_real_sets_are_understood(
    real_data: Path, folder: str, cases: int, references: int, channels: set[str]
) -> None:
    scanned = scan([real_data / folder])
    assert len(scanned.cases) == cases
    assert sum(case.reference is not None for case in scanned.cases) == references
    assert {name for case in scanned.cases for name in case.channels} == channels
    assert scanned.problems == ()
    assert len(set(names(scanned))) == cases
