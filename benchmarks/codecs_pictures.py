"""Tasks of :mod:`benchmarks.codecs` about pictures: 500 slices read, 100 masks written."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import REAL_DATA
from benchmarks.folder import write_slices
from segtool.case import LabelMap, Source
from segtool.formats.png import PictureFormat
from segtool.geometry import Geometry
from segtool.phantom import phantom_slice

SLICES, MASKS, SIZE = 500, 100, 512
Sides = dict[str, Callable[[], Any]]


def read(folder: Path) -> tuple[str, Sides]:
    """From file to array."""
    kind = write_slices(folder / "slices", SLICES, SIZE)
    files = sorted((folder / "slices").iterdir())
    form = PictureFormat()

    def all_of(read_one: Callable[[Path], Any]) -> Callable[[], Any]:
        return lambda: np.stack([read_one(file) for file in files])

    sides: Sides = {
        "bytes alone": lambda: [file.read_bytes() for file in files] and None,
        "segtool": all_of(lambda file: form.read_image(Source("png", (file,))).data[0]),
        "Pillow": all_of(lambda file: np.asarray(Image.open(file))),
    }
    if find_spec("pyspng"):
        pyspng: Any = import_module("pyspng")
        sides["pyspng"] = all_of(lambda file: pyspng.load(file.read_bytes()))
    if find_spec("cv2"):
        cv2: Any = import_module("cv2")
        sides["OpenCV"] = all_of(lambda file: cv2.imread(str(file), cv2.IMREAD_UNCHANGED))
    return f"{SLICES} PNG files read ({kind}, {SIZE}x{SIZE}, 8 bit)", sides


def _masks() -> list[Any]:
    """Masks ``(H, W)`` of 0 and 1."""
    files = sorted((REAL_DATA / "cheng" / "masks").glob("*.png"))[:MASKS]
    if files:
        return [np.asarray(Image.open(file).resize((SIZE, SIZE))).astype(np.uint8) for file in files]
    return [np.kron(phantom_slice(index)[1] > 0, np.ones((2, 2), np.uint8)).astype(np.uint8) for index in range(MASKS)]


def write(folder: Path) -> tuple[str, Sides]:
    """From label map to file; segtool writes it whole or not at all, the others as they do."""
    masks, form, out = _masks(), PictureFormat(), folder / "mask.png"
    source = Source("png", (out,))

    def by_segtool() -> None:
        for mask in masks:
            form.write_labels(out, LabelMap(mask, Geometry.of_pixels(mask.shape)), source)

    def by_pillow(**options: int) -> Callable[[], None]:
        def act() -> None:
            for mask in masks:
                Image.fromarray(mask).save(out, format="PNG", **options)

        return act

    sides: Sides = {
        "bytes alone": lambda: [out.write_bytes(bytes(600)) for _ in masks] and None,
        "segtool": by_segtool,
        "Pillow": by_pillow(),
        "Pillow, level 1": by_pillow(compress_level=1),
    }
    if find_spec("cv2"):
        cv2: Any = import_module("cv2")
        sides["OpenCV"] = lambda: [cv2.imwrite(str(out), mask) for mask in masks] and None
    return f"{MASKS} masks written as PNG ({SIZE}x{SIZE})", sides
