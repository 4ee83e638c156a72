"""The light 3D U-Net and its family.

Source: Cecchin, Dugo, Soldà, Improved 3D U-Net for Brain Tumor Segmentation on BraTS Dataset. Instance norm
without affine parameters, leaky ReLU, max pooling, transposed convolutions, concatenating skips, biased
convolutions. With 4 inputs and 4 outputs, 3 levels from 16 channels have 340,596 weights; the deeper ones, with
two residual pairs a block, have 2,867,956 (4 levels from 16), 11,465,188 (from 32), 11,536,756 (5 levels from
16) and 46,137,060 (from 32). Those numbers leave no room for projections, so that a pair adds its first
convolution's output, which has the right channels already.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from segtool.errors import UsageError
from segtool_train.networks.base import Interface
from segtool_train.networks.encoder_decoder import EncoderDecoder, PyramidNetwork

_SLOPE = 0.01  # of leaky ReLU, torch's default

Norm = Callable[[int], nn.Module]
_NORMS: dict[str, Norm] = {"instance": nn.InstanceNorm3d, "batch": nn.BatchNorm3d}


class LightUNet3D(PyramidNetwork):
    """Options of the light 3D U-Net.

    Args:
        convolutions: Convolutions a block.
        residual: Take a block's convolutions in pairs, each of which adds its first output to its second.
        dropout: Share of channels dropped before the last convolution.
        norm: The published one is of instances. Batch norm takes no time once trained, and its answer does not hang
            on the window's extent, so that whole cases can be one window.
    """

    width: Annotated[int, Field(ge=1)] = 16
    depth: Annotated[int, Field(ge=2, le=7)] = 3
    convolutions: Annotated[int, Field(ge=1)] = 2
    residual: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    norm: Literal["instance", "batch"] = "instance"

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if self.residual and self.convolutions % 2:
            raise ValueError(f"residual pairs need an even number of convolutions, not {self.convolutions}")
        return self

    def build(self, interface: Interface) -> nn.Module:
        """A new module with Kaiming weights and no bias to start with.

        Raises:
            UsageError: The model is not a 3D one.
        """
        if interface.rank != 3:
            raise UsageError(
                f"network 'unet3d_light' is 3D, and the recipe's input has rank {interface.rank}",
                "Give [spec.input] rank = 3 and a patch, or take network 'unet'.",
            )
        block = partial(_pairs if self.residual else _chain, _NORMS[self.norm], self.convolutions)
        module = EncoderDecoder(interface, self.widths, block, self.dropout)
        for layer in module.modules():
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE, nonlinearity="leaky_relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        return module


class ResidualPair(nn.Module):
    """``a = act(norm(conv(x)))``, then ``act(norm(conv(a)) + a)``."""

    def __init__(self, norm: Norm, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*_layer(norm, inputs, outputs))
        self.second = nn.Sequential(*_layer(norm, outputs, outputs)[:-1])
        self.activation = nn.LeakyReLU(_SLOPE, inplace=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C, *S)`` to ``(N, D, *S)``."""
        first = self.first(features)
        activated: torch.Tensor = self.activation(self.second(first) + first)
        return activated


def _chain(norm: Norm, convolutions: int, inputs: int, outputs: int) -> nn.Sequential:
    channels = [inputs] + [outputs] * (convolutions - 1)
    return nn.Sequential(*(layer for width in channels for layer in _layer(norm, width, outputs)))


def _pairs(norm: Norm, convolutions: int, inputs: int, outputs: int) -> nn.Sequential:
    channels = [inputs] + [outputs] * (convolutions // 2 - 1)
    return nn.Sequential(*(ResidualPair(norm, width, outputs) for width in channels))


def _layer(norm: Norm, inputs: int, outputs: int) -> list[nn.Module]:
    return [
        nn.Conv3d(inputs, outputs, 3, padding=1),
        norm(outputs),
        nn.LeakyReLU(_SLOPE, inplace=True),
    ]
