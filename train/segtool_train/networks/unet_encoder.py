"""The U-Net of segmentation-models-pytorch on any of its encoders, with pre-trained weights where wanted."""

from functools import partial
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from segtool_train.networks.base import Interface, check_extent
from segtool_train.networks.encoders import EncoderNetwork

_SCSE_REDUCTION = 16  # of channels inside the library's attention
# The library fills a norm's weights, which torch's instance norm has only when asked.
_NORMS: dict[str, dict[str, Any]] = {
    "batch": {"type": "batchnorm"},
    "instance": {"type": "instancenorm", "affine": True},
    "none": {"type": "identity"},
}


class UNetOnEncoder(EncoderNetwork):
    """Options of the U-Net on an encoder.

    Args:
        decoder_channels: Of each decoder stage, from the bottom up; one a halving of the encoder.
        decoder_attention: ``scse`` weights channels and places in every decoder stage: Roy, Navab, Wachinger,
            Concurrent Spatial and Channel Squeeze & Excitation, MICCAI 2018.
        decoder_norm: After each convolution of the decoder.
        decoder_interpolation: How features are enlarged.
    """

    decoder_channels: Annotated[tuple[int, ...], Field(min_length=3, max_length=5)] = (256, 128, 64, 32, 16)
    decoder_attention: Literal["scse"] | None = None
    decoder_norm: Literal["batch", "instance", "none"] = "batch"
    decoder_interpolation: Literal["nearest", "bilinear"] = "nearest"

    @model_validator(mode="after")
    def _room_for_attention(self) -> Self:
        if self.decoder_attention == "scse" and min(self.decoder_channels) < _SCSE_REDUCTION:
            raise ValueError(f"attention scse needs {_SCSE_REDUCTION} or more decoder_channels in every stage")
        return self

    @property
    def divisor(self) -> int:
        """Two to the number of decoder stages."""
        return 1 << len(self.decoder_channels)

    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights.

        Raises:
            UsageError: The model is not a 2D one, or the encoder is not known.
        """
        with self._building(interface):
            import segmentation_models_pytorch as smp

            module: nn.Module = smp.Unet(
                self.encoder_name,
                encoder_depth=len(self.decoder_channels),
                encoder_weights=None,
                decoder_channels=self.decoder_channels,
                decoder_attention_type=self.decoder_attention,
                decoder_use_norm=_NORMS[self.decoder_norm],
                decoder_interpolation=self.decoder_interpolation,
                in_channels=interface.inputs,
                classes=interface.outputs,
            )
        self._trim(module)
        # The library fits odd extents to its skips and then answers with another extent than it was given.
        module.register_forward_pre_hook(partial(_check_input, divisor=self.divisor))
        return module


def _check_input(_module: nn.Module, inputs: tuple[torch.Tensor, ...], divisor: int) -> None:
    check_extent(inputs[0], divisor)
