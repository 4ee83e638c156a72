"""How a U-Net's blocks are wired, whatever is in them."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from segtool_train.networks.base import Interface, check_extent
from segtool_train.networks.blocks import CONVOLUTION, DROPOUT, MAX_POOL, TRANSPOSED

Block = Callable[[int, int], nn.Module]
"""Makes a block of so many input and output channels that keeps the extent."""


class EncoderDecoder(nn.Module):
    """Max pooling on the way down, transposed convolutions on the way up, skips joined by concatenation.

    Args:
        interface: Channels in and out, and the rank.
        widths: Channels of each level, top to bottom, each twice the one above.
        block: Of a level, down and up.
        dropout: Share of channels dropped before the last convolution.
    """

    def __init__(self, interface: Interface, widths: Sequence[int], block: Block, dropout: float) -> None:
        super().__init__()
        rank = interface.rank
        self._divisor = 2 ** (len(widths) - 1)
        self.pool = MAX_POOL[rank](2)
        inputs = [interface.inputs, *widths[:-1]]
        self.down = nn.ModuleList(block(*channels) for channels in zip(inputs, widths, strict=True))
        above = list(reversed(widths[:-1]))
        self.up = nn.ModuleList(TRANSPOSED[rank](2 * width, width, 2, stride=2) for width in above)
        self.merge = nn.ModuleList(block(2 * width, width) for width in above)
        self.dropout = DROPOUT[rank](dropout)
        self.head = CONVOLUTION[rank](widths[0], interface.outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(N, C, *S)`` to logits ``(N, K, *S)``.

        Raises:
            ValueError: An extent of ``S`` does not divide by two to the number of poolings.
        """
        check_extent(image, self._divisor)
        features, skips = image, []
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else self.pool(features))
            skips.append(features)
        for up, merge, skip in zip(self.up, self.merge, reversed(skips[:-1]), strict=True):
            features = merge(torch.cat([skip, up(features)], dim=1))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits
