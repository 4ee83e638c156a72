"""Draws, one an image."""

from collections.abc import Sequence

import torch

Tensor = torch.Tensor


def signed(count: int, amount: float, like: Tensor) -> Tensor:
    """``(N,)`` uniform in [-amount, amount]."""
    return (torch.rand(count, device=like.device) * 2 - 1) * amount


def chosen(count: int, probability: float, like: Tensor) -> Tensor:
    """``(N,)`` of 1 with ``probability``, else 0. What is certain is not drawn."""
    if probability >= 1:
        return torch.ones(count, device=like.device)
    return (torch.rand(count, device=like.device) < probability).float()


def an_image(values: Tensor, like: Tensor) -> Tensor:
    """``(N,)`` as ``(N, 1, ...)``, to be combined with ``like`` ``(N, C, *S)``."""
    return values.view(-1, *[1] * (like.ndim - 1))


def lowest(image: Tensor) -> Tensor:
    """``(N, C, 1, ...)``, least intensity of every channel."""
    return image.amin(tuple(range(2, image.ndim)), keepdim=True)


def smooth_field(control: Tensor, shape: Sequence[int]) -> Tensor:
    """Uniform cubic B-splines between control points, one cell of them beyond every edge.

    Args:
        control: ``(N, R, *M)`` values at the control points, at least 4 along each axis.
        shape: ``S``, pixels along each axis.

    Returns:
        ``(N, R, *S)`` within the range of ``control``.

    Source: Rueckert et al., IEEE Trans. Med. Imaging 18(8), 1999.
    """
    field = control
    for pixels in shape:
        # Contracts the first spatial axis and appends its pixels: after all axes their order is the old one.
        field = torch.tensordot(field, _basis(pixels, field.shape[2], control), dims=([2], [1]))
    return field


def _basis(pixels: int, points: int, like: Tensor) -> Tensor:
    """``(pixels, points)``, weight of every control point at every pixel's centre; rows sum to 1."""
    cells = points - 3
    place = (torch.arange(pixels, device=like.device) + 0.5) * (cells / pixels) + 1
    distance = (place[:, None] - torch.arange(points, device=like.device)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)
