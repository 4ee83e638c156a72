"""Layers by rank: 2 for slices, 3 for volumes."""

from typing import Literal

from torch import nn

Norm = Literal["batch", "instance", "group", "none"]

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
MAX_POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT: dict[int, type[nn.Dropout2d] | type[nn.Dropout3d]] = {2: nn.Dropout2d, 3: nn.Dropout3d}
_BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
_CHANNELS_PER_GROUP = 8


def normalisation(norm: Norm, rank: int, channels: int, affine: bool = True) -> nn.Module:
    """A normalisation layer over ``channels``; group norm takes groups of eight channels."""
    if norm == "batch":
        return _BATCH[rank](channels, affine=affine)
    if norm == "instance":
        return _INSTANCE[rank](channels, affine=affine)
    if norm == "group":
        return nn.GroupNorm(max(1, channels // _CHANNELS_PER_GROUP), channels, affine=affine)
    return nn.Identity()


def double_convolution(rank: int, norms: tuple[Norm, Norm], biased: bool, inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3, each with its norm and rectified; the extent stays.

    Args:
        rank: Spatial axes.
        norms: After the first convolution and after the second.
        biased: Give each a bias; without, only where no norm would cancel it.
        inputs: Channels in.
        outputs: Channels between and out.
    """
    layers: list[nn.Module] = []
    for channels, norm in zip((inputs, outputs), norms, strict=True):
        layers += [
            CONVOLUTION[rank](channels, outputs, 3, padding=1, bias=biased or norm == "none"),
            normalisation(norm, rank, outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
