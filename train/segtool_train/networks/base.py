"""What every network family can do. One file a family; the table is in :mod:`segtool_train.networks`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from segtool.errors import UsageError
from segtool.spec import ModelSpec


@dataclass(frozen=True)
class Interface:
    """``rank`` 2 or 3 spatial axes, ``inputs`` channels of images, ``outputs`` channels of logits."""

    rank: int
    inputs: int
    outputs: int

    @classmethod
    def of(cls, spec: ModelSpec) -> "Interface":
        """The interface that ``spec`` promises."""
        return cls(spec.input.rank, len(spec.channels), spec.output_channels)


class Network(BaseModel, ABC):
    """The options of a network family, and how to build it.

    A built module maps ``(N, C, *S)`` to logits ``(N, K, *S)`` and raises ``ValueError`` or ``RuntimeError``
    naming :attr:`divisor` where an extent of ``S`` does not divide by it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @property
    @abstractmethod
    def divisor(self) -> int:
        """Every extent of the input must divide by this."""

    @abstractmethod
    def build(self, interface: Interface) -> nn.Module:
        """A new module with random weights.

        Raises:
            UsageError: The family has no such rank.
        """

    def encoder(self, module: nn.Module) -> nn.Module | None:  # noqa: ARG002 - for families that have one
        """The pre-trained part of a module built by :meth:`build`, None where there is none."""
        return None

    def encoder_stages(self, module: nn.Module) -> list[nn.Module]:
        """The encoder in parts, the input's side first, for unfreezing it from one on; empty without encoder.

        A part may be a mere group of modules, to freeze and to train, not to call. A family that cannot part
        its encoder gives it whole.
        """
        encoder = self.encoder(module)
        return [] if encoder is None else [encoder]

    def load_pretrained(self, module: nn.Module, weights: Path | None) -> None:  # noqa: ARG002 - as above
        """Fill the encoder with pre-trained weights.

        Args:
            module: Built here.
            weights: A file of tensors, or the folder of a segtool run; None takes them from where the family
                finds them, if its options ask for any.

        Raises:
            UsageError: ``weights`` is given and the family has no encoder, or the weights are not to be had.
        """
        if weights is not None:
            raise UsageError(
                f"--encoder-weights {weights}: this network has no encoder to fill", "Leave the option out."
            )


def check_extent(tensor: torch.Tensor, divisor: int) -> None:
    """Refuse a tensor ``(N, C, *S)`` whose spatial extents do not divide by ``divisor``.

    Says nothing while a graph is being recorded, where extents are symbols.

    Raises:
        ValueError: An extent does not divide.
    """
    if torch.onnx.is_in_onnx_export() or torch.compiler.is_compiling():
        return
    if any(n % divisor for n in tensor.shape[2:]):
        extent = "x".join(str(n) for n in tensor.shape[2:])
        raise ValueError(f"an input of {extent} does not divide by {divisor}; pad it or resize it")
