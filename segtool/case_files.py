"""The files of one case's result: where they lie, how they are written and read back."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from segtool.case import CaseSource, LabelMap, Source
from segtool.errors import UnreadableFileError, UserError
from segtool.formats import SUFFIXES, get_format, label_reader, read_labels_on, suffix_of
from segtool.job import Job
from segtool.measurements import Measurements
from segtool.output_folder import refuse_to_leave, refuse_to_overwrite
from segtool.outputs import Result, get_output
from segtool.overlay import overlay_case
from segtool.predict_options import SAME, PredictOptions
from segtool.regrid import fit_labels
from segtool.scan.case_names import OVERLAYS, PROBABILITIES
from segtool.spec import ModelSpec

_READ_BACK = {"dicom-seg": "dicom-seg", "dicom-labelmap": "dicom-seg", "rtstruct": "rtstruct"}
"""Kinds of results whose reader the file's suffix does not tell."""


class CaseFiles:
    """Writes the results of cases below one output folder, in the kinds that were asked for.

    Args:
        spec: Of the model.
        model_sha256: Of its file; of several, joined with ``+``.
        options: What was asked for.
    """

    def __init__(self, spec: ModelSpec, model_sha256: str, options: PredictOptions) -> None:
        self._spec, self._sha256, self._options = spec, model_sha256, options

    def targets(self, source: CaseSource) -> dict[str, Path]:
        """The label maps of a case by their kind, each file once, in the order in which they were asked for.

        Raises:
            UnreadableFileError: The kind of file hangs on a header that cannot be read.
            OutputError: A link leads out of the output folder.
        """
        found: dict[Path, str] = {}
        for name in self._options.formats:
            if name == SAME:
                suffix = get_format(source.first.format).output_suffix(source.first)
            else:
                suffix = get_output(name).suffix(source.first)
            found.setdefault(self._below(self._options.output / f"{source.output_stem}{suffix}"), name)
        return {name: path for path, name in found.items()}

    def picture(self, source: CaseSource) -> Path:
        """The picture with the contours.

        Raises:
            OutputError: A link leads out of the output folder.
        """
        return self._below(self._options.output / OVERLAYS / f"{source.output_stem}.png")

    def probabilities(self, source: CaseSource) -> Path:
        """The map of probabilities.

        Raises:
            OutputError: A link leads out of the output folder.
        """
        suffix = get_format(source.first.format).probabilities_suffix(source.first)
        return self._below(self._options.output / f"{source.output_stem}{PROBABILITIES}{suffix}")

    def _below(self, path: Path) -> Path:
        refuse_to_leave(path, self._options.output)
        return path

    def are_there(self, source: CaseSource) -> bool:
        """True where an earlier run has written everything that is asked for now, pictures aside."""
        try:
            targets = self.targets(source).values()
        except UserError:
            return False  # the run says what is wrong with it
        wanted = [*targets, *([self.probabilities(source)] if self._options.save_probabilities else [])]
        return all(map(_has_content, wanted))

    def read_back(self, source: CaseSource) -> LabelMap:
        """The label map of an earlier run, on the grid of the scan.

        Raises:
            CaseError: No kind of result that was asked for can be read, or it is no result.
        """
        # DICOM results last: they have no slices that reading made up, and fractional ones no labels.
        for name, path in sorted(self.targets(source).items(), key=lambda target: target[0] in _READ_BACK):
            kind = _READ_BACK.get(name) or SUFFIXES.get(suffix_of(path), "")
            if path.is_file() and kind and (name in _READ_BACK or kind != "dicom"):
                return self._on_grid(source, kind, path)
        raise UnreadableFileError(f"case {source.name!r}: no result that can be read", "Leave --continue out.")

    def _on_grid(self, source: CaseSource, kind: str, path: Path) -> LabelMap:
        written = Source(kind, (path,))
        if kind not in _READ_BACK.values():
            labels = label_reader(kind).read_labels(written)
            assert labels is not None
            return labels
        grid = get_format(source.first.format).describe(source.first).geometry
        labels = read_labels_on(written, grid)
        assert labels is not None
        # What was repaired lies on another grid than its images, so not strictly, and a corrected tilt made it larger.
        return fit_labels(labels, grid, names=("result", "scan"), where=str(path), strict=False, is_part=True)[0]

    def write(self, job: Job, measured: Mapping[str, Measurements] | None = None) -> tuple[Path, ...]:
        """Write all files of a finished case; its label maps last, because they say that the case is finished.

        Where a kind cannot be written, such as DICOM SEG of a NIfTI scan, the others are.

        Args:
            job: Of the case.
            measured: What its label map measures, where that is known.

        Returns:
            The label maps.

        Raises:
            CaseError: A scan can no longer be read.
            OutputError: A file cannot be written; the first such error, after all others have been tried.
        """
        assert job.case is not None
        assert job.label_map is not None
        case, source = job.case, job.source
        targets = self.targets(source)
        for path in targets.values():
            refuse_to_overwrite(path, source)
        if self._options.save_probabilities:
            assert job.probabilities is not None
            kind = get_format(source.first.format)
            kind.write_probabilities(self.probabilities(source), job.probabilities, case.geometry, source.first)
        if self._options.overlay:
            overlay_case(self.picture(source), case, job.label_map)
        result = Result(
            name=source.name,
            source=source.first,
            label_map=job.label_map,
            spec=self._spec,
            model_sha256=self._sha256,
            probabilities=job.probabilities if self._options.save_probabilities else None,
            anonymise=self._options.anonymise,
            measured=measured,
        )
        first: UserError | None = None
        for name, path in reversed(targets.items()):
            try:
                if name == SAME:
                    get_format(source.first.format).write_labels(path, job.label_map, source.first)
                else:
                    get_output(name).write(path, result)
            except UserError as error:
                first = error
        job.warnings += result.warnings
        if first is not None:
            raise first
        return tuple(targets.values())


def _has_content(path: Path) -> bool:
    """True for a folder, and for a file with something in it: a power cut may leave the name alone."""
    try:
        return path.is_dir() or path.stat().st_size > 0
    except OSError:
        return False


def stamp_of(source: CaseSource, fleeting: Collection[Path] = ()) -> str:
    """Digest of names, sizes and times (to the second) of the images of a case: another one where they have changed.

    Args:
        source: The case.
        fleeting: Folders whose files have no times of their own, because they were just unpacked.
    """
    digest = hashlib.blake2b(digest_size=8)
    for channel, one in source.channels.items():
        digest.update(f"{channel} {one.dataset} {one.index}".encode(errors="surrogatepass"))
        for path in one.paths:
            try:
                found = path.stat()
            except OSError:
                continue  # reading it says so
            is_fleeting = any(path.is_relative_to(folder) for folder in fleeting)
            written = 0 if is_fleeting else int(found.st_mtime)
            digest.update(f"{path.name} {found.st_size} {written}".encode(errors="surrogatepass"))
    return digest.hexdigest()
