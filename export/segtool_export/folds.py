"""Models of a cross-validation, exported side by side for an ensemble."""

import re
from pathlib import Path

from segtool.errors import UsageError
from segtool_export.exporting import PLAIN, Conversion, Exported, export_run
from segtool_export.finish import export_into_run
from segtool_train.run_folder import RunFolder

_FOLD = re.compile(r"fold-(\d+)")


def fold_runs(path: Path) -> list[Path]:
    """The runs ``fold-0``, ``fold-1`` ... in a folder that is no run itself; empty where it has none."""
    if not path.is_dir() or RunFolder(path).best_file.exists():
        return []
    folds = {int(match[1]): one for one in path.iterdir() if (match := _FOLD.fullmatch(one.name)) and one.is_dir()}
    return [folds[number] for number in sorted(folds)]


def export_folds(
    folds: list[Path], cases: Path | None, opset: int, min_component_share: float | None, conversion: Conversion = PLAIN
) -> list[Exported]:
    """Export each fold's best weights into its folder; arguments and errors as for :func:`export_home`.

    Raises:
        UsageError: A fold has not been trained yet.
    """
    unready = [fold for fold in folds if not RunFolder(fold).best_file.is_file()]
    if unready:
        raise UsageError(
            f"{unready[0]}: holds no trained weights ({len(unready)} of {len(folds)} folds)",
            "Finish the folds with `segtool train --folds ... --resume`, or export each run by itself.",
        )
    return [export_home(fold, cases, opset, min_component_share, conversion) for fold in folds]


def export_home(
    path: Path, cases: Path | None, opset: int, min_component_share: float | None, conversion: Conversion = PLAIN
) -> Exported:
    """Export into the run's own folder: to ``model.onnx``, or beside it, such as ``model-fp16.onnx``.

    Args:
        path: As for :func:`segtool_export.exporting.export_run`, as are the other arguments and the errors.
        cases: To compare on.
        opset: ONNX operator set.
        min_component_share: For the post-processing.
        conversion: Precision and shapes.
    """
    if conversion.plain:
        return export_into_run(path, cases, opset, min_component_share)
    home = path.parent if path.is_file() else path
    return export_run(path, home / conversion.file_name, cases, opset, min_component_share, conversion)


def ensemble_command(exported: list[Exported]) -> str:
    """The command that averages the models."""
    return f"segtool predict SCANS {' '.join(f'-m {one.path}' for one in exported)}"
