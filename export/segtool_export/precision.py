"""FP16 inside a torch network, FP32 around it.

The precision is written into the graph: engines that take it from a flag round as they like, and those of today
take it from the graph alone.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import Literal, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

Precision = Literal["fp32", "fp16", "int8"]
Kept = Literal["nothing", "norms", "norms, first and last layers"]

KEPT: tuple[Kept, ...] = ("nothing", "norms", "norms, first and last layers")
"""What stays in FP32 in a FP16 network, in the order in which it is tried.

Norms come first: they sum the squares of a whole volume, which FP16 neither holds nor resolves.
"""

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class HalfNetwork(nn.Module):
    """A copy of a network that computes in FP16, and takes and gives FP32.

    Args:
        network: As trained.
        kept: Names of the modules in it that stay in FP32.
    """

    def __init__(self, network: nn.Module, kept: Iterable[str] = ()) -> None:
        super().__init__()
        self.network = deepcopy(network).half()
        for name in kept:
            parent, _, attribute = name.rpartition(".")
            # From the original: what is kept must not have been rounded before.
            whole = _InFloat(deepcopy(network.get_submodule(name)).float())
            setattr(self.network.get_submodule(parent), attribute, whole)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(N, C, *S)`` float32 to logits ``(N, K, *S)`` float32."""
        return cast("torch.Tensor", self.network(image.half()).float())


class _InFloat(nn.Module):
    """A module in FP32 among others in FP16."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.module(features.float()).to(features.dtype))


def kept_modules(network: nn.Module, kept: Kept, example: torch.Tensor) -> list[str]:
    """Names of the modules that ``kept`` means.

    Args:
        network: In inference mode.
        kept: A row of :data:`KEPT`.
        example: ``(N, C, *S)``: which layers are first and last is seen by running it.
    """
    if kept == "nothing":
        return []
    names = [name for name, module in network.named_modules() if isinstance(module, _NORMS)]
    return names if kept == "norms" else [*names, *_first_and_last(network, example)]


@torch.inference_mode()
def _first_and_last(network: nn.Module, example: torch.Tensor) -> list[str]:
    """Names of the convolutions that run first and last."""
    order: list[str] = []

    def note(name: str) -> None:
        order.append(name)

    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, _CONVOLUTIONS)]
    hooks = [
        module.register_forward_pre_hook(lambda _module, _inputs, name=name: note(name)) for name, module in layers
    ]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys((order[0], order[-1]))) if order else []
