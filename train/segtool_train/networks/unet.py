"""The plain U-Net, in 2D and 3D.

Source: Ronneberger, Fischer, Brox, U-Net, MICCAI 2015; here with padded convolutions and normalisation.
"""

from functools import partial
from typing import Annotated

from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface, Network
from segtool_train.networks.blocks import CONVOLUTION, Norm, normalisation
from segtool_train.networks.encoder_decoder import EncoderDecoder


class UNet(Network):
    """Options of the plain U-Net.

    Args:
        width: Channels of the first level; each further level has twice as many.
        depth: Levels, the bottom included.
        norm: After each convolution.
        dropout: Share of channels dropped before the last convolution.
    """

    width: Annotated[int, Field(ge=1)] = 32
    depth: Annotated[int, Field(ge=2, le=7)] = 5
    norm: Norm = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def divisor(self) -> int:
        """Two to the number of poolings."""
        return 1 << (self.depth - 1)

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights."""
        widths = [self.width * 2**level for level in range(self.depth)]
        block = partial(_double, interface.rank, self.norm)
        return EncoderDecoder(interface, widths, block, self.dropout)


def _double(rank: int, norm: Norm, inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3, each normalised and rectified; a bias only where no norm would cancel it."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            CONVOLUTION[rank](channels, outputs, 3, padding=1, bias=norm == "none"),
            normalisation(norm, rank, outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
