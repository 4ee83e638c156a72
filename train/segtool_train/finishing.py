"""What follows the last epoch. Packages that build on this one hook in here, so that it need not know them.

A finisher is an entry point of the group :data:`GROUP`; the export package has one, which makes the model file,
measures it on the run's test cases and writes its card.
"""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from segtool.errors import OutputError, UserError

if TYPE_CHECKING:
    from segtool_train.processes import Device

GROUP = "segtool.after_training"


class Finisher(Protocol):
    """Takes the folder of a trained run and gives facts for ``--json``.

    ``learn`` allows it to choose thresholds and post-processing on the validation cases. It leaves what training
    wrote as it is.
    """

    def __call__(self, run: Path, *, learn: bool, device: "Device", log: Callable[[str], None]) -> dict[str, Any]:
        """Finish ``run``. Raises UserError where that cannot be done."""
        ...


def finish(run: Path, *, learn: bool, device: "Device", log: Callable[[str], None]) -> dict[str, Any]:
    """Call every finisher that is installed; facts by its name.

    Raises:
        OutputError: A finisher gave up; the run stays as it was trained.
    """
    facts = {}
    for point in entry_points(group=GROUP):
        try:
            finisher: Finisher = point.load()
            facts[point.name] = finisher(run, learn=learn, device=device, log=log)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0].startswith("segtool"):
                raise
            raise OutputError(
                f"{run}: trained, but not finished: {error.name} is not installed",
                f"Install it with: pip install 'segtool[export]', then: segtool export {run} --card",
            ) from error
        except UserError as error:
            raise OutputError(
                f"{run}: trained, but not finished: {error.problem}",
                f"{error.remedy} Then: segtool export {run} --card",
            ) from error
    return facts
