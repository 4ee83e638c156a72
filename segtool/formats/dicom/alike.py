"""Headers of many DICOM files. Those of a series are alike, so that one walk serves for all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segtool.formats.dicom.elements import Elements, Read, beginning, of_file, walk_to_pixels, walk_to_tag
from segtool.formats.dicom.walk import Wanted, Way

_MOST_LAYOUTS = 32
_MOST_HEADS = 4096
"""Kept at once, and elements of one of them: what scanners write has some hundred."""

_AHEAD = 64
"""Bytes that a header may be longer than the one before and is yet read at once."""

_EIGHT, _FOUR = np.arange(8), np.arange(4)


class AlikeHeaders:
    """Finds the wanted elements of one file after another; several threads may do so at once.

    Where a walk goes depends on the bytes that it looks at: tags, types, lengths and the transfer syntax. A file that
    has the same bytes in the same places as one that was walked over before has its values in the same places, too.
    So the elements found are those of a walk, whatever the file.

    Args:
        wanted: Tags, keywords and types.
        end: The tag before which the walk ends; without it the pixels.
    """

    def __init__(self, wanted: Wanted, end: int | None = None) -> None:
        self._wanted, self._end = wanted, end
        self._layouts: tuple[_Layout, ...] = ()
        self._size = 2**14

    def find(self, content: bytes) -> Elements:
        """As :func:`~segtool.formats.dicom.elements.find`, or ``walk_to_tag`` where there is an ``end``."""
        layouts = self._layouts
        for layout in layouts:
            if layout.fits(content):
                if layout is not layouts[0]:
                    self._put_first(layout)
                return layout.elements(content)
        if self._end is None:
            elements, way = walk_to_pixels(content, self._wanted)
        else:
            elements, way = walk_to_tag(content, self._wanted, self._end)
        if way.syntax and content[128:132] == b"DICM" and len(way.eights) <= _MOST_HEADS:
            self._put_first(_Layout.of(content, elements, way))
        return elements

    def find_by(self, read: Read) -> Elements:
        """As :meth:`find`, for a file that ``read`` reads from its beginning.

        Raises:
            OddError: Not plain.
            OSError: The file cannot be read.
        """
        elements = beginning(read, self.find, read(self._size))
        self._size = elements.start + _AHEAD
        return elements

    def find_in_file(self, path: Path) -> Elements:
        """As :meth:`find_by`, for the file at ``path``."""
        return of_file(path, self.find_by)

    def _put_first(self, layout: "_Layout") -> None:
        # One assignment, so that other threads see either the old ones or the new ones.
        self._layouts = (layout, *(other for other in self._layouts if other is not layout))[:_MOST_LAYOUTS]


@dataclass(frozen=True, eq=False, slots=True)
class _Layout:
    """Where elements lie in files that are alike. Holds no value of a header but the transfer syntax.

    Args:
        places: Of all bytes at which the walk looked.
        bytes_there: What it saw.
        last: The last 8 of them, which begin at ``last_at``: what most often differs, as all lengths move it.
        last_at: At most 8 before the end of what was looked at.
        end: Of what was looked at.
        values: Start and end by keyword.
        found: What is the same in all files.
    """

    places: npt.NDArray[np.intp]
    bytes_there: bytes
    last: bytes
    last_at: int
    end: int
    values: Mapping[str, slice]
    found: Elements

    @classmethod
    def of(cls, content: bytes, elements: Elements, way: Way) -> "_Layout":
        start, end = way.syntax["TransferSyntaxUID"]
        parts = (_spread(way.eights, _EIGHT), _spread(way.fours, _FOUR), np.arange(start, end))
        places = np.concatenate(parts).astype(np.intp, copy=False)
        seen, last_at = np.frombuffer(content, np.uint8), max(way.eights)
        return cls(
            places=places,
            bytes_there=seen[places].tobytes(),
            last=content[last_at : last_at + 8],
            last_at=last_at,
            end=int(places.max()) + 1,
            values={keyword: slice(*between) for keyword, between in way.values.items()},
            found=elements._replace(values={}),
        )

    def fits(self, content: bytes) -> bool:
        """True where a walk over ``content`` sees the same bytes."""
        return (
            len(content) >= self.end
            and content.startswith(self.last, self.last_at)
            and np.frombuffer(content, np.uint8).take(self.places).tobytes() == self.bytes_there
        )

    def elements(self, content: bytes) -> Elements:
        values = {keyword: content[between] for keyword, between in self.values.items()}
        _, syntax, endian, start, length = self.found
        return Elements(values, syntax, endian, start, length)


def _spread(places: list[int], steps: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return (np.array(places, np.intp)[:, np.newaxis] + steps).ravel()
