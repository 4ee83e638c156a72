"""Errors are one line that no file name can turn against the terminal."""

from pathlib import Path

import pytest
from PIL import Image
from shell import segtool
from tiny import bright_spec, write_model

from segtool.errors import UserError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 漢", "plain é 漢"),
        ("two\nlines\tand tab", "two lines and tab"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("bell\x07 and \x9b1m", r"bell\x07 and \x9b1m"),
        ("turned \u202egnp.exe", r"turned \u202egnp.exe"),
        ("not text \udc80", r"not text \udc80"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_error_is_one_harmless_line() -> None:
    assert str(UserError("a\x1b[2J\nb", "Mend it.")) == r"a\x1b[2J b. Mend it."


def test_a_file_name_never_reaches_the_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "scans\x1b[31m"
    folder.mkdir()
    Image.new("L", (32, 32), 9).save(folder / "good\x1b]0;title\x07.png")
    (folder / "bad\x1b[2J.png").write_bytes(b"no picture")
    (folder / "other\x1b[2J_mask.png").write_bytes(b"no scan")
    model = write_model(tmp_path / "m.onnx", bright_spec())
    for arguments in (
        ("predict", folder, "-m", model, "-o", tmp_path / "out\x1b[32m"),
        ("predict", folder / "gone", "-m", model),
        ("predict", folder, "-m", folder / "gone.onnx"),
        ("inspect", folder),
        ("evaluate", folder, folder),
    ):
        answer = segtool(capsys, *arguments)
        assert "\x1b" not in answer.out + answer.err
        assert "\x07" not in answer.out + answer.err
