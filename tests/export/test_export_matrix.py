"""The small half of the export matrix: every family, narrow, at one extent."""

from typing import Any

import pytest

from benchmarks.export_matrix import rows_of
from segtool_train.networks import NETWORKS
from segtool_train.recipe import find_recipe, read_recipe

NARROW = {"width": 4}
RECIPES: dict[str, tuple[int, dict[str, Any]]] = {
    "cheng-unet": (32, NARROW),
    "cheng-attention": (32, NARROW),
    "cheng-residual": (32, NARROW),
    "cheng-lite0": (64, {"decoder_channels": [16, 8, 8, 8, 4]}),
    "coco-resnet50": (64, {"encoder_name": "mobilenet_v2", "widths": [16, 8, 8, 4, 4]}),
    "brats3d-4level": (16, NARROW),
}
"""A recipe of every family, the extent at which it is exported, and what makes it small."""

ERROR = {"fp32": 1e-3, "fp16": 0.15, "int8": 5.0}
"""Largest difference of the logits over their deviation: random networks magnify what rounding does."""


def test_every_family_is_in_the_half():
    assert {read_recipe(find_recipe(name)).network.name for name in RECIPES} == set(NETWORKS)


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_exports_in_every_precision_and_tensorrt_builds_it(name: str):
    extent, changes = RECIPES[name]
    (row,) = rows_of(name, (extent,), **changes)
    for precision, one in row["precisions"].items():
        assert one["precision_read_back"] == precision
        assert one["error"] <= ERROR[precision], (precision, one)
        assert one["tensorrt"] is None or "build_s" in one["tensorrt"], (precision, one["tensorrt"])
