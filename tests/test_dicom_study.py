"""A study as it lies in an archive: through the whole product, and what leaves the headers."""

import json
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_series import saved, write_series
from hospital import Study, write_study
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage
from shell import Answer, segtool
from tiny import T1CE, volume_spec, write_model

from segtool.case import Source
from segtool.formats import label_reader
from segtool.geometry import Geometry
from segtool.spec import ChannelSpec, IntensitySpec

CHANNELS = ("t1", "t1ce", "t2", "flair")
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)
PLANES = {
    "axial": (1, 0, 0, 0, 1, 0),
    "axial, feet first": (1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, -1),
    "coronal, from behind": (-1, 0, 0, 0, 0, -1),
    "sagittal": (0, 1, 0, 0, 0, -1),
    "sagittal, from the left": (0, -1, 0, 0, 0, -1),
    "oblique": OBLIQUE,
    "oblique, the other way": (*(-x for x in OBLIQUE[:3]), *OBLIQUE[3:]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels what is bright in the series with contrast."""
    spec = volume_spec(16, CHANNELS, intensity=IntensitySpec(kind="minmax"))
    spec = spec.model_copy(
        update={"channels": tuple(T1CE if name == "t1ce" else ChannelSpec(name=name) for name in CHANNELS)}
    )
    return write_model(tmp_path_factory.mktemp("model") / "four.onnx", spec, np.array([[0, 1, 0, 0]]))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("in") / "GEHEIM_GERDA_19610203")


@pytest.fixture
def predict(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path):
    def run(*arguments: object, out: str = "out") -> Answer:
        return segtool(capsys, "predict", *arguments, "-m", model, "-o", tmp_path / out, "--threads", 1)

    return run


def the_case(folder: Path) -> dict:
    (case,) = json.loads((folder / "report.json").read_text())["cases"]
    return case


def told(personal: Iterable[str], text: str) -> list[str]:
    """Which of the words a text tells."""
    words = {part for word in personal for part in (word, *word.replace("^", " ").split())}
    return sorted(word for word in words if len(word) > 2 and word.casefold() in text.casefold())


def test_the_sequences_of_a_study_find_their_channels_by_themselves(predict, study: Study, tmp_path: Path) -> None:
    answer = predict(study.folder)
    assert answer.code == 0, answer.out + answer.err
    case = the_case(tmp_path / "out")
    result = nibabel.load(tmp_path / "out" / case["output"])
    np.testing.assert_array_equal(np.asarray(result.dataobj), study.lesion)
    np.testing.assert_allclose(result.affine, study.affine, atol=1e-5)
    notes = " ".join(case["notes"])
    assert "t2 resampled onto t1" in notes
    assert "localizer" in notes


@pytest.mark.parametrize("plane", PLANES)
def test_seg_and_rtstruct_hold_the_voxels_of_the_nifti_result(predict, tmp_path: Path, plane: str) -> None:
    study = write_study(tmp_path / "in", axes=PLANES[plane])
    answer = predict(study.folder, "--format", "nifti,dicom-seg,dicom-labelmap,rtstruct,dicom-sr")
    assert answer.code == 0, answer.out
    outputs = {
        Path(name).name.partition(".")[2]: tmp_path / "out" / name for name in the_case(tmp_path / "out")["outputs"]
    }
    image = nibabel.load(outputs["nii.gz"])
    grid = Geometry.of_volume(image.shape, image.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj), study.lesion)
    for ending, path in outputs.items():
        if ending in ("nii.gz", "sr.dcm"):
            continue
        reader = label_reader("rtstruct" if "rtstruct" in ending else "dicom-seg")
        found = reader.read_labels_on(Source("dicom-seg", (path,)), grid)
        np.testing.assert_array_equal(found.labels, study.lesion, err_msg=ending)
        assert found.geometry.same_grid(grid)
    dataset = pydicom.dcmread(outputs["seg.dcm"])
    assert len(dataset.PerFrameFunctionalGroupsSequence) == 5  # slices with a lesion


def test_nothing_that_identifies_the_patient_leaves_the_headers(predict, study: Study, tmp_path: Path) -> None:
    (broken := study.folder.parent / "more").mkdir(exist_ok=True)
    kept = sorted(study.folder.iterdir())[0]
    cut = broken / "19610203_Gerda.dcm"
    cut.write_bytes(kept.read_bytes()[:600])
    answer = predict(study.folder.parent, "--overlay", "--format", "same")
    cut.unlink()
    names = " ".join(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*"))
    reports = "".join((tmp_path / "out" / name).read_text() for name in ("report.json", "report.csv"))
    for text in (answer.out, answer.err, names, reports):
        assert told(study.personal, text) == []
    assert "study-" in names


def test_other_kinds_of_files_of_the_patient_do_not_bear_the_name_either(predict, tmp_path: Path) -> None:
    write_series(tmp_path / "in" / "GEHEIM", np.ones((8, 8, 2), np.int16), ["a", "b"])
    for name in ("GEHEIM_GERDA.nii.gz", "Gerda_bad.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 2), np.int16), np.eye(4)), tmp_path / "in" / name)
    (tmp_path / "in" / "Gerda_bad.nii.gz").write_bytes(b"no image")
    answer = predict(tmp_path / "in")
    names = [case["name"] for case in json.loads((tmp_path / "out" / "report.json").read_text())["cases"]]
    assert told(["Geheim", "Gerda"], answer.out + answer.err + " ".join(names)) == []
    assert sum(name.startswith("case-") for name in names) == 2


@pytest.mark.parametrize("kind", ["report", "segmentation", "cut"])
def test_files_without_pixels_name_the_patient_too(
    predict, capsys: pytest.CaptureFixture[str], tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "in" / "Geheim Gerda"
    write_series(folder, np.ones((8, 8, 1), np.int16), ["19610203"])
    path = folder / "19610203"
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:520])
    else:
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID, dataset.Modality = {
            "report": (ComprehensiveSRStorage, "SR"),
            "segmentation": (SegmentationStorage, "SEG"),
        }[kind]
        for keyword in ("Rows", "Columns", "PixelData"):
            delattr(dataset, keyword)
        saved(path, dataset)
    answers = predict(tmp_path / "in"), segtool(capsys, "inspect", tmp_path / "in")
    for answer in answers:
        assert answer.code != 0
        assert told(["Geheim", "Gerda", "19610203"], answer.out + answer.err) == []


def test_the_name_of_a_case_is_the_same_in_every_run(predict, study: Study, tmp_path: Path) -> None:
    for out in ("one", "two"):
        predict(study.folder.parent, out=out)
    assert the_case(tmp_path / "one")["name"] == the_case(tmp_path / "two")["name"]


def test_identify_shows_the_names_of_folders(predict, study: Study, tmp_path: Path) -> None:
    predict(study.folder.parent, "--identify")
    assert "GEHEIM_GERDA_19610203" in the_case(tmp_path / "out")["output"]


def test_dicom_results_carry_the_patient_unless_told_not_to(predict, study: Study, tmp_path: Path) -> None:
    for out, flags in (("with", ()), ("without", ("--anonymise",))):
        predict(study.folder, "--format", "dicom-seg,rtstruct,dicom-sr", *flags, out=out)
        for name in the_case(tmp_path / out)["outputs"]:
            dataset = pydicom.dcmread(tmp_path / out / name)
            assert str(dataset.PatientName) == ("Geheim^Gerda" if out == "with" else "")
            if out == "without":
                assert told(study.personal, str(dataset)) == []


def test_equal_input_gives_equal_bytes(predict, study: Study, tmp_path: Path) -> None:
    kinds = ("--format", "nifti,dicom-seg,dicom-labelmap,rtstruct,dicom-sr")
    for out in ("one", "two"):
        predict(study.folder, *kinds, out=out)
    for name in the_case(tmp_path / "one")["outputs"]:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_study_in_an_archive_is_segmented_as_it_lies(
    predict, capsys: pytest.CaptureFixture[str], model: Path, study: Study, tmp_path: Path, kind: str
) -> None:
    archive = tmp_path / f"export.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for path in study.folder.iterdir():
                packed.write(path, f"A/{path.name}")
    else:
        with tarfile.open(archive, "w:gz") as packed:
            packed.add(study.folder, "A")
    answer = predict(archive)
    assert answer.code == 0, answer.out + answer.err
    result = nibabel.load(tmp_path / "out" / the_case(tmp_path / "out")["output"])
    np.testing.assert_array_equal(np.asarray(result.dataobj), study.lesion)
    seen = segtool(capsys, "inspect", archive, "-m", model)
    assert seen.code == 0, seen.out
    assert "1 case, 0 with a reference, 0 problems" in seen.out


def test_messages_call_an_archive_by_its_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_series(tmp_path / "in", np.ones((8, 8, 2), np.int16), ["a.dcm", "b.dcm"])
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as packed:
        packed.write(tmp_path / "in" / "a.dcm", "a.dcm")
        packed.writestr("b.dcm", (tmp_path / "in" / "b.dcm").read_bytes()[:300])
    answer = segtool(capsys, "inspect", tmp_path / "export.zip")
    assert answer.code == 1
    assert "export.zip/b.dcm: " in answer.out


def test_a_seg_beside_the_scan_is_its_reference(predict, study: Study, tmp_path: Path) -> None:
    predict(study.folder, "--format", "dicom-seg", out="first")
    (seg,) = (tmp_path / "first").rglob("*.seg.dcm")
    answer = predict(study.folder, seg)
    assert answer.code == 0, answer.out + answer.err
    assert the_case(tmp_path / "out")["scores"]["tumour"]["dice"] == 1.0


def test_evaluate_tells_no_more_of_the_patient(
    predict, capsys: pytest.CaptureFixture[str], study: Study, tmp_path: Path
) -> None:
    predict(study.folder, "--format", "dicom-seg", out="first")
    (seg,) = (tmp_path / "first").rglob("*.seg.dcm")
    for side in ("mine", "theirs"):
        (tmp_path / side / "Geheim_Gerda").mkdir(parents=True)
        (tmp_path / side / "Geheim_Gerda" / "19610203.dcm").write_bytes(seg.read_bytes())
    (tmp_path / "mine" / "Geheim_Gerda" / "alone.dcm").write_bytes(seg.read_bytes())
    answer = segtool(capsys, "evaluate", tmp_path / "mine", tmp_path / "theirs", "-o", tmp_path / "report")
    assert answer.code == 0, answer.out
    assert "1 of 1" in answer.out
    written = (tmp_path / "report" / "report.json").read_text() + (tmp_path / "report" / "report.csv").read_text()
    assert told(study.personal, answer.out + answer.err + written) == []


def test_two_studies_in_one_folder_are_two_cases(predict, tmp_path: Path) -> None:
    for number in (1, 2):
        one = write_study(tmp_path / f"in{number}", number=number)
        for path in one.folder.iterdir():
            (tmp_path / "all").mkdir(exist_ok=True)
            path.rename(tmp_path / "all" / f"{number}{path.name}")
    answer = predict(tmp_path / "all")
    assert answer.code == 0, answer.out + answer.err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["counts"]["done"] == 2


def test_inspect_prints_the_pairing_with_its_evidence(capsys: pytest.CaptureFixture[str], study: Study) -> None:
    answer = segtool(capsys, "inspect", study.folder)
    assert told(study.personal, answer.out + answer.err) == []
    for channel in CHANNELS:
        assert channel in answer.out
    assert "localizer" in answer.out
    assert "InversionTime" in answer.out
