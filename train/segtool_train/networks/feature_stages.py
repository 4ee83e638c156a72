"""Which part of an encoder computes which of its feature maps.

Asked of autograd instead of the modules' names, so that every encoder is parted by one rule: a weight belongs to
the first feature map that it has a gradient for. Everything runs on torch's ``meta`` device, where tensors have
shapes and no values, and costs a fraction of a second.
"""

from collections.abc import Iterator

import torch
from torch import nn
from torch.func import functional_call


@torch.enable_grad()
def first_uses(module: nn.Module, inputs: int, extent: int) -> dict[str, int]:
    """Number of the first feature map that each weight of ``module`` has a gradient for.

    Args:
        module: Maps ``(N, C, H, W)`` to a list of feature maps, the finest first, or to one map.
        inputs: Channels ``C``.
        extent: Height and width that the module takes.

    Returns:
        Name of the weight to number of the feature map; a weight that reaches none has no entry.
    """
    weights = {
        name: torch.empty_like(weight, device="meta", requires_grad=True) for name, weight in module.named_parameters()
    }
    buffers = {name: torch.empty_like(buffer, device="meta") for name, buffer in module.named_buffers()}
    image = torch.empty(2, inputs, extent, extent, device="meta")
    answer = functional_call(module, {**weights, **buffers}, (image,))
    uses: dict[str, int] = {}
    for number, feature in enumerate([answer] if isinstance(answer, torch.Tensor) else answer):
        if not feature.requires_grad:  # the image itself, or a map without channels
            continue
        gradients = torch.autograd.grad(feature.sum(), list(weights.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                uses.setdefault(name, number)
    return uses


def stages(encoder: nn.Module, uses: dict[str, int]) -> list[nn.ModuleList]:
    """The modules of each feature map, the input's side first; together they hold the weights in ``uses``.

    A weight that lies beside modules of several stages, as a position embedding does, is in none.
    """
    return [
        nn.ModuleList(module for _, _, module in _largest(encoder, {name for name in uses if uses[name] == number}))
        for number in sorted(set(uses.values()))
    ]


def drop_unused(network: nn.Module, uses: dict[str, int]) -> bool:
    """Take out the modules of ``network`` whose weights reach no answer: a classifier's, of stages too deep.

    They would be stored, averaged and waited for by other devices for nothing. True where there were some.
    """
    unused = {name for name, _ in network.named_parameters()} - set(uses)
    for parent, name, module in list(_largest(network, unused)):
        # Code that runs over a list runs over what is left of it.
        modules = [(module, key) for key, _ in module.named_children()] if _is_list(module) else [(parent, name)]
        for holder, key in modules:
            setattr(holder, key, _Gone())
    return bool(unused)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


class _Gone(nn.Module):
    """Gives its input on, whatever else it is called with, as drop rates are."""

    def forward(self, features: torch.Tensor, *_arguments: object) -> torch.Tensor:
        """As it came."""
        return features


def _largest(module: nn.Module, names: set[str]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    """Parent, name in it, and module of the largest modules whose weights all have one of ``names``."""
    for name, child in module.named_children():
        own = {weight for weight, _ in child.named_parameters()}
        wanted = own.intersection(weight.removeprefix(f"{name}.") for weight in names if weight.startswith(f"{name}."))
        if wanted and wanted == own:
            yield module, name, child
        elif wanted:
            yield from _largest(child, wanted)
