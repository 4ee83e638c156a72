"""The Residual U-Net, in 2D and 3D: a U-Net whose blocks learn what to add to their input.

Source: He et al., Deep Residual Learning for Image Recognition, CVPR 2016, basic blocks with projections where
the channels change; dropout between the convolutions as in Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016.
"""

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface
from segtool_train.networks.blocks import CONVOLUTION, DROPOUT, Norm, normalisation
from segtool_train.networks.encoder_decoder import EncoderDecoder, PyramidNetwork


class ResidualUNet(PyramidNetwork):
    """Options of the Residual U-Net.

    Args:
        norm: After each convolution.
        dropout: Share of channels dropped between the two convolutions of every block.
    """

    norm: Norm = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights."""
        block = partial(ResidualBlock, interface.rank, self.norm, self.dropout)
        return EncoderDecoder(interface, self.widths, block, dropout=0.0)


class ResidualBlock(nn.Module):
    """``relu(body(x) + shortcut(x))``; the body is two convolutions of 3 with dropout between them.

    Args:
        rank: Spatial axes.
        norm: After each convolution, the shortcut's included.
        dropout: Share of channels dropped.
        inputs: Channels in.
        outputs: Channels out; where they differ from ``inputs`` the shortcut is a convolution of 1.
    """

    def __init__(self, rank: int, norm: Norm, dropout: float, inputs: int, outputs: int) -> None:
        super().__init__()
        convolution, biased = CONVOLUTION[rank], norm == "none"
        self.body = nn.Sequential(
            convolution(inputs, outputs, 3, padding=1, bias=biased),
            normalisation(norm, rank, outputs),
            nn.ReLU(inplace=True),
            DROPOUT[rank](dropout),
            convolution(outputs, outputs, 3, padding=1, bias=biased),
            normalisation(norm, rank, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                convolution(inputs, outputs, 1, bias=biased), normalisation(norm, rank, outputs)
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(N, C, *S)`` to ``(N, D, *S)``."""
        return torch.relu(self.body(features) + self.shortcut(features))
