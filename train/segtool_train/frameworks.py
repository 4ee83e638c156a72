"""The libraries that import torchvision, and what must happen before they do."""

import ctypes
import logging
import platform
import warnings
from typing import Any

import torch

_TORCHVISION_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# glibc's mallopt(3) parameters
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_INT = 2**31 - 1
_TOP_PAD_BYTES = 256 * 2**20

_library: list[Any] = []  # torch forgets an operator when its Library object dies


def mend_torchvision() -> None:
    """Let torchvision be imported beside a CPU-only torch.

    torchvision registers shape rules for two operators of its compiled part as it is imported, and dies with
    "operator torchvision::nms does not exist" where that part was built for another torch, as the wheels of
    the package index are for a CPU-only one. Lightning, timm and segmentation-models-pytorch import
    torchvision, and nobody here calls the two operators: declaring them is enough. Nothing happens on a CUDA
    torch.
    """
    if torch.version.cuda is not None or _library:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call] # torch's own
    for signature in _TORCHVISION_OPERATORS:
        name = signature.partition("(")[0]
        if not hasattr(torch.ops.torchvision, name):
            library.define(signature)  # type: ignore[no-untyped-call] # torch's own
    _library.append(library)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory instead of handing it back to the kernel.

    Every training step allocates and frees the same hundreds of megabytes of activations. By default each of
    them is mapped, zeroed page by page by the kernel and unmapped again, which cost a quarter of a CPU's
    training time when measured. Elsewhere than on Linux with glibc nothing happens.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_INT)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
    mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)


def ignore_lightning_warnings() -> None:
    """Filter Lightning's warnings about itself and about choices made here; use in ``catch_warnings``."""
    ours = (
        # Lightning subclasses a torch class that newer torch versions deprecate.
        (FutureWarning, r".*LeafSpec.*deprecated.*", r"lightning\.pytorch\.utilities\._pytree"),
        # Batches are ready-made from a memory-mapped cache: on few cores, workers only copy them once more.
        (UserWarning, r".*does not have many workers.*", r"lightning\.pytorch\..*"),
        # A split may leave nobody to validate.
        (UserWarning, r".*have no `val_dataloader`.*", r"lightning\.pytorch\..*"),
    )
    for category, message, module in ours:
        warnings.filterwarnings("ignore", message, category, module)


mend_torchvision()

import lightning.pytorch as pl  # noqa: E402 - imports torchvision
from lightning.pytorch.utilities.exceptions import SIGTERMException  # noqa: E402 - as above

# Its information lines name devices that nobody asked for and advertise services.
for _package in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_package).setLevel(logging.WARNING)

__all__ = ["SIGTERMException", "ignore_lightning_warnings", "keep_freed_memory", "mend_torchvision", "pl"]
