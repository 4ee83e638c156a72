"""A U-Net decoder on any encoder of segmentation-models-pytorch, with pre-trained weights where wanted."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn

from segtool.errors import UsageError
from segtool_train.frameworks import mend_torchvision
from segtool_train.networks.base import Interface, Network, check_extent
from segtool_train.networks.pretrained import fill_encoder


class UNetOnEncoder(Network):
    """Options of the U-Net on an encoder.

    Args:
        encoder_name: As segmentation-models-pytorch has it; ``tu-NAME`` takes NAME from timm.
        decoder_channels: Of each decoder stage, from the bottom up; one a halving of the encoder.
        encoder_norm_eps: Epsilon of the encoder's batch norms, where the pre-trained weights want another
            than the encoder's own.
        pretrained: Start from ImageNet weights.
    """

    encoder_name: str
    decoder_channels: Annotated[tuple[int, ...], Field(min_length=3, max_length=5)] = (256, 128, 64, 32, 16)
    encoder_norm_eps: Annotated[float, Field(gt=0)] | None = None
    pretrained: bool = False

    @property
    def divisor(self) -> int:
        """Two to the number of decoder stages."""
        return 1 << len(self.decoder_channels)

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights.

        Raises:
            UsageError: The model is not a 2D one, or the encoder is not known.
        """
        if interface.rank != 2:
            raise UsageError(
                f"network 'unet_encoder' is 2D, and the recipe's input has rank {interface.rank}",
                "Give [spec.input] rank = 2 and a size, or take network 'unet'.",
            )
        mend_torchvision()
        import segmentation_models_pytorch as smp

        try:
            module: nn.Module = smp.Unet(
                self.encoder_name,
                encoder_depth=len(self.decoder_channels),
                encoder_weights=None,
                decoder_channels=self.decoder_channels,
                in_channels=interface.inputs,
                classes=interface.outputs,
            )
        except (KeyError, RuntimeError) as error:
            raise UsageError(
                f"encoder {self.encoder_name!r} is not known ({error})",
                "Name one of segmentation-models-pytorch, or tu-NAME for one of timm.",
            ) from error
        if self.encoder_norm_eps is not None:
            for layer in _encoder(module).modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eps = self.encoder_norm_eps
        # The library fits odd extents to its skips and then answers with another extent than it was given.
        module.register_forward_pre_hook(partial(_check_input, divisor=self.divisor))
        return module

    def encoder(self, module: nn.Module) -> nn.Module:
        """The encoder of a module built here."""
        return _encoder(module)

    def load_pretrained(self, module: nn.Module, weights: Path | None) -> None:
        """Fill the encoder with ImageNet weights where the options or ``weights`` say so.

        Raises:
            UsageError: The weights are not to be had or do not fit.
        """
        if self.pretrained or weights is not None:
            fill_encoder(_encoder(module), self.encoder_name, weights)


def _check_input(_module: nn.Module, inputs: tuple[torch.Tensor, ...], divisor: int) -> None:
    check_extent(inputs[0], divisor)


def _encoder(module: nn.Module) -> nn.Module:
    encoder: Any = module.encoder
    assert isinstance(encoder, nn.Module)
    return encoder
