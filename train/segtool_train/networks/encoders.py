"""What the families on an encoder of segmentation-models-pytorch have in common."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from segtool.errors import UsageError
from segtool_train.frameworks import mend_torchvision
from segtool_train.networks.base import Interface, Network
from segtool_train.networks.feature_stages import drop_unused, first_uses, stages
from segtool_train.networks.pretrained import fill_encoder

_EXTENT = 256  # of an image that every encoder of the library takes; some of timm tell another
_DIVISOR = 32


class EncoderNetwork(Network):
    """Options of a decoder on an encoder.

    A module built by a subclass holds its encoder as ``encoder``.

    Args:
        encoder_name: As segmentation-models-pytorch has it; ``tu-NAME`` takes NAME from timm.
        encoder_norm_eps: Epsilon of the encoder's batch norms, where the pre-trained weights want another
            than the encoder's own.
        pretrained: Start from ImageNet weights; or the name of others that the library has, as ``"ssl"``.
    """

    encoder_name: str
    encoder_norm_eps: Annotated[float, Field(gt=0)] | None = None
    pretrained: bool | str = False

    def encoder(self, module: nn.Module) -> nn.Module:
        """The encoder of a module built here."""
        encoder: Any = module.encoder
        assert isinstance(encoder, nn.Module)
        return encoder

    def encoder_stages(self, module: nn.Module) -> list[nn.Module]:
        """One part a feature map: of a ResNet its stem and four layers, of an EfficientNet its blocks in five."""
        encoder = self.encoder(module)
        return list(stages(encoder, first_uses(encoder, *self._image(module))))

    def load_pretrained(self, module: nn.Module, weights: Path | None) -> None:
        """Fill the encoder with pre-trained weights where the options or ``weights`` say so.

        Raises:
            UsageError: The weights are not to be had or do not fit.
        """
        if self.pretrained or weights is not None:
            published = self.pretrained if isinstance(self.pretrained, str) else "imagenet"
            fill_encoder(self.encoder(module), self.encoder_name, weights, published)

    @contextmanager
    def _building(self, interface: Interface) -> Iterator[None]:
        """Around the making of a module: errors become one line.

        Raises:
            UsageError: The model is not a 2D one, or the encoder is not known or does not fit.
        """
        if interface.rank != 2:
            raise UsageError(
                f"encoder {self.encoder_name!r} is 2D, and the recipe's input has rank {interface.rank}",
                "Give [spec.input] rank = 2 and a size, or take network 'unet'.",
            )
        mend_torchvision()
        try:
            yield
        except KeyError as error:
            raise UsageError(
                f"encoder {self.encoder_name!r} is not known",
                "Name one of segmentation-models-pytorch, as resnet34, or tu-NAME for one of timm.",
            ) from error
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"encoder {self.encoder_name!r} cannot be built for {interface.inputs} channels ({error})",
                "Name one of segmentation-models-pytorch, as resnet34, or tu-NAME for one of timm.",
            ) from error

    def _trim(self, module: nn.Module) -> None:
        """Take out of a new module what computes nothing, and set the epsilon of its encoder's norms.

        Raises:
            UsageError: The encoder's code does not run without what was taken out.
        """
        if drop_unused(module, first_uses(module, *self._image(module))):
            try:
                first_uses(module, *self._image(module))
            except (RuntimeError, TypeError, ValueError, IndexError) as error:
                raise UsageError(
                    f"encoder {self.encoder_name!r} cannot be cut to the decoder's stages ({type(error).__name__})",
                    "Give the decoder as many stages as the encoder has, or take another encoder.",
                ) from error
        if self.encoder_norm_eps is not None:
            for layer in self.encoder(module).modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eps = self.encoder_norm_eps

    def _image(self, module: nn.Module) -> tuple[int, int]:
        """Channels and extent of an image that ``module`` takes."""
        extent = _EXTENT
        if self.encoder_name.startswith("tu-"):
            import timm

            published = timm.get_pretrained_cfg(self.encoder_name.removeprefix("tu-"))
            extent = published.input_size[-1] if published else _EXTENT
        inputs: Any = self.encoder(module)._in_channels
        return inputs, math.ceil(extent / _DIVISOR) * _DIVISOR
