"""ModelSpec: what a model file says about itself. The contract between inference, training and export.

It is stored as JSON inside the ONNX file (see :mod:`segtool.model_file`). The words follow MONAI's
``metadata.json`` where it has a word for the thing.
"""

import json
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from segtool.errors import ModelError
from segtool.geometry import ORIENTATIONS
from segtool.limits import DEFAULT_LIMITS
from segtool.spec_statistics import StatisticsSpec

SCHEMA = 5
"""Raised when an older segtool would misread a newer spec.

A spec is written with the lowest schema that can say what it says, so that models which use nothing new run on
older installations too. Schema 2 has thresholds and post-processing by label, test-time flips, and for 2D models the
crop to what is not 0 and statistics of whole volumes: a reader of schema 1 would give other labels without a word.
Schema 3 has cases that are one window, schema 4 labels with codes of their own, schema 5 statistics of the training
cases and a temperature for confidence.
"""

Plane = Literal["acquired", "axial", "coronal", "sagittal"]
"""Plane in which a volume is cut into slices."""

Byte = Annotated[int, Field(ge=0, le=255)]

Spacing = Annotated[float, Field(ge=0.01, le=1000)]
"""In mm, of what the network sees: a finer one would make more voxels of any scan than there is memory for."""

Flip = Literal["horizontal", "vertical", "depth"]
"""An axis of the network's input, counted from the last: columns, rows, and planes of a volume."""

FLIP_AXES: dict[Flip, int] = {"horizontal": -1, "vertical": -2, "depth": -3}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    _LATER: ClassVar[tuple[str, ...]] = ()
    """Fields of a schema after the first, written only where they say something."""

    @model_serializer(mode="wrap")
    def _without_unused(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            key: value
            for key, value in values.items()
            if key not in self._LATER or getattr(self, key) != fields[key].default
        }


class ChannelSpec(_Frozen):
    """One input channel.

    ``aliases`` are other names, compared without case, under which files carry this channel (``t1c``, ``T1Gd``).
    """

    name: Annotated[str, Field(min_length=1)]
    aliases: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """True where ``name`` is the channel's name or an alias, in any case."""
        return name.casefold() in {self.name.casefold(), *(alias.casefold() for alias in self.aliases)}


class Code(_Frozen):
    """A term of a coding scheme, as DICOM has it: ``108369006``, ``SCT``, ``Neoplasm``. Source: PS3.16, chapter 8."""

    value: Annotated[str, Field(min_length=1, max_length=16)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class LabelCode(_Frozen):
    """What a label is in the terms of DICOM, and the colour in which viewers show it.

    ``category`` is a term of CID 7150 (PS3.16), ``type`` one of CID 7151; ``colour`` is red, green and blue.
    """

    category: Code
    type: Code
    colour: tuple[Byte, Byte, Byte] | None = None


class LabelSpec(_Frozen):
    """One structure that the model segments.

    ``value`` is written into label maps. ``reference_values`` are the values that mean the same structure in
    references, ``value`` itself included; empty means every value that is not zero (binary references).
    ``threshold`` is the label's own, in place of the model's; :func:`segtool.postprocess.decide` says what it means.
    ``code`` is for results in DICOM; None for what the name is known to mean.
    """

    name: Annotated[str, Field(min_length=1)]
    value: Annotated[int, Field(ge=1, le=255)]
    reference_values: tuple[int, ...] = ()
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    code: LabelCode | None = None

    _LATER: ClassVar[tuple[str, ...]] = ("threshold", "code")


class IntensitySpec(_Frozen):
    """How intensities become what the network sees, channel by channel.

    1. Clip to ``percentiles`` of all voxels in scope (None: do not clip).
    2. Foreground: ``all`` voxels, ``nonzero`` voxels, or those ``above`` the low end by more than
       ``foreground_fraction`` of the clipped range.
    3. ``zscore`` subtracts the foreground's mean and divides by its standard deviation; ``minmax`` maps the
       clipped range to [0, 1]; ``none`` leaves the values.

    ``background`` says what voxels outside a ``nonzero`` foreground become: ``keep`` transforms them like the
    rest, ``zero`` sets them to 0, the mean of the foreground.

    ``scope`` is for 2D models: percentiles, mean and deviation are those of each ``slice`` as the network sees it,
    or those of the whole ``volume`` at its own resolution. Pictures are always normalised one by one.
    """

    kind: Literal["zscore", "minmax", "none"] = "zscore"
    percentiles: tuple[float, float] | None = None
    foreground: Literal["all", "nonzero", "above"] = "nonzero"
    foreground_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.05
    background: Literal["keep", "zero"] = "keep"
    scope: Literal["slice", "volume"] = "slice"

    _LATER: ClassVar[tuple[str, ...]] = ("scope",)


class SliceSpec(_Frozen):
    """Input of a 2D model.

    Every slice is normalised by itself, resized so that its longer side (in mm) fills ``size`` with its aspect
    ratio kept, and centred in a frame of ``size`` filled with its lowest value, or with 0 where the intensity's
    background is set to that. With ``crop_to_nonzero`` the box around all voxels that are not 0 in any channel or slice
    takes the place of the slice; of a stack, whose pictures are unrelated, each has a box of its own.

    ``plane`` is the plane in which volumes are cut: ``acquired`` is the one across the widest spacing; where
    spacings are equal, across the axis with the fewest voxels; where those are equal too, axial.
    """

    rank: Literal[2] = 2
    size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]
    plane: Plane = "acquired"
    fit: Literal["letterbox", "stretch"] = "letterbox"
    crop_to_nonzero: bool = False

    _LATER: ClassVar[tuple[str, ...]] = ("crop_to_nonzero",)


class VolumeSpec(_Frozen):
    """Input of a 3D model: reorient, crop to the non-zero box, normalise, resample, then windows of ``patch``.

    ``spacing_mm`` None keeps the scan's own spacing. ``overlap`` is the share of a patch that neighbours share.

    ``whole_case_voxels`` makes a case of at most that many voxels one window, whatever the patch, each axis filled up
    to what the network divides by. It is for networks whose answer does not hang on the window's extent: batch norm,
    or instance norm trained on whole cases. One of batch norm then answers nearly the same, several times as fast,
    since no voxel is seen twice. None cuts every case into windows.
    """

    rank: Literal[3] = 3
    patch: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]]
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    orientation: str = "RAS"
    spacing_mm: tuple[Spacing, Spacing, Spacing] | None = None
    crop_to_nonzero: bool = True
    whole_case_voxels: Annotated[int, Field(ge=1)] | None = None

    _LATER: ClassVar[tuple[str, ...]] = ("whole_case_voxels",)

    @field_validator("orientation")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ORIENTATIONS:
            raise ValueError(f"{value!r} is not an orientation such as 'RAS'")
        return value


class LabelRules(_Frozen):
    """How one label's voxels are cleaned, in this order, each rule only where set.

    Connected components are those of one label by face, edge and corner neighbours, in a volume or a picture.
    ``min_component_voxels`` removes smaller ones; ``min_component_share`` removes those below that share of the
    label's largest one; ``largest_component`` keeps one a label; ``fill_holes`` closes its cavities, except where
    another label lies in them.
    """

    min_component_voxels: Annotated[int, Field(ge=0)] = 0
    min_component_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    largest_component: bool = False
    fill_holes: bool = False


class PostprocessSpec(LabelRules):
    """The rules for every label, but for those in ``labels``, which have their own in place of all of these."""

    labels: dict[str, LabelRules] = {}

    _LATER: ClassVar[tuple[str, ...]] = ("labels",)

    def rules_of(self, label: str) -> LabelRules:
        """The rules for the label of that name."""
        general = LabelRules(**{name: getattr(self, name) for name in LabelRules.model_fields})
        return self.labels.get(label, general)


class ConfidenceSpec(_Frozen):
    """How far the model's probabilities can be believed, learnt on validation cases.

    Logits are divided by ``temperature`` before they say how sure the model is; label maps and saved probabilities are
    those of the logits as they are. ``ece_before`` and ``ece_after`` are the expected calibration error without and
    with it, near the structures of ``cases`` cases. (Guo et al., On Calibration of Modern Neural Networks, ICML 2017.)
    """

    temperature: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    ece_before: Annotated[float, Field(ge=0, le=1)] | None = None
    ece_after: Annotated[float, Field(ge=0, le=1)] | None = None
    cases: Annotated[int, Field(ge=0)] = 0


class ModelSpec(_Frozen):
    """Everything needed to run a model on scans and to know where it came from.

    The graph takes ``image`` float32 ``(N, C, *S)`` and gives ``logits`` float32 ``(N, K, *S)``. With ``sigmoid``
    there is one output channel a label, in the order of ``labels`` (regions may overlap: a later label is
    written over an earlier one). With ``softmax`` output channel 0 is background and channel ``i + 1`` is
    ``labels[i]``.

    With ``test_time_flips`` the network also sees its input flipped along every combination of these axes, and the
    probabilities, flipped back, are averaged.
    """

    KEY: ClassVar[str] = "segtool"
    _LATER: ClassVar[tuple[str, ...]] = ("test_time_flips", "statistics", "confidence")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    version: str = "1"
    description: str = ""
    channels: Annotated[tuple[ChannelSpec, ...], Field(min_length=1)]
    labels: Annotated[tuple[LabelSpec, ...], Field(min_length=1)]
    regions: dict[str, tuple[int, ...]] = {}
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    input: Annotated[SliceSpec | VolumeSpec, Field(discriminator="rank")]
    divisor: Annotated[int, Field(ge=1)] = 16
    intensity: IntensitySpec = IntensitySpec()
    postprocess: PostprocessSpec = PostprocessSpec()
    test_time_flips: tuple[Flip, ...] = ()
    statistics: StatisticsSpec | None = None
    confidence: ConfidenceSpec | None = None
    provenance: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_schema(cls, values: Any) -> Any:  # noqa: ANN401 - whatever is to be validated
        # What was written follows from the rest, see `schema_version`.
        return {k: v for k, v in values.items() if k != "schema"} if isinstance(values, dict) else values

    @model_serializer(mode="wrap")
    def _with_schema(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"schema": self.schema_version, **self._without_unused(handler)}

    @property
    def extent(self) -> tuple[int, ...]:
        """Of what the network sees at once: ``(h, w)`` of a slice, or the three of a window."""
        return self.input.size if self.input.rank == 2 else self.input.patch

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSpec":
        values = [label.value for label in self.labels]
        names = [c.name for c in self.channels], [label.name for label in self.labels]
        for what, items in (("label values", values), ("channel names", names[0]), ("label names", names[1])):
            if len(set(items)) != len(items):
                raise ValueError(f"{what} occur twice: {items}")
        for region, members in self.regions.items():
            if not members or not set(members) <= set(values):
                raise ValueError(f"region {region!r} names values {members}, but the labels are {values}")
        if any(n % self.divisor for n in self.extent):
            raise ValueError(f"the input {self.extent} does not divide by {self.divisor}")
        if math.prod(self.extent) * max(len(self.channels), self.output_channels) > DEFAULT_LIMITS.voxels:
            raise ValueError(f"an input of {self.extent} is more than {DEFAULT_LIMITS.voxels} voxels")
        if not set(self.postprocess.labels) <= set(names[1]):
            raise ValueError(f"post-processing of {list(self.postprocess.labels)}, but the labels are {names[1]}")
        if len(set(self.test_time_flips)) != len(self.test_time_flips) or (
            self.input.rank == 2 and "depth" in self.test_time_flips
        ):
            raise ValueError(f"test_time_flips {self.test_time_flips} are not different axes of the input")
        if self.statistics is not None and len(self.statistics.channels) != len(self.channels):
            raise ValueError(f"statistics of {len(self.statistics.channels)} channels, the model has {names[0]}")
        return self

    @property
    def schema_version(self) -> int:
        """The lowest schema that can say what this spec says, see :data:`SCHEMA`."""
        if self.statistics is not None or self.confidence is not None:
            return 5
        if any(label.code for label in self.labels):
            return 4
        if self.input.rank == 3 and self.input.whole_case_voxels is not None:
            return 3
        newer = (
            self.test_time_flips
            or self.postprocess.labels
            or any(label.threshold for label in self.labels)
            or self.intensity.scope != "slice"
            or (self.input.rank == 2 and self.input.crop_to_nonzero)
        )
        return 2 if newer else 1

    def in_windows(self) -> "ModelSpec":
        """The same without whole cases, for engines that take one extent; itself where there are none."""
        if self.input.rank == 2 or self.input.whole_case_voxels is None:
            return self
        return self.model_copy(update={"input": self.input.model_copy(update={"whole_case_voxels": None})})

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each label: its own, or else the model's."""
        return tuple(self.threshold if label.threshold is None else label.threshold for label in self.labels)

    @property
    def output_channels(self) -> int:
        """Channels of the logits: one a label, and one for background under softmax."""
        return len(self.labels) + (self.activation == "softmax")

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the input channels, in order."""
        return tuple(channel.name for channel in self.channels)

    def is_proved(self, engine: str, computing: str, version: str | None = None) -> bool:
        """Whether the export held this engine's masks, in this precision of its arithmetic, against the original's.

        Args:
            engine: Such as ``openvino``.
            computing: Such as ``bf16``, or ``int8+bf16`` of a file whose convolutions are in INT8.
            version: Of the engine, which must be the proved one up to its second number; None for any.
        """
        export = self.provenance.get("export")
        rows = export.get("proved_on") if isinstance(export, dict) else None
        return isinstance(rows, list) and any(
            isinstance(row, dict)
            and (row.get("engine"), row.get("computing"), row.get("passed")) == (engine, computing, True)
            and (version is None or str(row.get("version")).split(".")[:2] == version.split(".")[:2])
            for row in rows
        )

    def to_json(self) -> str:
        """Compact JSON; :meth:`from_json` gives an equal spec back."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "the model's spec") -> "ModelSpec":
        """Parse and check a spec.

        Args:
            text: JSON.
            where: What to call the source in an error, usually the file.

        Raises:
            ModelError: Not JSON, of a newer schema, or not valid; the line names the first fault.
        """
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{where}: the spec is not JSON ({error})", "Export the model again.") from error
        schema = raw.get("schema", 1) if isinstance(raw, dict) else 1
        if type(schema) is not int or schema < 1:
            raise ModelError(
                f"{where}: the spec has schema {schema!r}, wanted a number from 1 to {SCHEMA}",
                "Export the model again.",
            )
        if schema > SCHEMA:
            raise ModelError(
                f"{where}: the spec has schema {schema}, this segtool reads up to {SCHEMA}",
                "Update with: pip install -U segtool",
            )
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "spec"
            raise ModelError(
                f"{where}: the spec is not valid at {place!r} ({first['msg']})", "Export the model again."
            ) from error
