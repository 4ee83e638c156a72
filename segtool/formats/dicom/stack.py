"""How the slices of a DICOM series stack into a volume, and which voxels of it are the pixels of which file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segtool.case import Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.repair import Floats, Indices, Layers, assembled, copied, evened, measured, tolerance_mm
from segtool.formats.dicom.slice import CONVERT, Slice
from segtool.geometry import Geometry

SAME_POSITION_MM = 0.01
"""Slices closer than this lie in one place: none are that thin, and tags are rounded."""

MAX_TILT_DEGREES = 0.1
MAX_DRIFT = 0.5
"""A stack is upright where its slope is below the one, or its last slice lies less than the other, in pixels, beside
the first. Directions rounded to three decimals tilt it by 0.03 degrees."""

_HIGHEST_TILT_DEGREES = 45.0
"""No gantry tilts beyond 30."""

_SAME_DIRECTION = 1e-3
_SPLIT = "Split the series, for instance with dcm2niix"


@dataclass(frozen=True, eq=False)
class StackPlan:
    """Which file's pixels go where in the volume.

    Args:
        geometry: Grid ``(columns, rows, slices)``; of a picture ``(rows, columns)``.
        order: ``(M,)``, the files by height, the first of each position. Without repairs file ``paths[order[k]]`` is
            slice k.
        position: ``(N,)``, for each file where in ``order`` its position is.
        size: Rows and columns of a file.
        layers: Slices of the volume from those of the files.
        offset: ``(M, 2)``, row and column of the volume at which each file begins; not whole where a tilt was
            corrected.
        notes: What was repaired, as far as headers tell.
    """

    geometry: Geometry
    order: Indices
    position: Indices
    size: tuple[int, int]
    layers: Layers
    offset: Floats
    notes: tuple[str, ...] = ()

    @property
    def is_interpolated(self) -> bool:
        """True where voxels are not the pixels of the files; then they are float32."""
        return bool(self.layers.share.any() or self.offset.any() or len(self.layers.below) != len(self.order))

    def to_slices(self, labels: AnyArray) -> AnyArray:
        """The labels of each file's own pixels.

        Repairs are undone: interpolated slices are left out, tilted ones moved back by whole pixels, resampled ones
        taken from the nearest slice. Files that repeat a position get its labels.

        Args:
            labels: ``(columns, rows, slices)`` on ``geometry``; of a picture ``(rows, columns)``.

        Returns:
            ``(N, rows, columns)`` in the order of the files.

        Raises:
            ValueError: ``labels`` have another shape.
        """
        if labels.shape != self.geometry.shape:
            raise ValueError(f"labels of shape {labels.shape} on a grid of {self.geometry.shape}")
        if self.geometry.kind == "image":
            return labels[np.newaxis]
        rows, columns = self.size
        planes = labels.T
        parted = np.empty((len(self.position), rows, columns), labels.dtype)
        begins = np.rint(self.offset).astype(np.intp)
        for file, position in enumerate(self.position):
            top, left = begins[position]
            parted[file] = planes[self.layers.nearest[position], top : top + rows, left : left + columns]
        return parted

    def stacked(self, stack: AnyArray) -> tuple[AnyArray, tuple[str, ...]]:
        """The volume from the pixels of its files.

        Args:
            stack: ``(N, rows, columns)`` in the order of the files; its contents may be moved.

        Returns:
            ``(columns, rows, slices)`` of a volume, ``(rows, columns)`` of a picture, and what the report must say.
        """
        if self.geometry.kind == "image":
            return stack[0], ()
        notes = self.notes + self._of_repeated(stack)
        if self.is_interpolated:
            size = self.geometry.shape[1], self.geometry.shape[0]
            return assembled(stack, self.order, self.layers, self.offset, size).T, notes
        return in_order(stack, self.order).T if len(self.order) == len(stack) else stack[self.order].T, notes

    def _of_repeated(self, stack: AnyArray) -> tuple[str, ...]:
        first = self.order[self.position]
        repeated = np.flatnonzero(first != np.arange(len(first)))
        if not len(repeated):
            return ()
        unequal = sum(not np.array_equal(stack[file], stack[first[file]]) for file in repeated)
        same, notes = len(repeated) - unequal, []
        if same:
            notes.append(f"{_slices(same)} left out that repeat another one to the pixel")
        if unequal:
            notes.append(
                f"{_slices(unequal)} left out whose position another one has with other pixels (kept: the first)"
            )
        return tuple(notes)


def stack_plan(source: Source) -> StackPlan:
    """How the files of a series stack, from their headers.

    Raises:
        UnreadableFileError: As for :func:`plan_of`; a file is broken or of another kind.
    """
    from segtool.formats.dicom.read import read_header

    return plan_of([read_header(path) for path in source.paths], lenient=source.lenient)


def grid_of(slices: Sequence[Slice]) -> tuple[Indices, Geometry]:
    """Order and grid of slices that form one even stack; see :func:`plan_of`.

    Raises:
        UnreadableFileError: They do not.
    """
    plan = plan_of(slices)
    return plan.order, plan.geometry


def plan_of(slices: Sequence[Slice], *, lenient: bool = False) -> StackPlan:
    """How slices stack into a volume.

    The affine follows from the positions: columns i, rows j and slices k, the latter in the direction of
    ``row x column``; DICOM's LPS becomes RAS. See PS3.3 C.7.6.2.1.1.

    Args:
        slices: Headers of the files, in their order.
        lenient: Make an even stack of slices that repeat, that are missing or unequally spaced, and of a tilted
            gantry.

    Raises:
        UnreadableFileError: The slices do not form one even stack, and cannot or must not be repaired.
    """
    first = slices[0]
    if len(slices) == 1 and not first.is_placed:
        only = np.zeros(1, np.intp)
        return StackPlan(Geometry.of_pixels(first.size), only, only, first.size, copied(1), np.zeros((1, 2)))
    axes = _plane(slices)
    notes = _one_frame(slices, lenient=lenient)
    # (N, 3): millimetres along the rows, along the columns and along the normal.
    places: Floats = np.linalg.solve(axes, np.array([s.position for s in slices], np.float64).T).T.astype(np.float64)
    order, position = _by_height(places)
    _check_repeated(places, order, position, slices, lenient=lenient)
    kept = places[order]
    sideways = _sideways(kept, slices, lenient=lenient)
    offset, begin = np.zeros((len(order), 2)), kept[0].copy()
    if sideways:
        begin[:2] = kept[:, :2].min(axis=0)
        offset = (kept[:, :2] - begin[:2])[:, ::-1] / first.spacing
        notes.append(sideways)
    layers = copied(len(order))
    if len(order) == 1:
        step = np.array([0, 0, first.thickness])
    else:
        layers, said = _layers(kept[:, 2], slices, lenient=lenient)
        notes += said
        step = (kept[-1] - kept[0]) * ((0, 0, 1) if sideways else 1) / (len(layers.below) - 1)
    more = np.ceil(offset.max(axis=0) - 1e-6).astype(int)
    shape = (first.size[1] + more[1], first.size[0] + more[0], len(layers.below))
    affine = np.eye(4)
    affine[:3, :2] = axes[:, :2] * (first.spacing[1], first.spacing[0])
    affine[:3, 2], affine[:3, 3] = axes @ step, axes @ begin
    affine[:2] *= -1
    try:
        geometry = Geometry.of_volume(shape, affine)
    except ValueError as error:
        raise UnreadableFileError(f"{_where(slices)}: the header is no grid ({error})", CONVERT) from error
    return StackPlan(geometry, order, position, first.size, layers, offset, tuple(notes))


def in_order(stack: AnyArray, order: npt.NDArray[np.intp]) -> AnyArray:
    """``stack[order]`` along the first axis, moved within ``stack``, so that there is no second one in memory."""
    moved = np.zeros(len(order), bool)
    for start in range(len(order)):
        if moved[start] or order[start] == start:
            continue
        held, place = stack[start].copy(), start
        while order[place] != start:
            stack[place] = stack[order[place]]
            moved[place] = True
            place = order[place]
        stack[place] = held
        moved[place] = True
    return stack


def _where(slices: Sequence[Slice]) -> str:
    return f"{slices[0].path.parent}: series of {len(slices)} files"


def _slices(count: int) -> str:
    return f"{count} slice" if count == 1 else f"{count} slices"


def _plane(slices: Sequence[Slice]) -> Floats:
    """Unit vectors of rows, columns and normal as columns of a matrix, the same for all slices."""
    where = _where(slices)
    unplaced = sum(not s.is_placed for s in slices)
    if unplaced:
        raise UnreadableFileError(f"{where}: {unplaced} say nowhere in the patient they lie", "Leave them out.")
    sizes = sorted({s.size for s in slices})
    if len(sizes) > 1:
        found = " and ".join(f"{rows}x{columns}" for rows, columns in sizes[:2])
        more = f" and {len(sizes) - 2} sizes more" if len(sizes) > 2 else ""
        raise UnreadableFileError(f"{where}: slices of {found} pixels{more} in one series", "Leave out the localizers.")
    axes = np.array([(*(s.row or ()), *(s.column or ())) for s in slices], np.float64)
    turned = np.abs(axes - axes[0]).max(axis=1) > _SAME_DIRECTION
    if turned.any():
        raise UnreadableFileError(
            f"{where}: slices of several orientations in one series ({turned.sum()} unlike the first)",
            "Leave out the localizers.",
        )
    spacings = np.array([s.spacing for s in slices])
    unlike = np.abs(spacings / spacings[0] - 1).max(axis=1)
    if unlike.max() > _SAME_DIRECTION:
        found = " and ".join("x".join(f"{mm:g}" for mm in spacings[i]) for i in (0, int(unlike.argmax())))
        raise UnreadableFileError(f"{where}: slices of several pixel spacings in one series ({found} mm)", f"{_SPLIT}.")
    row, column = axes[0, :3], axes[0, 3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if abs(lengths[0] - 1) > 0.01 or abs(lengths[1] - 1) > 0.01 or abs(row @ column) > 0.01:
        raise UnreadableFileError(f"{where}: ImageOrientationPatient is not two perpendicular directions", CONVERT)
    normal = np.cross(row, column)
    return np.stack([row / lengths[0], column / lengths[1], normal / np.linalg.norm(normal)], axis=1)


def _one_frame(slices: Sequence[Slice], *, lenient: bool) -> list[str]:
    """What to say of slices whose coordinates have several origins."""
    frames = {s.frame_of_reference for s in slices} - {""}
    if len(frames) < 2:
        return []
    if not lenient:
        raise UnreadableFileError(
            f"{_where(slices)}: {len(frames)} frames of reference, whose positions do not compare",
            f"{_SPLIT}, or pass --lenient to take them as one.",
        )
    return [f"{len(frames)} frames of reference in one series were taken as one"]


def _by_height(places: Floats) -> tuple[Indices, Indices]:
    """The first file of each position by height, and for each file which of these positions it has."""
    ascending = np.argsort(places[:, 2], kind="stable")
    is_next = np.diff(places[ascending, 2], prepend=-np.inf) >= SAME_POSITION_MM
    position = np.empty(len(places), np.intp)
    position[ascending] = np.cumsum(is_next) - 1
    order = np.full(int(is_next.sum()), len(places), np.intp)
    np.minimum.at(order, position, np.arange(len(places)))
    return order, position


def _check_repeated(
    places: Floats, order: Indices, position: Indices, slices: Sequence[Slice], *, lenient: bool
) -> None:
    """Several files at one position are refused, unless they repeat each other and may be left out."""
    count = len(position) - len(order)
    if not count:
        return
    beside = np.abs(places[:, :2] - places[order[position], :2]).max()
    held = np.bincount(position)
    full = np.flatnonzero(held > 1)
    named = ", ".join(f"{places[order[i], 2]:.1f}" for i in full[:3])
    more = f" and {len(full) - 3} more" if len(full) > 3 else ""
    problem = (
        f"{_where(slices)}: {_slices(count)} at positions that another one has, at {named}{more} mm along the normal "
        "(several acquisitions)"
    )
    if beside > MAX_DRIFT * min(slices[0].spacing):
        raise UnreadableFileError(f"{problem}, up to {beside:.1f} mm beside it", f"{_SPLIT}.")
    if not lenient:
        raise UnreadableFileError(problem, f"{_SPLIT}, or pass --lenient to take the first file of each position.")


def _sideways(kept: Floats, slices: Sequence[Slice], *, lenient: bool) -> str:
    """What to say of slices that do not lie upon each other along the normal; empty where they do."""
    if len(kept) == 1:
        return ""
    drift = kept[-1, :2] - kept[0, :2]
    height = kept[-1, 2] - kept[0, 2]
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(drift), height)))
    line = kept[0, :2] + np.outer((kept[:, 2] - kept[0, 2]) / height, drift)
    off = float(np.linalg.norm(kept[:, :2] - line, axis=1).max())
    is_tilted = degrees > MAX_TILT_DEGREES and np.linalg.norm(drift) > MAX_DRIFT * min(slices[0].spacing)
    if off > tolerance_mm(height / (len(kept) - 1)):
        problem = f"slices do not lie on a straight line, but up to {off:.2f} mm beside it"
        repaired = f"slices that lay up to {off:.2f} mm beside a straight line were shifted in their plane"
    elif is_tilted:
        problem = f"the stack is tilted by {degrees:.2f} degrees against the normal of its slices (gantry tilt)"
        repaired = f"gantry tilt of {degrees:.2f} degrees corrected by shifting slices in their plane"
    else:
        return ""
    # (2,): how far the slices spread along rows and along columns, in pixels.
    spread = (kept[:, :2].max(axis=0) - kept[:, :2].min(axis=0)) / slices[0].spacing[::-1]
    if degrees > _HIGHEST_TILT_DEGREES or (spread > slices[0].size[::-1]).any():
        raise UnreadableFileError(f"{_where(slices)}: {problem}, too far to shift them upright", CONVERT)
    if not lenient:
        raise UnreadableFileError(f"{_where(slices)}: {problem}", "Pass --lenient to shift the slices upright.")
    return repaired


def _layers(mm: Floats, slices: Sequence[Slice], *, lenient: bool) -> tuple[Layers, list[str]]:
    """How slices at these heights become an even stack, and what to say of it."""
    heights = measured(mm)
    if not heights.problem:
        return copied(len(mm)), []
    problem = f"{_where(slices)}: {heights.problem}"
    add = "Add the missing slices" if heights.missing else "Export the series again"
    if heights.beyond_repair:
        raise UnreadableFileError(f"{problem}, {heights.beyond_repair}", f"{add}.")
    if not lenient:
        raise UnreadableFileError(problem, f"{add}, or pass --lenient to interpolate.")
    layers = evened(heights)
    if heights.is_whole:
        return layers, [f"{heights.missing} of {_slices(len(layers.below))} interpolated: {heights.problem}"]
    apart = (mm[-1] - mm[0]) / (len(layers.below) - 1)
    return layers, [f"{_slices(len(mm))} resampled onto {len(layers.below)}, {apart:.2f} mm apart: {heights.problem}"]
