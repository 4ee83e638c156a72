"""The Attention U-Net, in 2D and 3D: what comes from below decides where a skip is let through.

Source: Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018.
"""

from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface
from segtool_train.networks.blocks import CONVOLUTION, Norm, double_convolution
from segtool_train.networks.encoder_decoder import EncoderDecoder, PyramidNetwork

_LINEAR = {2: "bilinear", 3: "trilinear"}


class AttentionUNet(PyramidNetwork):
    """Options of the Attention U-Net.

    Args:
        norm: After each convolution of a block; the gates have none, as published.
        dropout: Share of channels dropped before the last convolution.
    """

    norm: Norm = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights."""
        block = partial(double_convolution, interface.rank, (self.norm, self.norm), False)
        gate = partial(AttentionGate, interface.rank)
        return EncoderDecoder(interface, self.widths, block, self.dropout, gate=gate)


class AttentionGate(nn.Module):
    """Additive attention: ``skip * sigmoid(psi(relu(theta(skip) + phi(below))))``.

    Computed at the extent of ``below`` and interpolated to the skip's: equations 1 and 2 and figure 2 of the
    source.

    Args:
        rank: Spatial axes.
        skip: Channels of the skip; half as many meet inside.
        below: Channels of the level below.
    """

    def __init__(self, rank: int, skip: int, below: int) -> None:
        super().__init__()
        inside = max(1, skip // 2)
        self.theta = CONVOLUTION[rank](skip, inside, 2, stride=2, bias=False)
        self.phi = CONVOLUTION[rank](below, inside, 1)
        self.psi = CONVOLUTION[rank](inside, 1, 1)
        self.enlarge = nn.Upsample(scale_factor=2, mode=_LINEAR[rank])

    def forward(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        """``(N, C, *S)`` and ``(N, D, *(S / 2))`` to the weighted skip ``(N, C, *S)``."""
        attention = torch.sigmoid(self.psi(torch.relu(self.theta(skip) + self.phi(below))))
        weighted: torch.Tensor = skip * self.enlarge(attention)  # (N, 1, *S): one weight for all channels
        return weighted
