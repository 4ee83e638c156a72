"""The plain U-Net's way up on any encoder of segmentation-models-pytorch.

Source: the second network of Müller, Wolf, Development and Comparative Evaluation of UNet Architectures On Annotated
Brain Tumor MRI Scans, which puts ResNet50 in the place of the plain way down. It halves once more, to 2048
channels, and the way up has one more stage than the plain one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import nn

from segtool_train.networks.base import Interface, check_extent
from segtool_train.networks.blocks import Norm, double_convolution
from segtool_train.networks.encoder_decoder import Block
from segtool_train.networks.encoders import EncoderNetwork


class ClassicUNetOnEncoder(EncoderNetwork):
    """Options of the plain way up on an encoder.

    Args:
        widths: Channels of each stage on the way up, from the bottom; one a halving of the encoder. The last
            works at the image's extent, where an encoder has no features to join.
        norm: After each convolution on the way up.
        dropout: Share of channels dropped before the last convolution.
    """

    widths: Annotated[tuple[int, ...], Field(min_length=3, max_length=5)] = (1024, 512, 256, 128, 64)
    norm: Norm = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def divisor(self) -> int:
        """Two to the number of stages."""
        return 1 << len(self.widths)

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights.

        Raises:
            UsageError: The model is not a 2D one, or the encoder is not known.
        """
        with self._building(interface):
            from segmentation_models_pytorch.encoders import get_encoder

            encoder = get_encoder(self.encoder_name, interface.inputs, len(self.widths), weights=None)
        block = partial(double_convolution, 2, (self.norm, self.norm), False)
        module = ClassicWayUp(encoder, self.widths, block, self.dropout, interface.outputs)
        self._trim(module)
        return module


class ClassicWayUp(nn.Module):
    """Transposed convolutions and blocks on an encoder's features, joined by concatenation.

    Args:
        encoder: Maps ``(N, C, H, W)`` to a list of features, each of half the extent of the one before it, the
            image's own extent first; its ``out_channels`` has their channels.
        widths: Channels of each stage, from the bottom.
        block: Of a stage.
        dropout: Share of channels dropped before the last convolution.
        outputs: Channels of logits.
    """

    def __init__(self, encoder: nn.Module, widths: Sequence[int], block: Block, dropout: float, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        channels: list[int] = list(encoder.out_channels)  # type: ignore[arg-type] # a list, says the library
        self._divisor = 1 << len(widths)
        bottom, *skips = reversed(channels[1 : len(widths) + 1])
        below = [bottom, *widths[:-1]]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(inputs, width, 2, stride=2) for inputs, width in zip(below, widths, strict=True)
        )
        self.merge = nn.ModuleList(block(width + skip, width) for width, skip in zip(widths, [*skips, 0], strict=True))
        self.dropout = nn.Dropout2d(dropout)
        self.head = nn.Conv2d(widths[-1], outputs, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` to logits ``(N, K, H, W)``.

        Raises:
            ValueError: An extent does not divide by two to the number of stages.
        """
        check_extent(image, self._divisor)
        features, *skips = reversed(self.encoder(image)[1:])
        for up, merge, skip in zip(self.up, self.merge, [*skips, None], strict=True):
            raised = up(features)
            features = merge(raised if skip is None else torch.cat([skip, raised], dim=1))
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits
