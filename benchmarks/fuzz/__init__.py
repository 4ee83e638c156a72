"""Fuzzing of every reader: ``python -m benchmarks.fuzz TARGET... [--inputs 100000] [--seed 0]``.

Half of the inputs come from hypothesis, whose strategies choose structures and values; half from atheris (libFuzzer),
which keeps what reached new lines of ours. Each engine runs in a process of its own, so that a crash inside a C library
is a finding and not the end; the bytes of every finding are kept below ``--findings``. Only a
:class:`~segtool.errors.SegtoolError` may come out of a reader, in :data:`SECONDS` and with at most :data:`GROWTH_MB`
of memory more than before. Inputs lie in memory (``/dev/shm``).

**A target** is a class in a module ``benchmarks/fuzz/NAME_targets.py``, listed in :data:`TARGETS`::

    from benchmarks.fuzz.target import Target          # defaults for everything but seeds, mutate and read
    from segtool.formats.png import PictureFormat      # at the top: what is imported there is instrumented

    class Png(Target):
        suffix = ".png"                                # of the file that read is given
        instrument = ("segtool.formats", "PIL.PngImagePlugin")      # packages whose lines guide atheris
        fixed = ("a zTXt chunk of 1 GB was unpacked: a LimitError now",)    # findings that were mended, a line each

        def seeds(self) -> list[bytes]:                # real files, small: below 50 kB each
        def mutate(self, data: bytes, choices: Choices) -> bytes | None:
            # ONE change that knows the structure; None where ``data`` has none left (bytes are then changed blindly)
        def read(self, path: Path) -> object:          # as predict does: describe, read_image, read_labels
            source = Source("png", (path,), limits=self.limits)
            return all_of(lambda: form.describe(source), lambda: form.read_image(source))   # each is tried

``choices`` (``whole(low, high)``, ``one(options)``, ``content(most)``) is hypothesis or a seeded generator, so use no
other randomness. Ready-made changes lie in :mod:`benchmarks.fuzz.mutations`: ``set_field`` (a number in a header
becomes 0, -1, the largest, NaN, off by one ...), ``shuffle`` (chunks dropped, doubled, swapped, cut short) and
``havoc``. ``self.limits`` are small :class:`~segtool.limits.Limits`, so that an input that takes much memory is one
that got past them. Where one input is several files, override ``place(folder, data) -> Path``; the folder is new for
each process and its files stay between inputs. A ``MemoryError`` behind an error, though caught, is a finding too:
memory was asked for before the claim was checked.

Figures of runs elsewhere are put together by ``python -m benchmarks.fuzz --merge FILE.json...``.
"""

from typing import Any

SECONDS = 5.0
"""That one input may take."""
GROWTH_MB = 384.0
"""That the peak of the process may grow during one input."""
HEADROOM_MB = 1536.0
"""Of address space, above what the process has when the first input comes."""

TARGETS: dict[str, str] = {
    "png": "benchmarks.fuzz.picture_targets:Png",
    "jpeg": "benchmarks.fuzz.picture_targets:Jpeg",
    "tiff": "benchmarks.fuzz.picture_targets:Tiff",
    "masks": "benchmarks.fuzz.picture_targets:Masks",
    "nifti": "benchmarks.fuzz.nifti_targets:Nifti",
    "nifti_gz": "benchmarks.fuzz.nifti_targets:NiftiGz",
    "coco": "benchmarks.fuzz.coco_targets:Coco",
    "probabilities": "benchmarks.fuzz.nifti_targets:Probabilities",
    "hdf5": "benchmarks.fuzz.hdf5_targets:Hdf5",
    "matlab": "benchmarks.fuzz.hdf5_targets:Matlab",
    "onnx_metadata": "benchmarks.fuzz.model_targets:OnnxMetadata",
    "spec_json": "benchmarks.fuzz.model_targets:SpecJson",
    "recipe": "benchmarks.fuzz.model_targets:Recipe",
    "dataset_json": "benchmarks.fuzz.model_targets:DatasetJson",
    "report_json": "benchmarks.fuzz.model_targets:ReportJson",
    "patients_csv": "benchmarks.fuzz.model_targets:PatientsCsv",
    "dicom": "benchmarks.fuzz.dicom_targets:Dicom",
    "dicom_series": "benchmarks.fuzz.dicom_targets:DicomSeries",
    "dicom_compressed": "benchmarks.fuzz.dicom_targets:DicomCompressed",
    "dicom_seg": "benchmarks.fuzz.dicom_targets:DicomSeg",
    "rtstruct": "benchmarks.fuzz.dicom_targets:RtStruct",
    "dicomdir": "benchmarks.fuzz.dicom_targets:Dicomdir",
    "zip": "benchmarks.fuzz.archive_targets:Zip",
    "tar": "benchmarks.fuzz.archive_targets:Tar",
    "rules": "benchmarks.fuzz.archive_targets:Rules",
}


def run(scale: float = 1.0) -> dict[str, Any]:
    """All targets, 100,000 inputs each at ``scale`` 1, as plain JSON."""
    from benchmarks.fuzz.campaign import fuzz

    return fuzz(list(TARGETS), max(1, round(100_000 * scale)))
