from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_cheng import RECIPE

from segtool.errors import OutputError
from segtool_train.preview import draw_preview, fullest_slice, hang
from segtool_train.recipe import parse_recipe

GREEN = (0, 255, 0)


def panels(picture: Path, columns: int = 6, gap: int = 4) -> list[list[np.ndarray]]:
    """Rows of panels ``(H, W, 3)``, square."""
    whole = np.asarray(Image.open(picture))
    size = (whole.shape[1] + gap) // columns - gap
    rows = (whole.shape[0] + gap) // (size + gap)
    starts = [number * (size + gap) for number in range(max(rows, columns))]
    return [[whole[y : y + size, x : x + size] for x in starts[:columns]] for y in starts[:rows]]


def outlined(panel: np.ndarray) -> np.ndarray:
    return (panel == GREEN).all(axis=-1)


def test_the_first_column_is_the_original_and_every_panel_outlines_the_disc(discs: Path, tmp_path: Path):
    lines: list[str] = []
    draw_preview(parse_recipe(RECIPE, "discs", "discs.toml"), discs, tmp_path / "seen.png", lines.append)
    rows = panels(tmp_path / "seen.png")
    assert len(rows) == 6  # samples of the one channel
    assert [line.split()[-1] for line in lines if line.startswith("row")] == ["t1ce"] * 6
    for row in rows:
        assert all(outlined(panel).any() for panel in row)
        assert any(not np.array_equal(row[0], panel) for panel in row[1:])
    assert not any(path.name != "seen.png" for path in tmp_path.iterdir())  # nothing else is left


def test_brightness_shows(discs: Path, tmp_path: Path):
    text = RECIPE.partition("[augmentation]")[0] + "[augmentation]\nbrightness = 3.0\n"
    draw_preview(parse_recipe(text, "discs", "discs.toml"), discs, tmp_path / "seen.png", lambda _line: None)
    means = [[float(panel.mean()) for panel in row] for row in panels(tmp_path / "seen.png")]
    assert max(abs(mean - row[0]) for row in means for mean in row) > 20


def test_without_augmentation_all_columns_are_equal(discs: Path, tmp_path: Path):
    text = RECIPE.partition("[augmentation]")[0]
    draw_preview(parse_recipe(text, "discs", "discs.toml"), discs, tmp_path / "seen.png", lambda _line: None)
    for row in panels(tmp_path / "seen.png"):
        assert all(np.array_equal(panel, row[0]) for panel in row)


@pytest.mark.parametrize(
    ("orientation", "corner"),
    # Where the voxel of the lowest slice that is furthest to the front and to the patient's right lies.
    [("RAS", (-1, -1, 0)), ("LPS", (0, 0, 0)), ("SPL", (0, 0, 0)), ("IAR", (-1, -1, -1))],
)
def test_volumes_hang_with_the_front_up_and_the_right_on_the_left(orientation: str, corner: tuple[int, int, int]):
    volume = np.zeros((4, 5, 6))
    volume[corner] = 1
    assert hang(volume, orientation)[0, 0, 0] == 1


def test_the_fullest_slice_shows_every_label():
    labels = np.zeros((5, 4, 4), int)
    labels[0], labels[3, :3] = 1, 1
    labels[3, 3] = 2  # a quarter of the slice, and all there is of it
    assert fullest_slice(labels) == 3
    assert fullest_slice(np.zeros((5, 4, 4), int)) == 2


def test_a_picture_that_cannot_be_written_says_so(discs: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        draw_preview(
            parse_recipe(RECIPE, "discs", "discs.toml"), discs, tmp_path / "file" / "seen.png", lambda _line: None
        )
