"""Batch norms folded into the convolutions before them.

An exporter folds them as well, but into weights that FP16 has rounded already; folded before, they are rounded once.
"""

from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TOLERANCE = 1e-3
"""Relative to the largest logit. Folding only reorders sums; a norm that was folded into the wrong layer errs by
far more."""


def fold_norms(network: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of ``network`` in inference mode whose batch norms are folded, where each follows a convolution.

    Args:
        network: As trained, float32.
        example: ``(N, C, *S)``: which norm follows which convolution is seen by running it.

    Returns:
        The copy, or ``network`` itself where nothing is to be folded, or where a convolution's output also goes
        somewhere else, so that the folded copy would answer otherwise.
    """
    pairs = _pairs(network, example)
    if not pairs:
        return network
    folded = deepcopy(network)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm)
    probe = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted, found = network(probe), folded(probe)
    return folded if (wanted - found).abs().max() <= _TOLERANCE * max(1.0, float(wanted.abs().max())) else network


@torch.inference_mode()
def _pairs(network: nn.Module, example: torch.Tensor) -> list[tuple[str, str]]:
    """Names of each convolution that runs once and of the batch norm that takes what it gives."""
    made: dict[int, str] = {}
    outputs: list[torch.Tensor] = []  # kept alive, so that no two of them have one id
    runs: list[str] = []
    pairs: list[tuple[str, str]] = []

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            runs.append(name)
            if isinstance(module, _CONVOLUTIONS):
                made[id(output)] = name
                outputs.append(output)
            elif id(inputs[0]) in made and module.running_mean is not None:
                pairs.append((made[id(inputs[0])], name))

        return module.register_forward_hook(hook)

    hooks = [
        watch(name, module)
        for name, module in network.named_modules()
        if isinstance(module, (*_CONVOLUTIONS, _BatchNorm))
    ]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return [pair for pair in pairs if all(runs.count(name) == 1 for name in pair)]


def _fold(network: nn.Module, convolution: str, norm: str) -> None:
    layer, after = network.get_submodule(convolution), network.get_submodule(norm)
    assert isinstance(layer, _CONVOLUTIONS)
    assert isinstance(after, _BatchNorm)
    mean, variance = after.running_mean, after.running_var
    assert mean is not None
    assert variance is not None
    transposed = isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d))
    if transposed and layer.groups > 1:
        return  # its weights are laid out otherwise
    layer.weight, layer.bias = fuse_conv_bn_weights(
        layer.weight, layer.bias, mean, variance, after.eps, after.weight, after.bias, transposed
    )
    parent, _, attribute = norm.rpartition(".")
    # Norms of some libraries rectify as well, and keep what does it in `act`.
    rest = getattr(after, "act", None)
    setattr(network.get_submodule(parent), attribute, rest if isinstance(rest, nn.Module) else nn.Identity())
