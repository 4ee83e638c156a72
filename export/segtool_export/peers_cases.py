"""What tools that segment whole cases share: the models and files they take, and a clock inside the network.

Each runs the trained network in eager torch, as the tool itself calls it, with windows of the spec's size and overlap
and Gaussian blending, and writes the label map as the tool does. The spec's thresholds and rules of post-processing
are segtool's own and take no part.
"""

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from segtool.bench.rows import Row
from segtool.case import UNNAMED, CaseSource
from segtool.errors import CaseError, MissingDependencyError, UsageError
from segtool.loading import bind_channels
from segtool.machine import version_of
from segtool.model_file import read_spec
from segtool.spec import IntensitySpec, ModelSpec, VolumeSpec
from segtool_export.peers import TorchPeer

_INTENSITY = IntensitySpec(kind="zscore", foreground="nonzero", background="zero")


class CasePeer(TorchPeer):
    """The run's network inside a tool, which implements ``segment`` of :class:`segtool.bench.peers.SegmentsCases`.

    Args:
        row: As of :class:`TorchPeer`.
        mixed: Mixed precision.

    Raises:
        MissingDependencyError: The tool is not installed.
        UsageError: The tool cannot prepare cases as this model wants them, or its folder is not that of a run.
        DeviceError: No such device, or none that torch has.
    """

    tool: ClassVar[str]
    package: ClassVar[str]
    install: ClassVar[str]

    def __init__(self, row: Row, mixed: bool) -> None:
        check_installed(self.tool, self.package, self.install)
        self.volumes = check_model(self.tool, read_spec(row.model))
        super().__init__(row, mixed)
        self.version = version_of(self.package) or ""
        self.network_s = 0.0
        self._entered = 0.0
        module: nn.Module = self._network
        module.register_forward_pre_hook(self._enter)
        module.register_forward_hook(self._leave)

    def _enter(self, _module: nn.Module, _images: Any) -> None:  # noqa: ANN401 - torch's hook
        self._wait()
        self._entered = time.perf_counter()

    def _leave(self, _module: nn.Module, _images: Any, _logits: Any) -> None:  # noqa: ANN401 - torch's hook
        self._wait()
        self.network_s += time.perf_counter() - self._entered

    def _wait(self) -> None:
        """A GPU answers before it has computed."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def check_installed(tool: str, package: str, install: str) -> None:
    """Refuse to go on without a tool.

    Raises:
        MissingDependencyError: Its package is not installed.
    """
    if find_spec(package) is None:
        raise MissingDependencyError(f"{tool} is not installed", f"Install it with: pip install {install}")


def check_model(tool: str, spec: ModelSpec) -> VolumeSpec:
    """Refuse a model whose images or labels these tools would make otherwise; its input.

    Raises:
        UsageError: Slices, another normalisation, other outputs, or flips.
    """
    if spec.input.rank == 2:
        raise UsageError(
            f"{tool} slides windows over volumes, and {spec.name} is a 2D model", _leave_out("Compare a 3D model")
        )
    wanted = {
        "a z-score of what is not 0, on 0": spec.intensity == _INTENSITY,
        "softmax over labels with the values 1, 2, 3 and so on": spec.activation == "softmax"
        and [label.value for label in spec.labels] == list(range(1, len(spec.labels) + 1)),
        "no test-time flips": not spec.test_time_flips,
    }
    lacks = [what for what, has in wanted.items() if not has]
    if lacks:
        raise UsageError(f"{tool} is compared on models with {lacks[0]}, which {spec.name} is not", _leave_out())
    return spec.input


def _leave_out(rather: str = "Compare another model") -> str:
    return f"{rather}, or leave the tool out of --compare."


def nifti_files(tool: str, case: CaseSource, spec: ModelSpec) -> list[Path]:
    """The case's files, one a channel in the order of the model.

    Raises:
        CaseError: Other files than NIfTI, or several channels in one.
        MissingChannelError: The case lacks a channel.
    """
    sources = (case.first,) if UNNAMED in case.channels else bind_channels(case, spec)
    kinds = {source.format for source in sources}
    remedy = "Give --cases a folder of such files, or leave the tool out of --compare."
    if kinds != {"nifti"}:
        raise CaseError(f"{tool} is given NIfTI files, this case is {' and '.join(sorted(kinds))}", remedy)
    if len({source.path for source in sources}) < len(spec.channels):
        raise CaseError(f"{tool} is given one NIfTI file a channel, this case has several in one", remedy)
    return [source.path for source in sources]
