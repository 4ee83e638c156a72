"""The trained network in torch itself, for ``segtool bench --compare``: what an export is to be quicker than.

Tools that segment whole cases with it are built on this, see :mod:`segtool_export.peers_cases`.
"""

from contextlib import AbstractContextManager, ExitStack
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from segtool.bench.rows import Row
from segtool.errors import DeviceError, UsageError, UserError
from segtool.model_file import read_spec
from segtool_export.weights import RunWeights

AnyArray = npt.NDArray[Any]


class TorchPeer:
    """Eager torch, in fp32 or by automatic mixed precision: bf16 on a CPU, fp16 on a GPU.

    Args:
        row: Its model file lies in the folder of the training run that it was exported from.
        mixed: Mixed precision.
        channels_last: Weights and images in the layout that convolutions of lower precision like best.

    Raises:
        UsageError: The model's folder is not that of a run.
        DeviceError: No such device, or none that torch has.
    """

    name: str = "torch"

    def __init__(self, row: Row, mixed: bool, *, channels_last: bool = False) -> None:
        try:
            network = RunWeights.at(row.model.parent).network()
        except UserError as error:
            raise UsageError(
                f"--compare {row.peer}: {row.model} does not lie in its training run ({error.problem})",
                "Give the model.onnx of a folder that `segtool train` wrote.",
            ) from error
        if row.device not in ("cpu", "cuda"):
            raise DeviceError(f"--compare {row.peer}: torch has no device {row.device}", "Pass --device cpu or cuda.")
        if row.device == "cuda" and not torch.cuda.is_available():
            raise DeviceError(f"--compare {row.peer}: torch {torch.__version__} sees no GPU", "Pass --device cpu.")
        if row.threads is not None:
            torch.set_num_threads(row.threads)
        self.version: str = torch.__version__
        self.spec = read_spec(row.model)
        self.device = row.device
        half = torch.bfloat16 if row.device == "cpu" else torch.float16
        self.precision = {torch.bfloat16: "bf16", torch.float16: "fp16"}[half] if mixed else "fp32"
        self.why = self.note = ""
        self.xp: ModuleType = np
        self._half = half if mixed else None
        last = torch.channels_last if self.spec.input.rank == 2 else torch.channels_last_3d
        self._layout = last if channels_last else torch.contiguous_format
        # A cast: torch's overloads of `to` do not know all memory formats.
        self._network: Any = cast("Any", network.eval().to(row.device)).to(memory_format=self._layout)

    def run(self, batch: AnyArray) -> AnyArray:
        """Logits ``(N, K, *S)`` of ``(N, C, *S)`` float32."""
        with self._inference():
            image = cast("Any", torch.from_numpy(batch)).to(self.device, memory_format=self._layout)
            return cast("AnyArray", self._network(image).float().cpu().numpy())

    def close(self) -> None:
        """Let go of the network."""
        self._network = None

    def _inference(self) -> AbstractContextManager[Any]:
        """Without gradients, in the row's precision."""
        stack = ExitStack()
        stack.enter_context(torch.inference_mode())
        stack.enter_context(torch.autocast(self.device, self._half, enabled=self._half is not None))
        return stack


def torch_eager(row: Row) -> TorchPeer:
    """Entry point ``torch``."""
    return TorchPeer(row, mixed=False)


def torch_mixed(row: Row) -> TorchPeer:
    """Entry point ``torch-amp``."""
    return TorchPeer(row, mixed=True, channels_last=True)
