"""What goes wrong in the middle of training, as one line that says what to change."""

import errno

import torch

from segtool.errors import OutputError, SegtoolError, UserError
from segtool_train.recipe import Recipe
from segtool_train.run_folder import RunFolder

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""As torch says it on CUDA, on Linux, on Windows, and where a library of CUDA finds no room."""
_COMPILER = ("torch._dynamo", "torch._inductor")
_MOST_NAMES = 8
_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class LossNotFiniteError(SegtoolError):
    """The loss became NaN or infinite.

    Args:
        value: Of the loss.
        epoch: From 1.
        batch: From 1.
        names: Items of the batch.
    """

    def __init__(self, value: float, epoch: int, batch: int, names: list[str]) -> None:
        super().__init__(value, epoch, batch, names)
        self.value, self.epoch, self.batch, self.names = value, epoch, batch, names


class NetworkNotFiniteError(SegtoolError):
    """An epoch's last steps left weights with which nothing finite can be computed.

    Args:
        epoch: From 1.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


def explain(error: BaseException, recipe: Recipe, run: RunFolder) -> UserError | None:
    """The line for ``error``; None where it is none that a user can mend."""
    if isinstance(error, LossNotFiniteError):
        return _not_finite(error, run)
    if isinstance(error, NetworkNotFiniteError):
        return UserError(
            f"the network answers with no finite numbers after epoch {error.epoch}; {_last_good(run)}",
            "Lower [training] lr, set gradient_clip, or train with --precision fp32.",
        )
    if isinstance(error, OSError) and error.errno in _NOT_WRITTEN:
        # Of a library that writes beside the run's own files, such as the TensorBoard log.
        return _full(f"{run.path}: cannot be written ({error.strerror})", run)
    if isinstance(error, OutputError):
        return _full(error.problem, run)
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return _out_of_memory(error, recipe)
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY):
        return _out_of_memory(error, recipe)
    if type(error).__module__.startswith(_COMPILER):
        said = str(error).strip().partition("\n")[0]
        return UserError(f"torch cannot compile the network ({said})", "Leave --compile out.")
    return None


def _not_finite(error: LossNotFiniteError, run: RunFolder) -> UserError:
    more = f" and {len(error.names) - _MOST_NAMES} more" if len(error.names) > _MOST_NAMES else ""
    names = ", ".join(error.names[:_MOST_NAMES]) + more
    return UserError(
        f"the loss became {error.value} in epoch {error.epoch}, batch {error.batch} ({names}); {_last_good(run)}",
        "Look at these cases, lower [training] lr, or train with --precision fp32.",
    )


def _last_good(run: RunFolder) -> str:
    return f"{run.last_file} is the last good state" if run.last_file.exists() else "no epoch had ended before"


def _full(problem: str, run: RunFolder) -> OutputError:
    go_on = "then go on with --resume" if run.last_file.exists() else "or name another folder with --output"
    return OutputError(f"{problem}; {_last_good(run)}", f"Free the space, {go_on}.")


def _out_of_memory(error: BaseException, recipe: Recipe) -> UserError:
    settings, size = recipe.training, recipe.spec.input
    key, extent = ("patch", size.patch) if size.rank == 3 else ("size", size.size)
    shape = "x".join(str(n) for n in extent)
    said = " ".join(str(error).split())
    asked = said[said.lower().find("tried to allocate") :] if "tried to allocate" in said.lower() else said
    half = max(1, settings.batch // 2)
    lighter = "" if settings.precision != "fp32" else ", or --precision bf16"
    return UserError(
        f"out of memory ({asked.partition('. ')[0][:80]}) with batch {settings.batch}, {key} {shape}, "
        f"precision {settings.precision}, accumulate {settings.accumulate}",
        f"Lower --batch to {half} with --set training.accumulate={2 * settings.accumulate}, "
        f"or lower spec.input.{key}{lighter}.",
    )
