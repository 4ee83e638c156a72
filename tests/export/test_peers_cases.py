"""Whole cases by MONAI and nnU-Net around the trained network: what they take, and the label maps that they write."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from finished_run import Finished

from benchmarks.random_run import write_random_run
from segtool.bench.peers import SegmentsCases
from segtool.bench.rows import Row
from segtool.case import CaseSource, Source
from segtool.errors import CaseError, MissingDependencyError, UsageError
from segtool.model_file import read_spec
from segtool.pipeline import PredictOptions, predict_folder
from segtool.scan import scan
from segtool.spec import ModelSpec
from segtool_export.peers_cases import CasePeer, check_installed, check_model, nifti_files
from segtool_export.peers_monai import MonaiPeer, monai_full
from segtool_export.peers_nnunet import dataset_of, nnunet, plans_of
from tests.tiny import volume_spec

# MONAI sets up all its readers, also those that are not asked for.
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")

SMALL = {"network.width": 4, "network.depth": 2, "spec.input.patch": [16, 16, 16]}
CHANNELS = ("t1", "t1ce", "t2", "flair")


@pytest.fixture(scope="module")
def run(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small 3D network."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_random_run("brats3d-light", folder, changes=SMALL)
    return folder


def write_case(folder: Path, spacing: float = 1.0) -> Path:
    """A box of noise in nothing, one file a channel, whose axes point to the left, back and top.

    One window covers the box: how tools place several is their own.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    affine = np.diag([-spacing, -spacing, spacing, 1.0])
    affine[:3, 3] = 12, 14, -9
    for name in CHANNELS:
        voxels = np.zeros((26, 30, 22), np.float32)
        voxels[3:19, 4:20, 2:18] = rng.uniform(100, 900, (16, 16, 16))
        nifti: Any = nibabel
        nifti.save(nifti.Nifti1Image(voxels, affine), folder / f"head_{name}.nii.gz")
    return folder


def segmented(peer: CasePeer, case: Path, target: Path) -> Any:
    """What the peer writes."""
    assert isinstance(peer, SegmentsCases)
    (source,) = scan([case], peer.spec).cases
    peer.segment(source, target)
    assert peer.network_s > 0
    return nibabel.load(target)


def agreement(found: Any, wanted: Path) -> float:
    """Share of voxels with the same label; both lie on the same grid."""
    ours: Any = nibabel.load(wanted)
    assert np.allclose(found.affine, ours.affine)
    labels = np.asarray(found.dataobj), np.asarray(ours.dataobj)
    assert len(np.unique(labels[0])) > 1
    return float((labels[0] == labels[1]).mean())


def test_monai_labels_as_segtool_does(run: Path, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case")
    model = run / "model.onnx"
    predict_folder([case], PredictOptions(model=model, output=tmp_path / "ours", device="cpu", threads=1))
    (ours,) = (tmp_path / "ours").rglob("*.nii.gz")
    peer = monai_full(Row(model, "cpu", None, 1, 1, "monai"))
    assert (peer.name, peer.precision) == ("monai", "fp32")
    assert agreement(segmented(peer, case, tmp_path / "theirs.nii.gz"), ours) > 0.999


def test_monai_brings_other_spacings_and_its_labels_back(run: Path, tmp_path: Path) -> None:
    case = write_case(tmp_path / "case", spacing=1.5)
    peer = MonaiPeer(Row(run / "model.onnx", "cpu", None, 2, 1, "monai-amp"), mixed=True)
    assert peer.precision == "bf16"
    found = segmented(peer, case, tmp_path / "theirs.nii.gz")
    scan_file: Any = nibabel.load(case / "head_t1.nii.gz")
    assert found.shape == scan_file.shape
    assert np.allclose(found.affine, scan_file.affine)


@pytest.mark.filterwarnings("default")  # of its dependencies
def test_nnunet_labels_as_segtool_does(run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    case = write_case(tmp_path / "case")
    model = run / "model.onnx"
    predict_folder([case], PredictOptions(model=model, output=tmp_path / "ours", device="cpu", threads=1))
    (ours,) = (tmp_path / "ours").rglob("*.nii.gz")
    (tmp_path / "theirs").mkdir()
    peer = nnunet(Row(model, "cpu", None, 1, 1, "nnunet"))
    assert (peer.name, peer.precision) == ("nnunet", "fp32")
    # It keeps logits in half precision.
    assert agreement(segmented(peer, case, tmp_path / "theirs" / "head.nii.gz"), ours) > 0.99
    with pytest.raises(UsageError, match="Pass --batch 1"):
        nnunet(Row(model, "cpu", None, 4, 1, "nnunet"))


def test_nnunet_is_planned_as_the_spec_says(run: Path) -> None:
    spec = read_spec(run / "model.onnx")
    volumes = check_model("nnU-Net", spec)
    configuration = plans_of(spec, volumes)["configurations"]["3d_fullres"]
    assert configuration["patch_size"] == [16, 16, 16]
    assert configuration["spacing"] == [1.0, 1.0, 1.0]
    assert len(configuration["normalization_schemes"]) == 4
    assert dataset_of(spec)["labels"] == {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    own = volumes.model_copy(update={"spacing_mm": None})
    with pytest.raises(UsageError, match="leave the tool out of --compare"):
        plans_of(spec, own)


def test_what_is_not_installed_is_named_with_its_remedy() -> None:
    with pytest.raises(MissingDependencyError, match="pip install nnunetv2"):
        check_installed("nnU-Net", "a_package_that_nobody_has", "nnunetv2")


def test_a_2d_model_is_refused(finished: Finished) -> None:
    with pytest.raises(UsageError, match="Compare a 3D model"):
        monai_full(Row(finished.run / "model.onnx", "cpu", None, 1, 1, "monai"))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"intensity": {"kind": "minmax"}}, "a z-score of what is not 0"),
        ({"activation": "sigmoid"}, "softmax over labels"),
        ({"labels": [{"name": "a", "value": 1}, {"name": "b", "value": 4}]}, "softmax over labels"),
        ({"test_time_flips": ["horizontal"]}, "no test-time flips"),
    ],
)
def test_models_that_tools_would_prepare_otherwise_are_refused(run: Path, changes: Any, problem: str) -> None:
    spec = read_spec(run / "model.onnx")
    other = ModelSpec.model_validate(spec.model_dump() | {"regions": {}} | changes)
    with pytest.raises(UsageError, match=problem):
        check_model("MONAI", other)


def test_tools_are_given_one_nifti_file_a_channel() -> None:
    spec = volume_spec(channels=("t1", "t2"))
    paths = [Path("a_t1.nii.gz"), Path("a_t2.nii.gz")]
    case = CaseSource("a", {"t2": Source("nifti", (paths[1],)), "t1": Source("nifti", (paths[0],))})
    assert nifti_files("nnU-Net", case, spec) == paths
    packed = CaseSource("a", {"": Source("nifti", (paths[0],))})
    dicom = CaseSource("a", {"t1": Source("dicom", (Path("1"),)), "t2": Source("dicom", (Path("2"),))})
    for other, problem in ((packed, "several in one"), (dicom, "this case is dicom")):
        with pytest.raises(CaseError, match=problem):
            nifti_files("nnU-Net", other, spec)
