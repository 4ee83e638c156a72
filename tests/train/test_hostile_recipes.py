"""Recipes and sweeps that are no TOML, or TOML that Python does not make: one line, no traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest

from segtool.errors import UsageError
from segtool_export.foreign import read_spec_file
from segtool_train.recipe import read_recipe
from segtool_train.sweep.plan import read_sweep

TEXTS = {
    "nested deep": "a = " + "[" * 100_000,
    "tables nested deep": "a = " + "{a=" * 100_000,
    "a number of 5,000 digits": "a = " + "9" * 5000,
    "no date": "a = 2020-13-45",
    "no time": "a = 25:61:61",
    "a zero byte": "a = '\0'",
    "nothing": "",
    "a table twice": "[a]\n[a]\n",
}


@pytest.mark.parametrize("read", [read_recipe, read_sweep, read_spec_file])
@pytest.mark.parametrize("what", TEXTS)
def test_a_file_that_is_no_recipe_is_one_line(tmp_path: Path, what: str, read: Callable[[Path], object]) -> None:
    path = tmp_path / "r.toml"
    path.write_text(TEXTS[what])
    with pytest.raises(UsageError) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
    assert "r.toml" in str(caught.value)
