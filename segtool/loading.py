"""From where a case lies to a case in memory: reads, binds channels by name, brings all onto one grid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segtool.case import UNNAMED, Case, CaseSource, Image, LabelMap, Source
from segtool.channels import canonical_channel
from segtool.errors import GridError, MissingChannelError, VoxelError
from segtool.formats import get_format, is_placed, read_labels_on
from segtool.geometry import Geometry
from segtool.regrid import fit_channel, fit_labels
from segtool.side_by_side import side_by_side
from segtool.spec import ChannelSpec, ModelSpec

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue, ITU-R BT.601."""

COLOURS = ("red", "green", "blue")
"""Channels of a model that takes pictures as networks for photographs do."""


@dataclass(frozen=True, eq=False)
class _Channel:
    """One channel of the model: ``data`` ``(*S)`` on ``geometry``.

    ``image`` and ``index`` say which channel of which file it is, where it is one as it lies.
    """

    name: str
    file: Path
    data: npt.NDArray[Any]
    geometry: Geometry
    image: Image | None = None
    index: int = 0


def load_case(source: CaseSource, spec: ModelSpec, *, strict: bool = False) -> Case:
    """Read a case as a model wants it.

    Channels are bound by name; each file is read once. Images on other grids than the model's first channel
    are resampled onto it through patient coordinates, and the case's notes say so.

    Args:
        source: Where the case lies.
        spec: The model.
        strict: Refuse whatever would need interpolation.

    Raises:
        UnreadableFileError: A file is broken.
        MissingChannelError: The model wants a channel that the case lacks, or that nothing tells apart.
        GridError: Images that do not fit together.
        VoxelError: NaN, infinite or constant voxels.
    """
    notes = list(source.notes)
    if UNNAMED in source.channels and len(source.channels) == 1:
        channels = _unnamed_channels(source.first, spec, strict, notes)
    else:
        channels = _named_channels(source, spec, notes)
    for channel in channels:
        _check_voxels(channel, notes)
    data = _on_one_grid(channels, strict, notes)
    image = channels[0].image
    frame = image.frame_of_reference if image and not source.first.lenient else ""
    reference, said = _read_reference(source, channels[0].geometry, strict, frame)
    notes += said
    return Case(source.name, data, channels[0].geometry, reference, tuple(notes))


def _read(source: Source) -> Image:
    return get_format(source.format).read_image(source)


def bind_channels(source: CaseSource, spec: ModelSpec) -> tuple[Source, ...]:
    """Where each channel of the model lies, found by its name.

    Raises:
        MissingChannelError: The case has none of that name.
    """
    bound = [_find(channel, tuple(source.channels)) for channel in spec.channels]
    missing = [c.name for c, name in zip(spec.channels, bound, strict=True) if name is None]
    if missing:
        raise _missing(f"case {source.name!r}", missing, source.channels)
    return tuple(source.channels[name] for name in bound if name is not None)


def _named_channels(source: CaseSource, spec: ModelSpec, notes: list[str]) -> list[_Channel]:
    bound = bind_channels(source, spec)
    whole = [replace(part, index=None) for part in bound]
    files = list(dict.fromkeys(whole))
    images = dict(zip(files, side_by_side(_read, files), strict=True))
    for file in files:
        names = [wanted.name for wanted, part in zip(spec.channels, whole, strict=True) if part == file]
        notes += [f"{', '.join(names)}: {note}" for note in images[file].notes]
    _check_frames([images[file] for file in whole], bound, spec, notes)
    return [
        _pick(images[file], part, wanted, notes) for wanted, part, file in zip(spec.channels, bound, whole, strict=True)
    ]


def _check_frames(images: Sequence[Image], parts: Sequence[Source], spec: ModelSpec, notes: list[str]) -> None:
    """Hold the channels' frames of reference against that of the first channel.

    Raises:
        GridError: Coordinates of one mean nothing in another, and nobody said to compare them all the same.
    """
    first = images[0].frame_of_reference
    for image, part, name in zip(images, parts, spec.channel_names, strict=True):
        other = image.frame_of_reference
        if not (first and other) or first == other:
            continue
        if not part.lenient:
            raise GridError(
                f"{part.path}: {name} has another frame of reference than {spec.channel_names[0]} "
                f"({other[:8]}, not {first[:8]}), so that their positions do not compare",
                "Register them onto each other, or pass --lenient where they are known to fit.",
            )
        notes.append(f"{name} has another frame of reference than {spec.channel_names[0]}; positions taken as they are")


def _find(channel: ChannelSpec, names: Sequence[str]) -> str | None:
    """The one of ``names`` that means ``channel``: by name, by alias, by a name everybody knows."""
    known = {canonical_channel(name) for name in (channel.name, *channel.aliases)} - {None}
    tests = (
        lambda name: name == channel.name,
        channel.is_called,
        lambda name: canonical_channel(name) in known,
    )
    return next((name for test in tests for name in names if test(name)), None)


def _missing(where: str, missing: Sequence[str], found: Iterable[str]) -> MissingChannelError:
    names = f"{missing[0]} image" if len(missing) == 1 else f"{', '.join(missing)} images"
    return MissingChannelError(
        f"{where} has no {names} (found: {', '.join(found)})",
        f"Name the files so that they end in _{missing[0]}, or pass --channel {missing[0]}=PATTERN.",
        missing[0],
    )


def _pick(image: Image, part: Source, wanted: ChannelSpec, notes: list[str]) -> _Channel:
    """The channel of a file that a layout names."""
    count = len(image.data)
    if part.index is None:
        if count == 1:
            return _Channel(wanted.name, part.path, image.data[0], image.geometry, image)
        name = _find(wanted, image.channel_names)
        if name is not None:
            index = image.channel_names.index(name)
        elif _is_colour(image, part.format):
            return _luminance(image, wanted.name, part.path, notes)
        else:
            raise _too_many(part.path, count, (wanted.name,))
    elif count == 1 and part.format == "png":
        # A picture whose red, green and blue are equal is read as grey: all its channels are that one.
        index = 0
    elif part.index < count:
        index = part.index
    else:
        raise MissingChannelError(
            f"{part.path}: {wanted.name} should be channel {part.index}, the file holds {count}",
            "Correct the channel names in dataset.json.",
        )
    return _Channel(wanted.name, part.path, image.data[index], image.geometry, image, index)


def _unnamed_channels(source: Source, spec: ModelSpec, strict: bool, notes: list[str]) -> list[_Channel]:
    """The model's channels in a file whose name says nothing about them."""
    image, file = _read(source), source.path
    notes += image.notes
    count, names = len(image.data), spec.channel_names
    if image.channel_names:
        found = [_find(channel, image.channel_names) for channel in spec.channels]
        missing = [name for name, have in zip(names, found, strict=True) if have is None]
        if missing:
            raise _missing(str(file), missing, image.channel_names)
        order = [image.channel_names.index(name) for name in found if name is not None]
    elif count == len(names):
        order = list(range(count))
        if count > 1 and strict:
            raise MissingChannelError(
                f"{file} holds {count} channels without names, and --strict takes none by position",
                "Name them in a dataset.json beside the file, or split the file.",
            )
        if count > 1:
            notes.append(f"{count} channels without names were taken as {', '.join(names)}")
    elif len(names) == 1 and _is_colour(image, source.format):
        return [_luminance(image, names[0], file, notes)]
    elif len(names) == 1 and _is_grey_thrice(image):
        order = [0]
    elif names == COLOURS and count == 1:
        order = [0, 0, 0]  # a grey picture is one whose red, green and blue are equal
    else:
        raise _too_many(file, count, names)
    return [
        _Channel(name, file, image.data[index], image.geometry, image, index)
        for name, index in zip(names, order, strict=True)
    ]


def _too_many(file: Path, count: int, names: Sequence[str]) -> MissingChannelError:
    """Nothing tells which of ``count`` channels the model's ``names`` are."""
    has = "is one image" if count == 1 else f"holds {count} channels in one file"
    wants = f"{has}, the model wants {len(names)} ({', '.join(names)})"
    if count == 1:
        remedy = f"Give one file a channel, with names that end in {', '.join(f'_{name}' for name in names)}."
    else:
        remedy = (
            f"Split it into files whose names end in _{names[0]} and the like, "
            "or name its channels in a dataset.json beside it."
        )
    return MissingChannelError(f"{file}: {wants}", remedy)


def _is_colour(image: Image, kind: str) -> bool:
    """True for red, green and blue. Three channels of HDF5 may as well be three sequences."""
    return len(image.data) == 3 and kind == "png"


def _is_grey_thrice(image: Image) -> bool:
    """True for a grey picture that software stored in red, green and blue."""
    return len(image.data) == 3 and bool((image.data[1:] == image.data[0]).all())


def _luminance(image: Image, name: str, file: Path, notes: list[str]) -> _Channel:
    """Grey as the eye weighs colours, float32."""
    notes.append("colour picture: its luminance was taken")
    grey = np.tensordot(_LUMINANCE, image.data.astype(np.float32, copy=False), axes=1)  # (3, *S) -> (*S)
    return _Channel(name, file, grey, image.geometry)


def _check_voxels(channel: _Channel, notes: list[str]) -> None:
    """NaN and infinity show in the extremes, so that no array of flags is needed.

    Raises:
        VoxelError: Not finite, or a volume of one value. A picture may be blank: sets of slices hold such beyond
            the head.
    """
    low, high = channel.data.min(), channel.data.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        nan, bad = int(np.isnan(channel.data).sum()), int((~np.isfinite(channel.data)).sum())
        kinds = [f"{nan} NaN"] * bool(nan) + [f"{bad - nan} infinite"] * bool(bad - nan)
        raise VoxelError(
            f"{channel.file}: {' and '.join(kinds)} {'voxel' if bad == 1 else 'voxels'} in {channel.name}",
            "Replace them in the file, for instance with 0.",
        )
    if low == high and channel.geometry.kind != "volume":
        notes.append(f"every pixel of {channel.name} is {low:g}")
    elif low == high:
        raise VoxelError(
            f"{channel.file}: every voxel of {channel.name} is {low:g}",
            "Check that the file holds a scan, or leave it out.",
        )


def _on_one_grid(channels: Sequence[_Channel], strict: bool, notes: list[str]) -> npt.NDArray[Any]:
    """``(C, *S)`` on the grid of the first channel; a view of the file's array where that is possible."""
    first = channels[0]
    if first.image is not None and all(channel.image is first.image for channel in channels):
        order = [channel.index for channel in channels]
        if order == list(range(order[0], order[0] + len(order))):
            return first.image.data[order[0] : order[0] + len(order)]
        return first.image.data[order]
    if len(channels) == 1:
        return first.data[np.newaxis]
    fitted = [first.data]
    for channel in channels[1:]:
        array, said = fit_channel(
            channel.data,
            channel.geometry,
            first.geometry,
            names=(channel.name, first.name),
            where=str(channel.file),
            strict=strict,
        )
        fitted.append(array)
        notes += said
    dtype = np.result_type(*fitted)
    # int32 beside float32 would make float64: twice the memory for digits no scanner measures.
    narrow = np.dtype(np.float32) if dtype == np.float64 else dtype
    return np.stack(fitted, dtype=narrow, casting="same_kind")


def load_reference(source: CaseSource, geometry: Geometry, *, strict: bool = False) -> LabelMap | None:
    """Read the reference of a case alone.

    Args:
        source: Where the case lies.
        geometry: Grid onto which to bring the reference, that of the scan.
        strict: Refuse whatever would need interpolation.

    Returns:
        The label map on ``geometry``; None where the case has none.

    Raises:
        UnreadableFileError: The file is broken or holds no labels.
        GridError: The reference does not fit ``geometry``.
    """
    return _read_reference(source, geometry, strict)[0]


def _read_reference(
    source: CaseSource, geometry: Geometry, strict: bool, frame_of_reference: str = ""
) -> tuple[LabelMap | None, tuple[str, ...]]:
    if source.reference is None:
        return None, ()
    read = read_labels_on(source.reference, geometry, frame_of_reference)
    if read is None:
        return None, ()
    where, is_part = str(source.reference.path), is_placed(source.reference.format)
    fitted, said = fit_labels(read, geometry, names=("reference", "scan"), where=where, strict=strict, is_part=is_part)
    return fitted, (*read.notes, *said)
