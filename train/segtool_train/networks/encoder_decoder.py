"""How a U-Net's blocks are wired, whatever is in them."""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface, Network, check_extent
from segtool_train.networks.blocks import CONVOLUTION, DROPOUT, MAX_POOL, TRANSPOSED

Block = Callable[[int, int], nn.Module]
"""Makes a block of so many input and output channels that keeps the extent."""

Gate = Callable[[int, int], nn.Module]
"""Makes a module of a skip's channels and of those of the level below it. The module maps the skip
``(N, C, *S)`` and the features from below ``(N, D, *(S / 2))`` to the skip that is joined, ``(N, C, *S)``."""


class PyramidNetwork(Network):
    """Options of every family whose levels double their channels as they halve their extent.

    Args:
        width: Channels of the first level; each further level has twice as many.
        depth: Levels, the bottom included.
    """

    width: Annotated[int, Field(ge=1)] = 32
    depth: Annotated[int, Field(ge=2, le=7)] = 5

    @property
    def divisor(self) -> int:
        """Two to the number of poolings."""
        return 1 << (self.depth - 1)

    @property
    def widths(self) -> list[int]:
        """Channels of each level, top to bottom."""
        return [self.width << level for level in range(self.depth)]


class EncoderDecoder(nn.Module):
    """Max pooling on the way down, transposed convolutions on the way up, skips joined by concatenation.

    Args:
        interface: Channels in and out, and the rank.
        widths: Channels of each level, top to bottom, each twice the one above.
        block: Of a level, down and up.
        dropout: Share of channels dropped before the last convolution.
        bottom: Of the lowest level, where it is another than ``block``.
        merge: Of a level on the way up, where it is another than ``block``.
        gate: What a skip passes before it is joined; None joins it as it is.
    """

    def __init__(
        self,
        interface: Interface,
        widths: Sequence[int],
        block: Block,
        dropout: float,
        *,
        bottom: Block | None = None,
        merge: Block | None = None,
        gate: Gate | None = None,
    ) -> None:
        super().__init__()
        rank = interface.rank
        self._divisor = 1 << (len(widths) - 1)
        self.pool = MAX_POOL[rank](2)
        blocks = [block] * (len(widths) - 1) + [bottom or block]
        inputs = [interface.inputs, *widths[:-1]]
        self.down = nn.ModuleList(
            make(*channels) for make, channels in zip(blocks, zip(inputs, widths, strict=True), strict=True)
        )
        above = list(reversed(widths[:-1]))
        self.up = nn.ModuleList(TRANSPOSED[rank](2 * width, width, 2, stride=2) for width in above)
        self.merge = nn.ModuleList((merge or block)(2 * width, width) for width in above)
        self.gates = nn.ModuleList(gate(width, 2 * width) for width in above) if gate else None
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
        for level, skip in enumerate(reversed(skips[:-1])):
            kept = skip if self.gates is None else self.gates[level](skip, features)
            features = self.merge[level](torch.cat([kept, self.up[level](features)], dim=1))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits
