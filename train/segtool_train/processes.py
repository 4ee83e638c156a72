"""The processes of one training, one a device, and which of them this is.

Either Lightning starts the others, as copies of this command, or torchrun has started all.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import torch
import torch.distributed as dist

from segtool.errors import DeviceError, UsageError

T = TypeVar("T")
Device = Literal["auto", "cpu", "cuda"]

_LONGEST_FILL = timedelta(hours=12)
"""Others wait so long for the first process to fill the cache."""


@dataclass(frozen=True)
class Processes:
    """Who trains.

    Args:
        device: Kind of device.
        local: Processes on this machine.
        machines: How many there are.
        rank: Number of this process among all.
    """

    device: Literal["cpu", "cuda"]
    local: int = 1
    machines: int = 1
    rank: int = 0

    @property
    def world(self) -> int:
        """All processes."""
        return self.local * self.machines

    @property
    def first(self) -> bool:
        """True in the one process that writes and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> int:
        """Samples of a batch that fall to each process.

        Raises:
            UsageError: They do not divide.
        """
        if batch % self.world:
            raise UsageError(
                f"a batch of {batch} does not divide by {self.world} devices", "Change --batch or --devices."
            )
        return batch // self.world

    @contextmanager
    def first_one_first(self) -> Iterator[None]:
        """The block runs in the first process before it runs in the others.

        Needed under torchrun alone: what Lightning starts, it starts when the first process is past it.
        """
        if not _under_torchrun() or self.world == 1:
            yield
            return
        _join(self.device)
        if not self.first:
            dist.barrier()
        yield
        if self.first:
            dist.barrier()


def find_processes(device: Device, devices: int | None) -> Processes:
    """This process among those of ``devices`` devices of a machine.

    Args:
        device: ``auto`` takes CUDA where there is one.
        devices: How many; None takes what torchrun says, else one.

    Raises:
        DeviceError: There are not so many.
        UsageError: torchrun says otherwise.
    """
    kind = _kind(device)
    wanted = devices or 1
    machines, rank = 1, int(os.environ.get("LOCAL_RANK", "0")) if wanted > 1 else 0
    if _under_torchrun():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        if devices not in (None, local):
            raise UsageError(
                f"--devices {devices}: torchrun has started {local} processes here", "Leave --devices out."
            )
        wanted, rank = local, int(os.environ["RANK"])
        machines = int(os.environ["WORLD_SIZE"]) // local
    if kind == "cuda" and wanted > torch.cuda.device_count():
        raise DeviceError(
            f"{wanted} CUDA devices are wanted, and torch sees {torch.cuda.device_count()}", "Lower --devices."
        )
    return Processes(kind, wanted, machines, rank)


def exchange(value: T) -> list[T]:
    """``value`` of every process, by rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return [value for value in values if value is not None]


def _kind(wanted: Device) -> Literal["cpu", "cuda"]:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device",
            "Install a CUDA build of torch and a driver, or pass --device cpu.",
        )
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _under_torchrun() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched()


def _join(device: str) -> None:
    """Make the group that Lightning would make; it takes one that is there."""
    if dist.is_initialized():
        return
    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=_LONGEST_FILL)
