"""A recipe: everything that decides a training run, from one TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segtool.errors import UsageError
from segtool.spec import ModelSpec
from segtool_train.augment import AugmentationRecipe
from segtool_train.data import LAYOUTS
from segtool_train.data.split import SplitRecipe
from segtool_train.losses import LOSSES, SOFTMAX_LOSSES
from segtool_train.networks import NETWORKS, get_network

_HERE = Path(__file__).resolve().parent
RECIPE_FOLDERS = (_HERE / "recipes", _HERE.parent / "recipes")
"""Where shipped recipes lie: inside the installed package, or beside it in a checkout."""

Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Precision = Literal["bf16", "fp16", "fp32"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataRecipe(_Part):
    """Where items come from.

    Args:
        layout: A row of :data:`segtool_train.data.LAYOUTS`.
        slices: Of a volume for a 2D network: all that are not blank, or those that show a label.
        split: How patients are parted.
    """

    layout: str = "folder"
    slices: Literal["all", "labelled"] = "all"
    split: SplitRecipe = SplitRecipe()


class NetworkRecipe(_Part):
    """A row of :data:`segtool_train.networks.NETWORKS` and its options."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: dict[str, Any]) -> dict[str, Any]:
        # In TOML the options stand beside the name.
        if isinstance(raw, dict) and "options" not in raw:
            return {"name": raw.get("name"), "options": {k: v for k, v in raw.items() if k != "name"}}
        return raw


class ScheduleRecipe(_Part):
    """How the learning rate moves.

    Args:
        name: ``onecycle`` and ``cosine`` move every step; ``plateau`` looks at validation Dice every epoch.
        warmup: Share of all steps in which ``onecycle`` rises.
        factor: Of ``plateau``.
        patience: Epochs without a better Dice before ``plateau`` acts.
        floor: Lowest rate.
    """

    name: Literal["onecycle", "cosine", "plateau", "constant"] = "onecycle"
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.1
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 2
    floor: Annotated[float, Field(ge=0)] = 1e-6


class EarlyStoppingRecipe(_Part):
    """Stop after ``patience`` epochs in which validation Dice did not rise by more than ``min_delta``."""

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainingRecipe(_Part):
    """The loop.

    Args:
        ema_decay: Of the averaged weights, which are validated and kept; None keeps the last step's weights.
        gradient_clip: Largest norm of all gradients together; None does not clip.
        checkpoint_every: Epochs between the checkpoints from which ``--resume`` goes on.
        freeze_encoder_epochs: First epochs in which the encoder stands still.
        foreground_patches: Share of a 3D network's training patches centred on a label.
    """

    loss: str = "bce_dice"
    optimiser: Literal["adam", "adamw", "nadam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: ScheduleRecipe = ScheduleRecipe()
    epochs: Count = 50
    batch: Count = 16
    precision: Precision = "bf16"
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    early_stopping: EarlyStoppingRecipe | None = None
    checkpoint_every: Count = 1
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    foreground_patches: Share = 0.5
    seed: int = 0


class Recipe(_Part):
    """A whole recipe. Its parts are the tables of the TOML file."""

    name: str
    data: DataRecipe = DataRecipe()
    network: NetworkRecipe
    spec: ModelSpec
    training: TrainingRecipe = TrainingRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for what, name, table in (
            ("data.layout", self.data.layout, LAYOUTS),
            ("network.name", self.network.name, NETWORKS),
            ("training.loss", self.training.loss, LOSSES),
        ):
            if name not in table:
                raise ValueError(f"{what} {name!r} is not known; there are {', '.join(table)}")
        softmax = self.training.loss in SOFTMAX_LOSSES
        if softmax != (self.spec.activation == "softmax"):
            raise ValueError(f"loss {self.training.loss!r} does not fit activation {self.spec.activation!r}")
        divisor = get_network(self.network.name, self.network.options).divisor
        if self.spec.divisor % divisor:
            raise ValueError(f"spec.divisor {self.spec.divisor} is not a multiple of the network's {divisor}")
        return self

    def to_toml(self) -> str:
        """The recipe as resolved; :func:`parse_recipe` gives an equal one back."""
        raw = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        raw["network"] = {"name": self.network.name, **_without_none(self.network.options)}
        return "".join(_toml_table(raw, ()))


def shipped_recipes() -> dict[str, Path]:
    """Name to file of the recipes that come with the package."""
    return {path.stem: path for folder in RECIPE_FOLDERS for path in sorted(folder.glob("*.toml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped recipe's name or of a path ending in ``.toml``.

    Raises:
        UsageError: Neither.
    """
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise UsageError(
        f"recipe {name_or_path!r} is neither shipped nor a .toml file",
        f"Name one of {', '.join(shipped)}, or give a path that ends in .toml.",
    )


def read_recipe(path: Path, **overrides: Any) -> Recipe:  # noqa: ANN401 - values of [training], checked below
    """Read and check a recipe; ``overrides`` that are not None replace values of its ``[training]``.

    Raises:
        UsageError: Not TOML, or not valid; the line names the first fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", "Check the path.") from error
    return parse_recipe(text, path.stem, str(path), overrides)


def parse_recipe(text: str, name: str, where: str, overrides: dict[str, Any] | None = None) -> Recipe:
    """As :func:`read_recipe`, from text; ``name`` holds where the text gives none."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: not TOML ({error})", "Mend the file.") from error
    chosen = {key: value for key, value in (overrides or {}).items() if value is not None}
    training = raw.get("training", {})
    # A value where the table should be is left for the check below to name.
    raw = {"name": name, **raw, "training": {**training, **chosen} if isinstance(training, dict) else training}
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise UsageError(
            f"{where}: the recipe is not valid at {place!r} ({first['msg'].removeprefix('Value error, ')})",
            "Mend the file or the option.",
        ) from error


def _without_none(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if value is not None}


def _toml_table(raw: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Lines of a table: plain values first, then its tables, each under its full name."""
    lines = [f"[{'.'.join(path)}]\n"] if path else []
    lines += [f"{_toml_key(k)} = {_toml_value(v)}\n" for k, v in raw.items() if not isinstance(v, dict)]
    lines.append("\n")
    for key, value in raw.items():
        if isinstance(value, dict):
            lines += _toml_table(value, (*path, _toml_key(key)))
    return lines


def _toml_key(key: str) -> str:
    plain = key.replace("-", "").replace("_", "")
    return key if plain.isascii() and plain.isalnum() else _toml_value(key)


def _toml_value(value: Any) -> str:  # noqa: ANN401 - any value that JSON has
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_toml_key(k)} = {_toml_value(v)}' for k, v in value.items())}}}"
    return repr(value)
