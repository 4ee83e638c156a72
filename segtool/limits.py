"""How much one file may claim before it is refused: no header takes memory or time that its bytes cannot earn."""

from dataclasses import dataclass, fields

from segtool.errors import LimitError


@dataclass(frozen=True)
class Limits:
    """What files are held against before any memory is taken. Each is raised with ``--limit NAME=VALUE``.

    Args:
        voxels: Of one image: rows x columns x slices x channels.
        unpacked_bytes: That a compressed file, dataset or archive may become.
        files: In one archive.
        pages: Of one stack of pictures.
        objects: Groups and datasets in one HDF5 or MATLAB file.
        labels: Different values in a label map, or annotated outlines and components.
        drawn_pixels: Of a picture on which outlines are drawn: to claim them costs a file nothing.
        text_bytes: Of a text that is read as a whole, such as JSON.
    """

    voxels: int = 2**31
    unpacked_bytes: int = 2**35
    files: int = 1_000_000
    pages: int = 16_384
    objects: int = 100_000
    labels: int = 65_536
    drawn_pixels: int = 2**28
    text_bytes: int = 2**28

    def check(self, name: str, found: int, where: str, what: str) -> None:
        """Refuse ``found`` where it is above the limit of that name.

        Args:
            name: A field of this class.
            found: What a header claims or counting found.
            where: The file, as messages call it.
            what: The claim in words, such as ``60000x60000x900 voxels``.

        Raises:
            LimitError: It is above.
        """
        limit = getattr(self, name)
        if found > limit:
            raise LimitError(
                f"{where}: claims {what}, above the limit of {limit} {name.replace('_', ' ')}",
                f"If the file is sound, raise the limit: --limit {name}={found}.",
            )

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of all limits."""
        return tuple(one.name for one in fields(cls))


DEFAULT_LIMITS = Limits()
