"""Pictures for the eye: the grey slice with the reference's contour in green and the prediction's in red.

Where both contours share a pixel it is yellow. Volumes are shown in the plane across their widest spacing, as
radiologists look at them: the patient's right on the left side of the picture, front or head up.
"""

import itertools
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segtool.atomic import atomic_path
from segtool.case import Case, LabelMap
from segtool.geometry import Geometry
from segtool.metrics import Mask
from segtool.metrics import dice as dice_of
from segtool.preprocess import slice_orientation

Array = npt.NDArray[Any]
ByteArray = npt.NDArray[np.uint8]

# One byte a pixel: 252 greys, of which the last is white, and the colours. A palette picture is written in a
# fraction of the time of a coloured one.
WHITE, PREDICTION, REFERENCE, BOTH = 251, 252, 253, 254
_COLOURS = {PREDICTION: (255, 0, 0), REFERENCE: (0, 255, 0), BOTH: (255, 255, 0)}
_PALETTE = bytes(part for i in range(256) for part in _COLOURS.get(i, (min(255, round(i * 255 / WHITE)),) * 3))
PERCENTILES = (1.0, 99.0)
_GAP_PX = 4


def contour(labels: Array) -> Mask:
    """Pixels inside a structure with a face neighbour of another label, or at the edge of the picture.

    Args:
        labels: ``(H, W)`` boolean or integer; 0 is background.

    Returns:
        ``(H, W)``, one pixel wide around every structure.
    """
    padded = np.pad(labels, 1)
    centre = padded[1:-1, 1:-1]
    differs = (centre != padded[:-2, 1:-1]) | (centre != padded[2:, 1:-1])
    differs |= (centre != padded[1:-1, :-2]) | (centre != padded[1:-1, 2:])
    result: Mask = differs & (centre != 0)
    return result


def grey(image: Array) -> ByteArray:
    """Intensities ``(H, W)`` of any real type, the 1st to 99th percentile spread over 0 to :data:`WHITE`."""
    finite = image if image.dtype.kind in "biu" else image[np.isfinite(image)]
    if not finite.size:
        return np.zeros(image.shape, np.uint8)
    low, high = (float(value) for value in np.percentile(finite, PERCENTILES))
    if high <= low:
        # All but a hundredth of the pixels are equal: show what there is.
        low, high = float(finite.min()), float(finite.max())
    scale = WHITE / (high - low) if high > low else 0.0
    stretched = np.nan_to_num(image.astype(np.float32, copy=False))
    result: ByteArray = np.clip((stretched - np.float32(low)) * np.float32(scale), 0, WHITE).astype(np.uint8)
    return result


def draw(
    image: Array,
    prediction: Array,
    reference: Array | None = None,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
) -> ByteArray:
    """The overlay of one slice.

    Args:
        image: ``(H, W)``, any real type.
        prediction: Label map ``(H, W)``.
        reference: Label map ``(H, W)``, or None.
        spacing: Of rows and of columns; the picture is stretched so that its pixels are square.

    Returns:
        ``(H', W')``: greys up to :data:`WHITE`, and :data:`PREDICTION`, :data:`REFERENCE` and :data:`BOTH` on
        the contours. The axis with the finer spacing keeps its pixels.

    Raises:
        ValueError: The shapes differ.
    """
    for labels in (prediction, reference):
        if labels is not None and labels.shape != image.shape:
            raise ValueError(f"a label map of {labels.shape} does not lie on a picture of {image.shape}")
    shape = tuple(max(1, round(n * mm / min(spacing))) for n, mm in zip(image.shape, spacing, strict=True))
    picture = grey(image)
    if shape != picture.shape:
        picture = np.array(Image.fromarray(picture).resize(shape[::-1], Image.Resampling.BILINEAR))
    found = contour(_stretched(prediction, shape))
    picture[found] = PREDICTION
    if reference is not None:
        wanted = contour(_stretched(reference, shape))
        picture[wanted] = REFERENCE
        picture[wanted & found] = BOTH
    return picture


def _stretched(labels: Array, shape: tuple[int, ...]) -> Array:
    """Labels by nearest pixel; contours are found afterwards, so that they stay one pixel wide."""
    if labels.shape == shape:
        return labels
    rows, columns = (
        ((np.arange(n) + 0.5) * have / n).astype(np.intp) for n, have in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def write_overlay(
    path: Path,
    image: Array,
    prediction: Array,
    reference: Array | None = None,
    *,
    spacing: tuple[float, float] = (1.0, 1.0),
    dice: float | None = None,
) -> None:
    """Write the overlay of one slice as PNG; arguments as for :func:`draw`, ``dice`` is printed in a corner.

    Raises:
        OutputError: The file cannot be written.
        ValueError: The shapes differ.
    """
    picture = draw(image, prediction, reference, spacing=spacing)
    _write(path, picture if dice is None else _with_dice(picture, dice))


def overlay_case(path: Path, case: Case, label_map: LabelMap, *, channel: int = 0) -> None:
    """Write the overlay of a case as PNG: the picture, or up to three slices of a volume or stack.

    The slice with most of the prediction (else of the reference, else the middle one) stands in the middle.
    With a reference, the Dice of everything that is not background is printed: of the whole picture or volume
    in the first panel, of each picture of a stack in its own.

    Args:
        path: Ends in ``.png``.
        case: Gives the image and, where it has one, the reference.
        label_map: The prediction, on the grid of the case.
        channel: Which channel to show.

    Raises:
        OutputError: The file cannot be written.
        ValueError: The shapes differ.
    """
    arrays = [case.data[channel], label_map.labels]
    if case.reference is not None:
        arrays.append(case.reference.labels)
    spacing = (1.0, 1.0)
    if case.geometry.kind == "image":
        arrays = [array[None] for array in arrays]
    elif case.geometry.kind == "volume":
        arrays, spacing = _slices_first(arrays, case.geometry)
    shown = choose_slices(*arrays[1:])
    panels = [draw(*(array[index] for array in arrays), spacing=spacing) for index in shown]
    if case.reference is not None:
        if case.geometry.kind == "stack":
            panels = [
                _with_dice(panel, _foreground_dice(*(array[index] for array in arrays[1:])))
                for panel, index in zip(panels, shown, strict=True)
            ]
        else:
            panels[0] = _with_dice(panels[0], _foreground_dice(*arrays[1:]))
    gap = np.zeros((panels[0].shape[0], _GAP_PX), np.uint8)
    row = list(itertools.chain.from_iterable((gap, panel) for panel in panels))[1:]
    _write(path, np.concatenate(row, axis=1))


def choose_slices(prediction: Array, reference: Array | None = None) -> tuple[int, ...]:
    """Up to three indices of the first axis, ascending: the fullest slice and one on either side.

    The neighbours lie a quarter of the structure's extent away, so that they show something else.
    """
    for labels in (prediction, reference):
        if labels is not None and (sizes := np.count_nonzero(labels, axis=(1, 2))).any():
            break
    else:
        return (prediction.shape[0] // 2,)
    fullest, step = int(sizes.argmax()), max(1, int(np.count_nonzero(sizes)) // 4)
    return tuple(index for index in (fullest - step, fullest, fullest + step) if 0 <= index < len(sizes))


def _slices_first(arrays: list[Array], geometry: Geometry) -> tuple[list[Array], tuple[float, float]]:
    """Volumes as ``(slices, rows, columns)``, radiologically; and the spacing of rows and columns."""
    move = geometry.reorientation_to(slice_orientation(geometry))
    _, rows_mm, columns_mm = geometry.moved(move).spacing_mm
    return [move.apply(array) for array in arrays], (rows_mm, columns_mm)


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default()


def _foreground_dice(prediction: Array, reference: Array) -> float:
    return dice_of(prediction != 0, reference != 0)


def _with_dice(panel: ByteArray, dice: float) -> ByteArray:
    """The panel with the number in its upper left corner; unchanged where it is NaN."""
    if not math.isfinite(dice):
        return panel
    picture = Image.fromarray(panel)
    # Two decimals are what the eye can check.
    pen, text = ImageDraw.Draw(picture), f"Dice {dice:.2f}"
    pen.rectangle(pen.textbbox((3, 2), text, font=_font()), fill=0)
    pen.text((3, 2), text, fill=WHITE, font=_font())
    return np.asarray(picture)


def _write(path: Path, panels: ByteArray) -> None:
    picture = Image.fromarray(panels)
    picture.putpalette(_PALETTE)
    with atomic_path(path) as temporary:
        # A picture to look at once is not worth the time of the best compression.
        picture.save(temporary, format="PNG", compress_level=1)
