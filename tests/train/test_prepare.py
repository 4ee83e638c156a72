"""What stands between an item and its samples, and what training advises about it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_cheng import RECIPE

from segtool.errors import MissingChannelError
from segtool_train.data import list_items
from segtool_train.data.prepare import Rule, prepare
from segtool_train.recipe import parse_recipe


def two_sequences(folder: Path) -> Path:
    """One patient with a FLAIR picture, one that its site calls ``gado``, and a mask."""
    random = np.random.default_rng(0)
    for name in ("P1_flair", "P1_gado", "P1_mask"):
        pixels = random.integers(1, 255, (64, 64)) if name != "P1_mask" else np.eye(64) * 255
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}.png")
    return folder


def test_a_missing_channel_is_mended_by_what_training_advises(tmp_path: Path):
    folder = two_sequences(tmp_path)
    channels = [{"name": "flair"}, {"name": "t1ce"}]
    spec = parse_recipe(RECIPE, "two", "here", {"spec.channels": channels}).spec
    (item,) = (item for item in list_items("folder", folder, spec).items if "flair" in item.source.channels)
    with pytest.raises(MissingChannelError, match=r"no t1ce image.*aliases of .*spec\.channels") as caught:
        prepare(item, Rule(spec))
    assert "--channel" not in str(caught.value)

    channels = [{"name": "flair"}, {"name": "t1ce", "aliases": ["gado"]}]
    spec = parse_recipe(RECIPE, "two", "here", {"spec.channels": channels}).spec
    (item,) = list_items("folder", folder, spec).items
    assert prepare(item, Rule(spec)).samples[0][1].shape == (2, 64, 64)
