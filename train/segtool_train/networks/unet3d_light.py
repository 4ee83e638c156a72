"""The light 3D U-Net and its family.

Source: Cecchin, Dugo, Soldà, Improved 3D U-Net for Brain Tumor Segmentation on BraTS Dataset. Instance norm
without affine parameters, leaky ReLU, max pooling, transposed convolutions, concatenating skips, biased
convolutions; 3 levels from 16 channels with 4 inputs and 4 outputs have 340,596 parameters.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from segtool.errors import UsageError
from segtool_train.networks.base import Interface, Network, check_extent


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
        return 2 ** (self.depth - 1)

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
        module = LightUNet3DModule(self, interface)
        for layer in module.modules():
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(layer.weight, a=_SLOPE, nonlinearity="leaky_relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        return module


_SLOPE = 0.01


def _block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [
            nn.Conv3d(inputs if index == 0 else outputs, outputs, 3, padding=1),
            nn.InstanceNorm3d(outputs),
            nn.LeakyReLU(_SLOPE, inplace=True),
        ]
    return nn.Sequential(*layers)


class LightUNet3DModule(nn.Module):
    """``(N, C, D, H, W)`` to logits ``(N, K, D, H, W)``."""

    def __init__(self, options: LightUNet3D, interface: Interface) -> None:
        super().__init__()
        widths = [options.width * 2**level for level in range(options.depth)]
        self._divisor = options.divisor
        self.pool = nn.MaxPool3d(2)
        self.down = nn.ModuleList(
            _block(inputs, outputs, options.convolutions)
            for inputs, outputs in zip([interface.inputs, *widths], widths, strict=False)
        )
        above = list(reversed(widths[:-1]))
        self.up = nn.ModuleList(nn.ConvTranspose3d(2 * width, width, 2, stride=2) for width in above)
        self.merge = nn.ModuleList(_block(2 * width, width, options.convolutions) for width in above)
        self.dropout = nn.Dropout3d(options.dropout)
        self.head = nn.Conv3d(options.width, interface.outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        check_extent(image, self._divisor)
        features, skips = image, []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else self.pool(features))
            skips.append(features)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            features = merge(torch.cat([skip, up(features)], dim=1))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits
