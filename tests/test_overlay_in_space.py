"""However a scan lies in space, its label map lies over it: from file to file, for NIfTI and DICOM."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from tiny import bright_spec, write_model

from segtool.pipeline import PredictOptions, predict_folder
from segtool.spec import SliceSpec

BRIGHT, DARK = 1000, 100
FILES = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Slices of 24 x 24 reach the network pixel by pixel, so that the result must equal the bright block exactly.
    spec = bright_spec(input=SliceSpec(size=(24, 24), plane="acquired"), divisor=8)
    return write_model(tmp_path_factory.mktemp("model") / "bright.onnx", spec)


def rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """A proper rotation by three angles in radians."""
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


@st.composite
def blocks(draw: st.DrawFn) -> np.ndarray:
    """A volume ``(24, 24, 5)`` with a bright block somewhere, and one bright voxel in a corner of every slice."""
    volume = np.full((24, 24, 5), DARK, np.int16)
    i, j = draw(st.integers(0, 16)), draw(st.integers(0, 16))
    k = draw(st.integers(0, 3))
    volume[i : i + draw(st.integers(6, 8)), j : j + draw(st.integers(6, 8)), k : k + draw(st.integers(1, 2))] = BRIGHT
    volume[0, 0, :] = BRIGHT
    return volume


tilts = st.tuples(*[st.floats(-0.35, 0.35)] * 3)
spacings = st.tuples(st.sampled_from([0.5, 0.9, 1.0]), st.sampled_from([3.0, 5.5]))


@FILES
@given(blocks(), tilts, spacings, st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_nifti_of_any_axis_order_flip_tilt_and_spacing(
    model: Path,
    volume: np.ndarray,
    tilt: tuple[float, float, float],
    spacing: tuple[float, float],
    axes: list[int],
    flips: tuple[bool, bool, bool],
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = rotation(tilt) @ np.diag([spacing[0], spacing[0], spacing[1]])
    affine[:3, 3] = -30, 12, 7
    stored, placed = volume.transpose(axes), np.eye(4)
    placed[:3, :3], placed[:3, 3] = affine[:3, axes], affine[:3, 3]
    for axis, flip in enumerate(flips):
        if flip:
            stored = np.flip(stored, axis)
            placed[:3, 3] += placed[:3, axis] * (stored.shape[axis] - 1)
            placed[:3, axis] *= -1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scan.nii.gz"
        nib.save(nib.Nifti1Image(np.ascontiguousarray(stored), placed), path)
        report = predict_folder([path], PredictOptions(model=model, output=Path(folder) / "out"))
        assert not report.failures
        result = nib.load(Path(folder) / "out" / "scan.nii.gz")
        np.testing.assert_allclose(result.affine, placed, atol=1e-5)
        np.testing.assert_array_equal(np.asarray(result.dataobj), stored == BRIGHT)


def write_series(folder: Path, volume: np.ndarray, directions: np.ndarray, spacing: tuple[float, float]) -> None:
    """One file a slice of ``volume`` (columns, rows, slices); ``directions`` columns are LPS unit vectors."""
    series, frame = generate_uid(), generate_uid()
    for k in range(volume.shape[2]):
        data = pydicom.Dataset()
        data.SOPClassUID, data.SOPInstanceUID, data.Modality = MRImageStorage, generate_uid(), "MR"
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, generate_uid(), frame
        data.Rows, data.Columns = volume.shape[1], volume.shape[0]
        data.PixelSpacing = [spacing[0], spacing[0]]
        data.SliceThickness = spacing[1]
        data.ImageOrientationPatient = [f"{x:.10f}" for x in (*directions[:, 0], *directions[:, 1])]
        data.ImagePositionPatient = [f"{x:.8f}" for x in np.array([10, -20, 30]) + directions[:, 2] * spacing[1] * k]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 2, -50
        data.PixelData = np.ascontiguousarray(volume[:, :, k].T).tobytes()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = MRImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        # Names in another order than positions.
        data.save_as(folder / f"im{(k * 3) % 5}.dcm", enforce_file_format=True)


@FILES
@given(
    blocks(),
    tilts,
    spacings,
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1.0, 1.0])] * 2),
    st.booleans(),
)
def test_dicom_of_any_plane_tilt_and_slice_direction(
    model: Path,
    volume: np.ndarray,
    tilt: tuple[float, float, float],
    spacing: tuple[float, float],
    axes: list[int],
    signs: tuple[float, float],
    backwards: bool,
) -> None:
    directions = rotation(tilt)[:, axes] * np.array([*signs, 1.0])
    normal = np.cross(directions[:, 0], directions[:, 1])
    directions[:, 2] = -normal if backwards else normal
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "series"
        folder.mkdir()
        write_series(folder, volume, directions, spacing)
        report = predict_folder([folder], PredictOptions(model=model, output=Path(name) / "out"))
        assert not report.failures
        (path,) = (Path(name) / "out").rglob("*.nii.gz")
        result = nib.load(path)
        labels = np.asarray(result.dataobj)
        # Compare places, not indices: every labelled voxel's centre in RAS millimetres.
        found = np.argwhere(labels) @ result.affine[:3, :3].T + result.affine[:3, 3]
        index = np.argwhere(volume == BRIGHT) * np.array([spacing[0], spacing[0], spacing[1]])
        lps = index @ directions.T + np.array([10, -20, 30])
        wanted = lps * np.array([-1, -1, 1])
        order = [np.lexsort(np.round(points, 2).T) for points in (found, wanted)]
        np.testing.assert_allclose(found[order[0]], wanted[order[1]], atol=2e-2)
