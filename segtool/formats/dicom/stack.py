"""How the slices of a DICOM series stack into a volume, and which voxels of it are the pixels of which file."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segtool.case import Source
from segtool.errors import UnreadableFileError
from segtool.formats.arrays import AnyArray
from segtool.formats.dicom.checks import axes_of, check_repeated, counted, one_frame, sideways_of, where_of
from segtool.formats.dicom.repair import Floats, Indices, Layers, assembled, copied, evened, measured
from segtool.formats.dicom.slice import CONVERT, Slice, check_voxels
from segtool.geometry import Geometry
from segtool.limits import DEFAULT_LIMITS, Limits

SAME_POSITION_MM = 0.01
"""Slices closer than this lie in one place: none are that thin, and tags are rounded."""


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
            notes.append(f"{counted(same)} left out that repeat another one to the pixel")
        if unequal:
            notes.append(
                f"{counted(unequal)} left out whose position another one has with other pixels (kept: the first)"
            )
        return tuple(notes)


def stack_plan(source: Source) -> StackPlan:
    """How the files of a series stack, from their headers.

    Raises:
        UnreadableFileError: As for :func:`plan_of`; a file is broken or of another kind.
    """
    from segtool.formats.dicom.read import headers_of

    return plan_of(headers_of(source), lenient=source.lenient, limits=source.limits)


def plan_of(slices: Sequence[Slice], *, lenient: bool = False, limits: Limits = DEFAULT_LIMITS) -> StackPlan:
    """How slices stack into a volume.

    The affine follows from the positions: columns i, rows j and slices k, the latter in the direction of
    ``row x column``; DICOM's LPS becomes RAS. See PS3.3 C.7.6.2.1.1.

    Args:
        slices: Headers of the files, in their order.
        lenient: Make an even stack of slices that repeat, that are missing or unequally spaced, and of a tilted
            gantry.
        limits: What the volume may claim.

    Raises:
        UnreadableFileError: The slices do not form one even stack, and cannot or must not be repaired.
        LimitError: There are more voxels than ``limits`` allow.
    """
    first = slices[0]
    if len(slices) == 1 and not first.is_placed:
        only = np.zeros(1, np.intp)
        return StackPlan(Geometry.of_pixels(first.size), only, only, first.size, copied(1), np.zeros((1, 2)))
    axes = axes_of(slices)
    notes = one_frame(slices, lenient=lenient)
    # (N, 3): millimetres along the rows, along the columns and along the normal.
    places: Floats = np.linalg.solve(axes, np.array([s.position for s in slices], np.float64).T).T.astype(np.float64)
    order, position = _by_height(places)
    check_repeated(places, order, position, slices, lenient=lenient)
    kept = places[order]
    sideways = sideways_of(kept, slices, lenient=lenient)
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
    check_voxels(first.path, [int(length) for length in shape], "voxels in its series", limits)
    affine = np.eye(4)
    affine[:3, :2] = axes[:, :2] * (first.spacing[1], first.spacing[0])
    affine[:3, 2], affine[:3, 3] = axes @ step, axes @ begin
    affine[:2] *= -1
    try:
        geometry = Geometry.of_volume(shape, affine)
    except ValueError as error:
        raise UnreadableFileError(f"{where_of(slices)}: the header is no grid ({error})", CONVERT) from error
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


def _by_height(places: Floats) -> tuple[Indices, Indices]:
    """The first file of each position by height, and for each file which of these positions it has."""
    ascending = np.argsort(places[:, 2], kind="stable")
    is_next = np.diff(places[ascending, 2], prepend=-np.inf) >= SAME_POSITION_MM
    position = np.empty(len(places), np.intp)
    position[ascending] = np.cumsum(is_next) - 1
    order = np.full(int(is_next.sum()), len(places), np.intp)
    np.minimum.at(order, position, np.arange(len(places)))
    return order, position


def _layers(mm: Floats, slices: Sequence[Slice], *, lenient: bool) -> tuple[Layers, list[str]]:
    """How slices at these heights become an even stack, and what to say of it."""
    heights = measured(mm)
    if not heights.problem:
        return copied(len(mm)), []
    problem = f"{where_of(slices)}: {heights.problem}"
    add = "Add the missing slices" if heights.missing else "Export the series again"
    if heights.beyond_repair:
        raise UnreadableFileError(f"{problem}, {heights.beyond_repair}", f"{add}.")
    if not lenient:
        raise UnreadableFileError(problem, f"{add}, or pass --lenient to interpolate.")
    layers = evened(heights)
    if heights.is_whole:
        return layers, [f"{heights.missing} of {counted(len(layers.below))} interpolated: {heights.problem}"]
    apart = (mm[-1] - mm[0]) / (len(layers.below) - 1)
    return layers, [f"{counted(len(mm))} resampled onto {len(layers.below)}, {apart:.2f} mm apart: {heights.problem}"]
