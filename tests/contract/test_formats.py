"""What every format must do, over the table of formats."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from segtool.case import LabelMap, Source
from segtool.errors import GridError, OutputError, UnreadableFileError
from segtool.formats import FORMATS, SUFFIXES, get_format, suffix_of
from segtool.geometry import Geometry

VOXELS = np.random.default_rng(7).integers(0, 4000, (5, 4, 3)).astype(np.uint16)  # (I, J, K)
PICTURE = np.random.default_rng(8).integers(0, 255, (24, 18)).astype(np.uint8)  # (H, W)

_TURN = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
_TILT = np.array([[1.0, 0.0, 0.0], [0.0, 0.96, 0.28], [0.0, -0.28, 0.96]])


def affine_of(directions, spacing, origin):
    affine = np.eye(4)
    affine[:3, :3] = np.asarray(directions) * spacing
    affine[:3, 3] = origin
    return affine


AFFINES = {
    "RAS": affine_of(np.eye(3), (1, 1, 1), (0, 0, 0)),
    "LPS anisotropic": affine_of(np.diag([-1, -1, 1]), (0.5, 0.75, 6), (90, 120, -70)),
    "left-handed": affine_of(np.diag([-1, 1, 1]), (1, 2, 3), (5, -6, 7)),
    "sagittal": affine_of([[0, 0, 1], [1, 0, 0], [0, -1, 0]], (0.9, 0.9, 1.2), (-60, -100, 110)),
    "oblique": affine_of(_TURN @ _TILT, (0.7, 0.8, 2.5), (-33.3, 12.5, 41)),
    "oblique left-handed": affine_of(_TILT @ _TURN @ np.diag([1, 1, -1]), (0.7, 0.8, 2.5), (3, 1, -41)),
}


@dataclass(frozen=True)
class Sample:
    """A small real file: how it is written, what it must read as."""

    format: str
    write: Callable[[Path], tuple[Path, ...]]
    data: np.ndarray  # (C, *S)
    affine: np.ndarray | None = None

    def source(self, folder: Path) -> Source:
        return Source(self.format, self.write(folder))


def write_png(folder):
    Pillow.fromarray(PICTURE).save(folder / "a.png")
    return (folder / "a.png",)


def write_tiff_stack(folder):
    pages = [Pillow.fromarray(VOXELS[:, :, k]) for k in range(3)]
    pages[0].save(folder / "a.tif", save_all=True, append_images=pages[1:])
    return (folder / "a.tif",)


def write_nifti(affine):
    def write(folder):
        nibabel.save(nibabel.Nifti1Image(VOXELS, affine), folder / "a.nii.gz")
        return (folder / "a.nii.gz",)

    return write


def write_hdf5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = PICTURE
    return (folder / "a.h5",)


def write_hdf5_stack(folder):
    with h5py.File(folder / "stack.h5", "w") as file:
        file["images"] = np.stack([PICTURE] * 10)
    return (folder / "stack.h5",)


def write_matlab(folder):
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        file["cjdata/image"] = PICTURE.T.astype(np.int16)
        file["cjdata/PID"] = np.array([[49], [50]], np.uint16)
        file["cjdata/label"] = np.array([[2.0]])
    return (folder / "a.mat",)


def write_dicom(affine):
    """One file a slice, in an order and under names that have nothing to do with their place."""

    def write(folder):
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        sizes = np.linalg.norm(lps[:3, :3], axis=0)
        row, column = lps[:3, 0] / sizes[0], lps[:3, 1] / sizes[1]
        paths = []
        for k in (1, 2, 0):
            dataset = pydicom.Dataset()
            dataset.file_meta = pydicom.dataset.FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = MRImageStorage
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
            dataset.SeriesInstanceUID = "1.2.3"
            dataset.Modality, dataset.PatientName = "MR", "Nobody^Known"
            dataset.Columns, dataset.Rows = VOXELS.shape[:2]
            dataset.ImageOrientationPatient = [f"{value:.10f}" for value in (*row, *column)]
            dataset.ImagePositionPatient = [f"{value:.9f}" for value in lps[:3, 3] + k * lps[:3, 2]]
            dataset.PixelSpacing = [f"{sizes[1]:.9f}", f"{sizes[0]:.9f}"]
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
            dataset.PixelRepresentation = 0
            dataset.PixelData = VOXELS[:, :, k].T.tobytes()
            paths.append(folder / f"{len(paths)}.dcm")
            dataset.save_as(paths[-1], enforce_file_format=True)
        return tuple(paths)

    return write


def right_handed(affine):
    """Where this holds, the slices are already sorted along row x column."""
    return np.linalg.det(affine[:3, :3]) > 0


def reversed_slices(affine):
    flipped = affine.copy()
    flipped[:3, 3] += 2 * affine[:3, 2]
    flipped[:3, 2] *= -1
    return flipped


SAMPLES = {
    "png": Sample("png", write_png, PICTURE[np.newaxis]),
    "tiff stack": Sample("png", write_tiff_stack, np.moveaxis(VOXELS, -1, 0)[np.newaxis]),
    "hdf5": Sample("hdf5", write_hdf5, PICTURE[np.newaxis]),
    "hdf5 stack": Sample("hdf5", write_hdf5_stack, np.stack([PICTURE] * 10)[np.newaxis]),
    "matlab": Sample("matlab", write_matlab, PICTURE[np.newaxis].astype(np.int16)),
}
SAMPLES |= {
    f"nifti {name}": Sample("nifti", write_nifti(affine), VOXELS[np.newaxis], affine)
    for name, affine in AFFINES.items()
}
SAMPLES |= {
    f"dicom {name}": Sample("dicom", write_dicom(affine), VOXELS[np.newaxis], affine)
    if right_handed(affine)
    else Sample("dicom", write_dicom(affine), VOXELS[np.newaxis, ..., ::-1], reversed_slices(affine))
    for name, affine in AFFINES.items()
}
ONE_EACH = {"png": "png", "nifti": "nifti RAS", "hdf5": "hdf5", "matlab": "matlab", "dicom": "dicom RAS"}


@pytest.fixture(params=SAMPLES)
def sample(request):
    return SAMPLES[request.param]


@pytest.fixture(params=sorted(FORMATS))
def one_each(request):
    return SAMPLES[ONE_EACH[request.param]]


def labels_for(geometry):
    labels = np.random.default_rng(3).integers(0, 4, geometry.shape).astype(np.uint8)
    labels.flat[0] = 3
    return LabelMap(labels, geometry)


def written(sample, folder, label_map, source, name="out"):
    """The label map read back from what the format wrote."""
    form = get_format(sample.format)
    path = folder / "results" / f"{name}{form.output_suffix(source)}"
    form.write_labels(path, label_map, source)
    reader = SUFFIXES[suffix_of(path)]
    return path, get_format(reader).read_labels(Source(reader, (path,)))


def test_every_format_has_a_sample():
    assert {sample.format for sample in SAMPLES.values()} == set(FORMATS) == set(ONE_EACH)


def test_the_table_of_suffixes_is_what_the_formats_say():
    assert {suffix: name for name in FORMATS for suffix in get_format(name).suffixes} == SUFFIXES
    assert all(get_format(name).name == name for name in FORMATS)


def test_voxels_and_affine_are_those_that_were_written(sample, tmp_path):
    image = get_format(sample.format).read_image(sample.source(tmp_path))
    assert image.data.dtype == sample.data.dtype
    np.testing.assert_array_equal(image.data, sample.data)
    assert image.geometry.shape == sample.data.shape[1:]
    expected = np.eye(4) if sample.affine is None else sample.affine
    np.testing.assert_allclose(image.geometry.affine, expected, atol=1e-4)


def test_describe_agrees_with_read_image(sample, tmp_path):
    form, source = get_format(sample.format), sample.source(tmp_path)
    image, description = form.read_image(source), form.describe(source)
    assert description.geometry.shape == image.geometry.shape
    assert description.geometry.kind == image.geometry.kind
    np.testing.assert_array_equal(description.geometry.affine, image.geometry.affine)
    assert description.channels == len(image.data)
    assert description.dtype == image.data.dtype.name
    assert description.channel_names == image.channel_names


def test_details_identify_nobody(one_each, tmp_path):
    details = " ".join(get_format(one_each.format).describe(one_each.source(tmp_path)).details)
    assert "Nobody" not in details
    assert "1.2.3" not in details


def test_labels_come_back_with_the_source_s_grid(sample, tmp_path):
    source = sample.source(tmp_path)
    label_map = labels_for(get_format(sample.format).read_image(source).geometry)
    _, back = written(sample, tmp_path, label_map, source)
    assert back.labels.dtype == np.uint8
    np.testing.assert_array_equal(back.labels, label_map.labels)
    assert back.geometry.same_grid(label_map.geometry)
    np.testing.assert_allclose(back.geometry.affine, label_map.geometry.affine, atol=1e-5)


def test_an_empty_label_map_comes_back_empty(one_each, tmp_path):
    source = one_each.source(tmp_path)
    geometry = get_format(one_each.format).read_image(source).geometry
    label_map = LabelMap(np.zeros(geometry.shape, np.uint8), geometry)
    assert not written(one_each, tmp_path, label_map, source)[1].labels.any()


def test_the_same_labels_give_the_same_bytes(one_each, tmp_path):
    source = one_each.source(tmp_path)
    label_map = labels_for(get_format(one_each.format).read_image(source).geometry)
    first, _ = written(one_each, tmp_path, label_map, source, "first")
    second, _ = written(one_each, tmp_path, label_map, source, "second")
    assert first.read_bytes() == second.read_bytes()


def test_writing_leaves_only_the_result(one_each, tmp_path):
    source = one_each.source(tmp_path)
    path, _ = written(one_each, tmp_path, labels_for(get_format(one_each.format).read_image(source).geometry), source)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_probabilities_are_written_in_the_grid_of_the_source(sample, tmp_path):
    form, source = get_format(sample.format), sample.source(tmp_path)
    geometry = form.read_image(source).geometry
    probabilities = np.linspace(0, 1, 2 * int(np.prod(geometry.shape)), dtype=np.float32)
    probabilities = probabilities.reshape(2, *geometry.shape)
    path = tmp_path / "results" / f"p{form.probabilities_suffix(source)}"
    form.write_probabilities(path, probabilities, geometry, source)
    if path.suffix == ".npz":
        with np.load(path) as file:
            back = file["probabilities"]
    elif path.suffix == ".h5":
        with h5py.File(path) as file:
            back = file["probabilities"][()]
    else:
        image = get_format("nifti").read_image(Source("nifti", (path,)))
        assert image.geometry.same_grid(geometry)
        back = image.data
    np.testing.assert_allclose(back, probabilities, atol=3e-4)
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize("kept", ["nothing", "a byte", "the first half", "garbage"])
def test_a_broken_file_is_one_line_with_a_remedy(one_each, tmp_path, kept):
    source = one_each.source(tmp_path)
    content = source.path.read_bytes()
    broken = {
        "nothing": b"",
        "a byte": content[:1],
        "the first half": content[: len(content) // 2],
        "garbage": np.random.default_rng(1).bytes(3000),
    }
    source.path.write_bytes(broken[kept])
    with pytest.raises(UnreadableFileError, match="again") as caught:
        get_format(one_each.format).read_image(source)
    assert str(source.path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_never_a_crash(one_each, tmp_path):
    """Every length of a file gives an image or an UnreadableFileError, nothing else."""
    form, source = get_format(one_each.format), one_each.source(tmp_path)
    content = source.path.read_bytes()
    for length in range(0, len(content), max(1, len(content) // 97)):
        source.path.write_bytes(content[:length])
        for method in (form.read_image, form.describe, form.read_labels):
            try:
                method(source)
            except UnreadableFileError:
                continue


def test_flipped_bytes_are_never_a_crash(one_each, tmp_path):
    form, source = get_format(one_each.format), one_each.source(tmp_path)
    content = bytearray(source.path.read_bytes())
    random = np.random.default_rng(5)
    for _ in range(60):
        damaged = content.copy()
        for place in random.integers(0, min(len(content), 700), 3):
            damaged[place] = random.integers(256)
        source.path.write_bytes(damaged)
        for method in (form.read_image, form.describe):
            try:
                method(source)
            except UnreadableFileError:
                continue


def test_a_missing_file_is_named(one_each, tmp_path):
    source = Source(one_each.format, (tmp_path / f"gone{get_format(one_each.format).suffixes[0]}",))
    for method in (get_format(one_each.format).read_image, get_format(one_each.format).describe):
        with pytest.raises(UnreadableFileError, match="gone"):
            method(source)


def test_a_folder_called_like_a_file_is_unreadable(one_each, tmp_path):
    folder = tmp_path / f"a{get_format(one_each.format).suffixes[0]}"
    folder.mkdir()
    for method in (get_format(one_each.format).read_image, get_format(one_each.format).describe):
        with pytest.raises(UnreadableFileError):
            method(Source(one_each.format, (folder,)))


def test_a_failed_write_leaves_the_old_result(one_each, tmp_path, monkeypatch):
    form, source = get_format(one_each.format), one_each.source(tmp_path)
    label_map = labels_for(form.read_image(source).geometry)
    path, _ = written(one_each, tmp_path, label_map, source)
    before = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="free the space"):
        form.write_labels(path, label_map, source)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_is_a_file_cannot_be_written_to(one_each, tmp_path):
    form, source = get_format(one_each.format), one_each.source(tmp_path)
    label_map = labels_for(form.read_image(source).geometry)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="--output"):
        form.write_labels(tmp_path / "taken" / f"a{form.output_suffix(source)}", label_map, source)


def test_a_channel_that_is_not_there_is_an_error(one_each, tmp_path):
    source = one_each.source(tmp_path)
    beyond = Source(source.format, source.paths, index=1)
    for method in (get_format(one_each.format).read_image, get_format(one_each.format).describe):
        with pytest.raises(GridError, match="counted from 0"):
            method(beyond)


def test_threads_read_the_same_voxels(one_each, tmp_path):
    form, source = get_format(one_each.format), one_each.source(tmp_path)
    expected = form.read_image(source).data
    with ThreadPoolExecutor(4) as pool:
        for data in pool.map(lambda _: form.read_image(source).data, range(80)):
            np.testing.assert_array_equal(data, expected)


def test_geometry_of_samples_is_what_the_names_say():
    assert Geometry.of_volume((5, 4, 3), AFFINES["sagittal"]).orientation == "AIR"
    assert np.linalg.det(AFFINES["left-handed"][:3, :3]) < 0
    assert np.linalg.det(AFFINES["oblique left-handed"][:3, :3]) < 0
