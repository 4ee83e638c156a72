"""What the headers of a DICOM series say about how it was made."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SeriesFacts:
    """The acquisition, as the first header of a volume has it. Texts as they are there, without padding.

    Args:
        modality: Such as ``MR``.
        image_type: Such as ``("ORIGINAL", "PRIMARY", "M")``.
        series_description: Free text, which may name a patient: it is matched and never shown, but on request.
        protocol_name: Likewise.
        sequence_name: Such as ``*tir2d1_16``.
        scanning_sequence: Such as ``("SE", "IR")``.
        sequence_variant: Such as ``("SK", "SP")``.
        scan_options: Such as ``("FS",)``.
        acquisition_type: ``2D`` or ``3D``.
        contrast_agent: ContrastBolusAgent, free text.
        echo_time_ms: None where the header does not say; so all numbers.
        repetition_time_ms: See PS3.3 C.8.3.1.
        inversion_time_ms: Likewise.
        flip_angle_degrees: Likewise.
        diffusion_b_value: In s/mm2, of a diffusion series.
        body_part: Such as ``BRAIN``.
        series_number: Counts the series of a study.
        size: Rows, columns.
        spacing_mm: Distance of rows, of columns; None where unplaced.
        plane: ``axial``, ``coronal`` or ``sagittal``, the nearest one; empty where unplaced.
        personal: Words of the header that identify the patient, the study or the institution, lower-case. They
            serve to keep them out of names and messages.
    """

    modality: str = ""
    image_type: tuple[str, ...] = ()
    series_description: str = field(default="", repr=False)
    protocol_name: str = field(default="", repr=False)
    sequence_name: str = ""
    scanning_sequence: tuple[str, ...] = ()
    sequence_variant: tuple[str, ...] = ()
    scan_options: tuple[str, ...] = ()
    acquisition_type: str = ""
    contrast_agent: str = field(default="", repr=False)
    echo_time_ms: float | None = None
    repetition_time_ms: float | None = None
    inversion_time_ms: float | None = None
    flip_angle_degrees: float | None = None
    diffusion_b_value: float | None = None
    body_part: str = ""
    series_number: int | None = None
    size: tuple[int, int] = (0, 0)
    spacing_mm: tuple[float, float] | None = None
    plane: str = ""
    personal: frozenset[str] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, eq=False)
class DicomVolume:
    """One volume of a DICOM series: the files that stack into it, and what is known of them from headers alone.

    Args:
        paths: In natural order of their names.
        study: SHA-256 of the StudyInstanceUID, hexadecimal; empty where the header has none.
        series: Likewise of the SeriesInstanceUID.
        part: What tells the volume from others of its series, such as ``echo-2``; empty where there is but one.
        frame_of_reference: Likewise of the FrameOfReferenceUID.
        facts: The acquisition.
        set_aside: Why it is no scan to segment, such as ``localizer of 3 slices in 3 planes``; empty for scans.
    """

    paths: tuple[Path, ...]
    study: str
    series: str
    part: str
    frame_of_reference: str
    facts: SeriesFacts
    set_aside: str = ""

    @property
    def short_name(self) -> str:
        """``series-`` and 8 hexadecimal digits, with its part: fit for file names and messages."""
        return f"series-{self.series[:8]}" + (f"-{self.part}" if self.part else "")
