"""The models that come with the package, and their cards.

A model is ``segtool/models/NAME.onnx``. Its card lies in ``model_cards/NAME.md`` of the source tree; a wheel
carries the same file as ``segtool/models/NAME.md``.
"""

import difflib
from pathlib import Path

from segtool.errors import ModelError

_PACKAGE = Path(__file__).resolve().parent
MODELS_FOLDER = _PACKAGE / "models"
SUMS_NAME = "SHA256SUMS"
"""Of the bundled models, in the form that ``sha256sum --check`` reads."""
CARDS_FOLDERS = (MODELS_FOLDER, _PACKAGE.parent / "model_cards")


def bundled_models() -> dict[str, Path]:
    """Name to file of every bundled model, in the order of names."""
    return {path.stem: path for path in sorted(MODELS_FOLDER.glob("*.onnx"))}


def default_model() -> Path:
    """The model used where none is named: the bundled one, the first by name where there are several.

    Raises:
        ModelError: This installation carries none.
    """
    models = bundled_models()
    if not models:
        raise ModelError(
            "this installation of segtool carries no model",
            "Name one with --model, or install again with: pip install --force-reinstall --no-deps segtool",
        )
    return next(iter(models.values()))


def find_model(name_or_path: str | Path) -> Path:
    """The file of a bundled model's name, or the file itself.

    Whatever exists as a file, has folders in it or ends in ``.onnx`` is a path; the rest is a name.

    Raises:
        ModelError: No such file, or no such name; the line lists the known names, the nearest first.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    if path.is_dir():
        raise ModelError(f"{path}: a folder, wanted a model", "Give an .onnx file or a bundled model's name.")
    models = bundled_models()
    name = str(name_or_path)
    if name in models:
        return models[name]
    if path.suffix.lower() == ".onnx" or path.parent != Path():
        raise ModelError(
            f"{path}: no such file",
            f"Check the path, or name a bundled model ({_listed(models, path.stem)}).",
        )
    raise ModelError(f"no bundled model is called {name!r}", f"Known: {_listed(models, name)}; or give an .onnx file.")


def _listed(models: dict[str, Path], name: str) -> str:
    """All names, with the nearest to ``name`` in front."""
    near = difflib.get_close_matches(name, models, n=1, cutoff=0.5)
    if not near:
        return ", ".join(models) or "none in this installation"
    others = [other for other in models if other != near[0]]
    return f"{near[0]} (nearest)" + "".join(f", {other}" for other in others)


def recorded_sums() -> dict[str, str]:
    """SHA-256 by file of the bundled models, as they were when this version was made.

    Raises:
        ModelError: This installation has no such list.
    """
    path = MODELS_FOLDER / SUMS_NAME
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return {name: sha256 for sha256, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: the list of checksums is missing or damaged",
            "Install again with: pip install --force-reinstall --no-deps segtool",
        ) from error


def model_card(name: str) -> str:
    """The Markdown card of the bundled model ``name``.

    Raises:
        ModelError: The installation has no card of that name.
    """
    for folder in CARDS_FOLDERS:
        card = folder / f"{name}.md"
        if card.is_file():
            return card.read_text(encoding="utf-8")
    raise ModelError(
        f"the model {name!r} has no card in this installation",
        "Print its spec with: segtool inspect MODEL.onnx",
    )
