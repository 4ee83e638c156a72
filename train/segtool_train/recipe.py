"""A recipe: everything that decides a training run, from one TOML file."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_serializer, model_validator

from segtool.errors import UsageError
from segtool.spec import ModelSpec
from segtool_train.augment import AugmentationRecipe
from segtool_train.data import LAYOUTS
from segtool_train.data.split_rule import SplitRecipe
from segtool_train.losses import get_loss
from segtool_train.networks import NETWORKS, get_network
from segtool_train.overrides import keys_at, of_its_set, override
from segtool_train.toml_text import toml_text

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
        background_values: Values of references, beside 0, that mean none of the labels. Any other value that no
            label names is an error.
        balance: What counts equally in an epoch of the usual length: samples, ``patient`` or ``group``, the
            class of an item. Samples of small ones are shown more often than those of large ones.
        patient: Regular expression whose first group, found in a case's name, is its patient, where the layout does
            not tell; None leaves that to the layout.
        split: How patients are parted.
    """

    layout: str = "folder"
    slices: Literal["all", "labelled"] = "all"
    background_values: tuple[int, ...] = ()
    balance: Literal["none", "patient", "group"] = "none"
    patient: str | None = None
    split: SplitRecipe = SplitRecipe()

    @field_validator("patient")
    @classmethod
    def _one_group(cls, value: str | None) -> str | None:
        try:
            groups = 1 if value is None else re.compile(value).groups
        except re.error as error:
            raise ValueError(f"{value!r} is not a regular expression ({error})") from error
        if groups < 1:
            raise ValueError(f"{value!r} has no group (...) that the patient would be")
        return value


class _Named(_Part):
    """A row of a table and its options. In TOML the options stand beside the name; a name alone has none."""

    name: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, raw: Any) -> Any:  # noqa: ANN401 - anything that TOML holds
        if isinstance(raw, str):
            return {"name": raw}
        if isinstance(raw, dict) and "options" not in raw:
            return {"name": raw.get("name"), "options": {k: v for k, v in raw.items() if k != "name"}}
        return raw

    @model_serializer
    def _spread(self) -> dict[str, Any]:
        return {"name": self.name, **{key: value for key, value in self.options.items() if value is not None}}


class NetworkRecipe(_Named):
    """A row of :data:`segtool_train.networks.NETWORKS` and its options."""


class LossRecipe(_Named):
    """A row of :data:`segtool_train.losses.LOSSES` and its options."""


class ScheduleRecipe(_Part):
    """How the learning rate moves.

    Args:
        name: ``onecycle``, ``cosine`` and ``poly`` move every step; ``plateau`` looks at what ``monitor`` names
            every epoch.
        warmup: Share of all steps in which ``onecycle`` rises.
        power: Of ``poly``, which falls to 0 as (1 - share of the steps done) to this power.
        factor: Of ``plateau``.
        patience: Epochs in a row without an improvement that ``plateau`` bears; it acts on the next one.
        floor: Lowest rate of ``cosine`` and ``plateau``.
    """

    name: Literal["onecycle", "cosine", "poly", "plateau", "constant"] = "onecycle"
    warmup: Annotated[float, Field(gt=0, lt=1)] = 0.1
    power: Annotated[float, Field(gt=0)] = 0.9
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 2
    floor: Annotated[float, Field(ge=0)] = 1e-6


class EarlyStoppingRecipe(_Part):
    """Stop after ``patience`` epochs in which what ``monitor`` names did not improve by more than ``min_delta``."""

    patience: Count
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainingRecipe(_Part):
    """The loop.

    Args:
        loss: Its name, or a table of its name and its options.
        lr: Learning rate, the highest where the schedule rises.
        batch: Samples that pass the network at once, over all devices together.
        accumulate: Batches whose gradients are averaged before the weights move.
        monitor: What the plateau, early stopping and the choice of the best epoch look at.
        ema_decay: Of the averaged weights, which are validated and kept; None keeps the last step's weights.
        gradient_clip: Largest norm of all gradients together; None does not clip.
        checkpoint_every: Epochs between the checkpoints from which ``--resume`` goes on.
        freeze_encoder_epochs: First epochs in which the encoder stands still; all of them freeze it for ever.
        unfreeze_from: First stage of the encoder, from the input's side and from 0, that is ever trained.
        encoder_lr: The encoder's own learning rate; None takes ``lr``.
        foreground_patches: Share of a 3D network's training patches centred on a label.
        copies: How many times an epoch shows each sample, augmented anew each time.
    """

    loss: LossRecipe = LossRecipe(name="bce_dice")
    optimiser: Literal["adam", "adamw", "nadam", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: ScheduleRecipe = ScheduleRecipe()
    epochs: Count = 50
    batch: Count = 16
    accumulate: Count = 1
    precision: Precision = "bf16"
    gradient_clip: Annotated[float, Field(gt=0)] | None = None
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    monitor: Literal["val_dice", "val_loss"] = "val_dice"
    early_stopping: EarlyStoppingRecipe | None = None
    checkpoint_every: Count = 1
    freeze_encoder_epochs: Annotated[int, Field(ge=0)] = 0
    unfreeze_from: Annotated[int, Field(ge=0)] = 0
    encoder_lr: Annotated[float, Field(gt=0)] | None = None
    foreground_patches: Share = 0.5
    copies: Count = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class InferenceRecipe(_Part):
    """What is chosen on the validation cases after training, and written into the model file.

    Args:
        learn_postprocessing: Thresholds and rules for components, where enough patients validate.
        learn_flips: Whether to average over flips at inference, which multiplies its time.
    """

    learn_postprocessing: bool = True
    learn_flips: bool = False


class Recipe(_Part):
    """A whole recipe. Its parts are the tables of the TOML file."""

    name: str
    data: DataRecipe = DataRecipe()
    network: NetworkRecipe
    spec: ModelSpec
    training: TrainingRecipe = TrainingRecipe()
    augmentation: AugmentationRecipe = AugmentationRecipe()
    inference: InferenceRecipe = InferenceRecipe()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        for what, name, table in (
            ("data.layout", self.data.layout, LAYOUTS),
            ("network.name", self.network.name, NETWORKS),
        ):
            if name not in table:
                raise ValueError(f"{what} {name!r} is not known; there are {', '.join(table)}")
        loss = self.training.loss
        if get_loss(loss.name, loss.options).activation != self.spec.activation:
            raise ValueError(f"loss {loss.name!r} does not fit activation {self.spec.activation!r}")
        divisor = get_network(self.network.name, self.network.options).divisor
        if self.spec.divisor % divisor:
            raise ValueError(f"spec.divisor {self.spec.divisor} is not a multiple of the network's {divisor}")
        return self

    def to_toml(self) -> str:
        """The recipe as resolved; :func:`parse_recipe` gives an equal one back."""
        return toml_text(self.model_dump(mode="json", by_alias=True, exclude_none=True))


def shipped_recipes() -> dict[str, Path]:
    """Name to file of the recipes that come with the package."""
    return {path.stem: path for folder in RECIPE_FOLDERS for path in sorted(folder.glob("*.toml"))}


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped recipe's name or of a path ending in ``.toml``.

    Raises:
        UsageError: Neither.
    """
    return find_toml("recipe", name_or_path, shipped_recipes())


def find_toml(what: str, name_or_path: str, shipped: Mapping[str, Path]) -> Path:
    """One of the ``shipped`` files by name, or a path ending in ``.toml``.

    Raises:
        UsageError: Neither; the line calls it ``what``.
    """
    if name_or_path in shipped:
        return shipped[name_or_path]
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise UsageError(
        f"{what} {name_or_path!r} is neither shipped nor a .toml file",
        f"Name one of {', '.join(shipped)}, or give a path that ends in .toml.",
    )


def read_recipe(path: Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read and check a recipe, with some of its values replaced.

    Args:
        path: A TOML file.
        overrides: As for :func:`segtool_train.overrides.override`.

    Raises:
        UsageError: Not TOML, or not valid; the line names the first fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})", "Check the path.") from error
    return parse_recipe(text, path.stem, str(path), overrides)


def parse_recipe(text: str, name: str, where: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """As :func:`read_recipe`, from text; ``name`` holds where the text gives none."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers and dates that Python does not make
        raise UsageError(f"{where}: not TOML ({error})", "Mend the file.") from error
    try:
        return Recipe.model_validate(override({"name": name, **raw}, of_its_set(overrides or {})))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "recipe"
        if first["type"] == "extra_forbidden":
            known = keys_at(Recipe, first["loc"][:-1])
            raise UsageError(f"{where}: the recipe has no key {place!r}", f"There are: {', '.join(known)}.") from error
        raise UsageError(
            f"{where}: the recipe is not valid at {place!r} ({first['msg'].removeprefix('Value error, ')})",
            "Mend the file or the option.",
        ) from error
    except UsageError as error:
        # From a check that does not know the file.
        raise UsageError(f"{where}: {error.problem}", error.remedy) from error
