"""The plain U-Net, in 2D and 3D.

Source: Ronneberger, Fischer, Brox, U-Net, MICCAI 2015; here with padded convolutions and normalisation.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface, Network, check_extent
from segtool_train.networks.blocks import CONVOLUTION, DROPOUT, MAX_POOL, TRANSPOSED, Norm, normalisation


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
        return 2 ** (self.depth - 1)

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights."""
        return UNetModule(self, interface)


def _double(rank: int, inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    """Two convolutions of 3, each normalised and rectified; a bias only where no norm would cancel it."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            CONVOLUTION[rank](channels, outputs, 3, padding=1, bias=norm == "none"),
            normalisation(norm, rank, outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNetModule(nn.Module):
    """``(N, C, *S)`` to logits ``(N, K, *S)``."""

    def __init__(self, options: UNet, interface: Interface) -> None:
        super().__init__()
        rank = interface.rank
        widths = [options.width * 2**level for level in range(options.depth)]
        self._divisor = options.divisor
        self.pool = MAX_POOL[rank](2)
        self.down = nn.ModuleList(
            _double(rank, inputs, outputs, options.norm)
            for inputs, outputs in zip([interface.inputs, *widths], widths, strict=False)
        )
        above = list(reversed(widths[:-1]))
        self.up = nn.ModuleList(TRANSPOSED[rank](2 * width, width, 2, stride=2) for width in above)
        self.merge = nn.ModuleList(_double(rank, 2 * width, width, options.norm) for width in above)
        self.dropout = DROPOUT[rank](options.dropout)
        self.head = CONVOLUTION[rank](options.width, interface.outputs, 1)

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
