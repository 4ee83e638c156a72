"""Pictures, NIfTI and COCO."""

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image as Pillow

from corpus import Row
from segtool.case import Source
from segtool.errors import LimitError
from segtool.formats import label_reader
from segtool.formats.coco import NotCocoError
from segtool.limits import DEFAULT_LIMITS, Limits

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
AGAIN = "copy or (export|convert) it again"


def source(name: str, content: bytes, kind: str, limits: Limits = DEFAULT_LIMITS) -> Callable[[Path], Source]:
    """Puts ``content`` into a file."""

    def write(folder: Path) -> Source:
        (folder / name).write_bytes(content)
        return Source(kind, (folder / name,), "a.png" if kind == "coco" else None, limits=limits)

    return write


def both(given: Source) -> None:
    """What predict asks of a scan."""
    reader: Any = label_reader(given.format)
    reader.describe(given)
    reader.read_image(given)


def labels(given: Source) -> None:
    """What predict asks of a reference."""
    label_reader(given.format).read_labels(given)


# PNG


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int] = (8, 8), data: bytes | None = None, *extra: bytes, colour: int = 0) -> bytes:
    """A PNG of 8 bits whose header says ``size`` (width, height), whatever its data are."""
    packed = zlib.compress(bytes(9 * 8)) if data is None else data
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


ZEROS = zlib.compress(bytes(2**26), 9)


def picture(content: bytes, limits: Limits = DEFAULT_LIMITS) -> Callable[[Path], Source]:
    return source("a.png", content, "png", limits)


PNG = {
    "more pixels than Pillow opens": Row(picture(png((60_000, 60_000))), both, "smaller pictures", LimitError),
    "pixels that its bytes cannot hold": Row(picture(png((9_000, 9_000))), both, "cannot hold so many.*" + AGAIN),
    "more than the limit": Row(picture(png(), Limits(voxels=63)), both, "--limit voxels=64", LimitError),
    "colours count": Row(picture(png(colour=2), Limits(voxels=191)), both, "--limit voxels=192", LimitError),
    "text that unpacks to 64 MB": Row(picture(png((8, 8), None, chunk(b"zTXt", b"a\0\0" + ZEROS))), both, AGAIN),
    "profile that unpacks to 64 MB": Row(picture(png((8, 8), None, chunk(b"iCCP", b"a\0\0" + ZEROS))), both, AGAIN),
    "iTXt that unpacks to 64 MB": Row(
        picture(png((8, 8), None, chunk(b"iTXt", b"a\0\1\0\0\0" + ZEROS))), both, AGAIN
    ),
    "pixels that unpack to 64 MB": Row(picture(png((8, 8), ZEROS)), both),
    "PostScript": Row(
        picture(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"), both, AGAIN
    ),
    "no width": Row(picture(png((0, 8))), both, AGAIN),
    "a chunk longer than the file": Row(picture(png()[:33] + b"\x7f\xff\xff\xffIDAT"), both, AGAIN),
}  # fmt: skip

# TIFF


def tiff(tags: dict[int, tuple[int, int, int]], pages: int = 1, loop: bool = False) -> bytes:
    """A TIFF of 8x8 pixels, with ``tags`` (type, count, value) in place of its own."""
    usual = {256: (3, 1, 8), 257: (3, 1, 8), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8),
             277: (3, 1, 1), 278: (3, 1, 8), 279: (4, 1, 64)} | tags  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(usual.items()))
    out, size = [b"II*\0" + struct.pack("<I", 72) + GREY.tobytes()], 2 + len(entries) + 4
    for page in range(pages):
        following = 72 + (page + 1) * size if page + 1 < pages else 72 * loop
        out.append(struct.pack("<H", len(usual)) + entries + struct.pack("<I", following))
    return b"".join(out)


TIFF = {
    "a loop of directories ends": Row(picture(tiff({}, 2, loop=True)), both),
    "too many directories": Row(picture(tiff({}, 300), Limits(pages=200)), both, "--limit pages=201", LimitError),
    "pages count": Row(picture(tiff({}, 3), Limits(voxels=150)), both, "--limit voxels=192", LimitError),
    "a strip longer than the file": Row(picture(tiff({279: (4, 1, 2**31)})), both, "a piece of 2147483648 bytes"),
    "a strip beyond the file": Row(picture(tiff({273: (4, 1, 2**31)})), both, "at byte 2147483648, beyond its end"),
    "a tile larger than any picture": Row(
        picture(tiff({322: (4, 1, 2**30), 323: (4, 1, 2**30), 324: (4, 1, 8), 325: (4, 1, 64)})), both, "a tile of 107"
    ),
    "more rows than 16 bits": Row(picture(tiff({257: (4, 1, 2**31)})), both, "smaller pictures", LimitError),
    "no pixels": Row(picture(tiff({256: (3, 1, 0)})), both, AGAIN),
    "samples that are no count": Row(picture(tiff({277: (3, 1, 65535)})), both, AGAIN),
}  # fmt: skip

# JPEG


def jpeg() -> bytes:
    out = io.BytesIO()
    Pillow.fromarray(GREY).save(out, format="JPEG")
    return out.getvalue()


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    content = jpeg()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + struct.pack(">HH", height, width) + content[at + 4 :]


JPEG = {
    "pixels that its bytes cannot hold": Row(picture(jpeg_of(9_000, 9_000)), both, "cannot hold so many"),
    "more pixels than Pillow opens": Row(picture(jpeg_of(65_500, 65_500)), both, "smaller pictures", LimitError),
    "cut short": Row(picture(jpeg()[:-40]), both, AGAIN),
}

# Label maps


def values(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    nibabel.Nifti1Image(array, np.eye(4)).to_stream(out)
    return out.getvalue()


MASKS = {
    "millions of different values": Row(
        source("a.nii", values(np.arange(2**20, dtype=np.int32).reshape(128, 128, 64)), "nifti"), labels,
        "the value 65536 is not a label", most_mb=96,
    ),
    "fractions": Row(source("a.nii", values(np.full((4, 4, 4), 0.5)), "nifti"), labels, "0.5 is not a label"),
    "NaN": Row(source("a.nii", values(np.full((4, 4, 4), np.nan)), "nifti"), labels, "nan is not a label"),
}  # fmt: skip

# NIfTI


def nifti(fields: dict[int, tuple[str, float]] | None = None, voxels: bytes = bytes(120), head: int = 352) -> bytes:
    """A NIfTI-1 file of 5x4x3 int16 voxels, with ``fields`` (offset: code, value) in place of its own."""
    image = nibabel.Nifti1Image(np.zeros((5, 4, 3), np.int16), np.diag([2.0, 2, 2, 1]))
    out = bytearray(image.header.binaryblock + bytes(head - 348))
    out[108:112] = struct.pack("<f", 352)
    for offset, (code, value) in (fields or {}).items():
        struct.pack_into(f"<{code}", out, offset, value)
    return bytes(out) + voxels


def dims(*sizes: int) -> dict[int, tuple[str, float]]:
    return {40: ("h", len(sizes))} | {42 + 2 * n: ("h", size) for n, size in enumerate(sizes)}


def sform(*rows: float) -> dict[int, tuple[str, float]]:
    return {254: ("h", 1), 252: ("h", 0)} | {280 + 4 * n: ("f", value) for n, value in enumerate(rows)}


def scale(mm: float) -> dict[int, tuple[str, float]]:
    return sform(mm, 0, 0, 0, 0, mm, 0, 0, 0, 0, mm, 0)


def volume(content: bytes, limits: Limits = DEFAULT_LIMITS) -> Callable[[Path], Source]:
    return source("a.nii", content, "nifti", limits)


def packed(content: bytes, limits: Limits = DEFAULT_LIMITS) -> Callable[[Path], Source]:
    return source("a.nii.gz", gzip.compress(content, 9, mtime=0), "nifti", limits)


NAN, INF = float("nan"), float("inf")
NOWHERE = "the header places voxels nowhere.*sform or qform"
GRID = "a grid of .*Split the file into volumes"
EXTENSION = {348: ("B", 1), 352: ("i", 2**31 - 16), 356: ("i", 6), 108: ("f", 2.0**31)}

NIFTI = {
    "as it should be": Row(volume(nifti()), both),
    "more than the file holds": Row(volume(nifti(dims(512, 512, 900))), both, "end 471859080 bytes early.*" + AGAIN),
    "more than the limit": Row(volume(nifti(dims(30000, 30000, 900))), both, "--limit voxels=810000000000", LimitError),
    "channels count": Row(volume(nifti(dims(5, 4, 3, 9)), Limits(voxels=500)), both, "--limit voxels=540", LimitError),
    "no voxels": Row(volume(nifti(voxels=b"")), both, "end 120 bytes early"),
    "an extension of 2 GB": Row(volume(nifti(EXTENSION, head=368)), both, "bytes early"),
    "voxels that begin past the end": Row(volume(nifti({108: ("f", 1e9)})), both, "bytes early"),
    "voxels that begin before the file": Row(volume(nifti({108: ("f", -352)})), both, AGAIN),
    "voxels that begin inside the header": Row(volume(nifti({108: ("f", 100)})), both, AGAIN),
    "voxels that begin inside a byte": Row(volume(nifti({108: ("f", 352.5)})), both, "begin at byte 352.5"),
    "voxels that begin nowhere": Row(volume(nifti({108: ("f", NAN)})), both, AGAIN),
    "voxels that begin never": Row(volume(nifti({108: ("f", INF)})), both, AGAIN),
    "no axes": Row(volume(nifti({40: ("h", 0)})), both, GRID),
    "nine axes": Row(volume(nifti({40: ("h", 9)})), both, GRID + "|" + AGAIN),
    "fewer axes than none": Row(volume(nifti({40: ("h", -3)})), both, GRID + "|" + AGAIN),
    "a negative axis": Row(volume(nifti(dims(5, -4, 3))), both, GRID),
    "an axis of nothing": Row(volume(nifti(dims(5, 0, 3))), both, GRID),
    "an affine of zeros": Row(volume(nifti(sform(*[0] * 12))), both, NOWHERE),
    "an affine of NaN": Row(volume(nifti(sform(*[NAN] * 12))), both, NOWHERE),
    "an affine without end": Row(volume(nifti(sform(INF, *[0] * 11))), both, NOWHERE),
    "an affine in one plane": Row(volume(nifti(sform(1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0))), both, NOWHERE),
    "voxels of a picometre": Row(volume(nifti(scale(1e-9))), both, NOWHERE),
    "voxels of a thousand kilometres": Row(volume(nifti(scale(1e9))), both, NOWHERE),
    "a quaternion of NaN": Row(
        volume(nifti({252: ("h", 1), 254: ("h", 0), 256: ("f", NAN)})), both, NOWHERE + "|" + AGAIN
    ),
    "a quaternion that is too long": Row(
        volume(nifti({252: ("h", 1), 254: ("h", 0), 256: ("f", 9), 260: ("f", 9)})), both, NOWHERE + "|" + AGAIN
    ),
    "a slope of 0 scales nothing": Row(volume(nifti({112: ("f", 0)})), both),
    "a slope of NaN scales nothing": Row(volume(nifti({112: ("f", NAN)})), both),
    "an endless slope scales nothing": Row(volume(nifti({112: ("f", INF)})), both),
    "an intercept of NaN": Row(volume(nifti({112: ("f", 2), 116: ("f", NAN)})), both, AGAIN),
    "CIFTI": Row(volume(nifti({68: ("h", 3001)})), both, "it is CIFTI"),
    "a type that there is not": Row(volume(nifti({70: ("h", 77)})), both, AGAIN),
    "colours": Row(volume(nifti({70: ("h", 128)})), both, "voxels are colours"),
    "packed, and a claim that its bytes cannot hold": Row(packed(nifti(dims(512, 512, 900))), both, "packed ones hold"),
    "packed, and more than the limit": Row(
        packed(nifti(dims(30000, 30000, 900))), both, "--limit voxels=810000000000", LimitError
    ),
    "packed, and more bytes than the limit": Row(
        packed(nifti(), Limits(unpacked_bytes=400)), both, "--limit unpacked_bytes=472", LimitError
    ),
    "packed, and the stream is endless": Row(packed(nifti() + bytes(2**26)), both),
    "packed, and the voxels begin far behind": Row(
        packed(nifti({108: ("f", 2.0**25)}) + bytes(2**24)), both, "packed ones hold"
    ),
}  # fmt: skip

# COCO


def coco(rows: list[dict[str, Any]], limits: Limits = DEFAULT_LIMITS, **picture: Any) -> Callable[[Path], Source]:
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30} | picture],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1} | one for one in rows],
        "categories": [{"id": 1, "name": "tumour"}],
    }
    return source("a.json", json.dumps(tree).encode(), "coco", limits)


def outline(*numbers: float) -> dict[str, Any]:
    return {"segmentation": [list(numbers)]}


def zigzag(corners: int, height: int) -> dict[str, Any]:
    """A polygon that crosses the whole picture from corner to corner."""
    return outline(*[n for x in range(corners) for n in (x % 97, height * (x % 2))])


def runs(counts: Any) -> dict[str, Any]:
    return {"segmentation": {"counts": counts, "size": [20, 30]}}


BOX = {"bbox": [1, 1, 5, 5]}

COCO = {
    "a picture larger than any": Row(
        coco([BOX], height=10**6, width=10**6), labels, "--limit drawn_pixels=1000000000000", LimitError
    ),
    "a size of any digits": Row(
        coco([BOX], height=10**4000, width=10**4000), labels, f"--limit drawn_pixels={2**62}", LimitError
    ),
    "a size that is no number": Row(coco([BOX], height=True), labels, "has no height and width"),
    "too many outlines": Row(coco([BOX] * 60, Limits(labels=50)), labels, "--limit labels=60", LimitError),
    "outlines that pass over too many pixels": Row(
        coco([BOX] * 60, Limits(voxels=1000)), labels, "--limit voxels=1125", LimitError
    ),
    "outlines that cross too many lines": Row(
        coco([zigzag(20_000, 16_000)], height=16_000, width=99), labels, "--limit voxels=5120000000", LimitError
    ),
    "many crossings in little memory": Row(coco([zigzag(9_000, 1_000)], height=1_000, width=99), labels, most_mb=64),
    "more text than the limit": Row(coco([BOX], Limits(text_bytes=99)), labels, "--limit text_bytes=", LimitError),
    "runs longer than the picture": Row(coco([runs([10, 10**12])]), labels, "run lengths add up to 1000000000010"),
    "a run of any length": Row(coco([runs("o" * 100_000)]), labels, "longer than any picture"),
    "corners that are no numbers": Row(coco([outline(1, 2, NAN, 4, 5, 6)]), labels, "corners that are no number"),
    "corners beyond everything": Row(coco([outline(1e300, 2, 3, 4, 5, 6)]), labels, "outside any picture"),
    "lists in lists": Row(source("a.json", b"[" * 100_000, "coco"), labels, "cannot be read as JSON"),
    "lists in outlines": Row(coco([{"segmentation": [[[[[[1]]]]]]}]), labels, "cannot be drawn"),
    "a box of lists": Row(coco([{"bbox": [[1], 2, 3, 4]}]), labels, "cannot be drawn"),
    "a box of any length": Row(coco([{"bbox": list(range(10**4))}]), labels, r"\[0, 1, 2, 3, 4, 5, \.\.\.\]"),
    "no tables": Row(source("a.json", b"[1e400, NaN]", "coco"), labels, "not a COCO file", NotCocoError),
}  # fmt: skip

ROWS = {
    f"{kind} {name}": row
    for kind, rows in {"PNG": PNG, "TIFF": TIFF, "JPEG": JPEG, "label map": MASKS, "NIfTI": NIFTI, "COCO": COCO}.items()
    for name, row in rows.items()
}
