"""The plain U-Net, in 2D and 3D.

Source: Ronneberger, Fischer, Brox, U-Net, MICCAI 2015; here with padded convolutions and normalisation.
"""

from functools import partial
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface
from segtool_train.networks.blocks import Norm, double_convolution
from segtool_train.networks.encoder_decoder import EncoderDecoder, PyramidNetwork


class UNet(PyramidNetwork):
    """Options of the plain U-Net.

    The defaults normalise after every convolution. Published networks differ there: Hassan's, 2D Brain Tumor
    MRI Segmentation Using U-Net, is ``width=64``, ``bottom_norm=False``, ``merge_norms=1``, ``biased=True``,
    ``dropout=0.4`` and has 31,036,353 weights.

    Args:
        norm: After each convolution, but for the next two options.
        bottom_norm: Normalise in the lowest level too.
        merge_norms: Of a block on the way up: after both of its convolutions, or after the second alone.
        biased: Give a bias to convolutions before a norm as well, although the norm cancels it.
        dropout: Share of channels dropped before the last convolution.
    """

    norm: Norm = "batch"
    bottom_norm: bool = True
    merge_norms: Literal[1, 2] = 2
    biased: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights."""

        def block(first: Norm, second: Norm) -> partial[nn.Sequential]:
            return partial(double_convolution, interface.rank, (first, second), self.biased)

        return EncoderDecoder(
            interface,
            self.widths,
            block(self.norm, self.norm),
            self.dropout,
            bottom=block(self.norm, self.norm) if self.bottom_norm else block("none", "none"),
            merge=block(self.norm if self.merge_norms == 2 else "none", self.norm),
        )
