"""The light 3D U-Net and its family.

Source: Cecchin, Dugo, Soldà, Improved 3D U-Net for Brain Tumor Segmentation on BraTS Dataset. Instance norm
without affine parameters, leaky ReLU, max pooling, transposed convolutions, concatenating skips, biased
convolutions; 3 levels from 16 channels with 4 inputs and 4 outputs have 340,596 parameters.
"""

from functools import partial
from typing import Annotated

from pydantic import Field
from torch import nn

from segtool.errors import UsageError
from segtool_train.networks.base import Interface, Network
from segtool_train.networks.encoder_decoder import EncoderDecoder

_SLOPE = 0.01  # of leaky ReLU, torch's default


class LightUNet3D(Network):
    """Options of the light 3D U-Net.

    Args:
        width: Channels of the first level; each further level has twice as many.
        depth: Levels, the bottom included.
        convolutions: Convolutions a block.
        dropout: Share of channels dropped before the last convolution.
    """

    width: Annotated[int, Field(ge=1)] = 16
    depth: Annotated[int, Field(ge=2, le=6)] = 3
    convolutions: Annotated[int, Field(ge=1)] = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3

    @property
    def divisor(self) -> int:
        """Two to the number of poolings."""
        return 1 << (self.depth - 1)

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
        widths = [self.width * 2**level for level in range(self.depth)]
        module = EncoderDecoder(interface, widths, partial(_block, self.convolutions), self.dropout)
        for layer in module.modules():
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE, nonlinearity="leaky_relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        return module


def _block(convolutions: int, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, padding=1),
            nn.InstanceNorm3d(outputs),
            nn.LeakyReLU(_SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)
