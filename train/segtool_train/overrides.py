"""Single values of a recipe replaced from outside: ``--set training.lr=1e-3``, or a sweep's next trial."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from segtool.errors import UsageError

_PROVENANCE = "spec.provenance."
_OF_A_SET = ("data_licence", "data_changes", "citation", "licence")
"""Provenance that holds for one set and for weights trained on it."""
_NOT_BARE = ("[", "{", '"', "'")
"""What a value that is meant as TOML begins with; anything else that TOML does not know is a bare string."""


def parse_setting(text: str) -> tuple[str, Any]:
    """Key and value of ``KEY=VALUE``.

    Args:
        text: KEY is a dotted path into the recipe's TOML. VALUE is TOML, or a bare string (``bce`` for
            ``"bce"``); an empty one is None, which gives the key its default back.

    Raises:
        UsageError: No key, or a value that is neither.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(key.split(".")):
        raise UsageError(f"--set {text!r} is not KEY=VALUE", "Write it like --set training.lr=1e-3.")
    if not value:
        return key, None
    try:
        (parsed,) = tomllib.loads(f"value = {value}").values()
    except (ValueError, RecursionError) as error:
        if value.startswith(_NOT_BARE) or "\n" in value:
            raise UsageError(
                f"--set {text!r}: the value is not TOML ({error})",
                "Write it like --set spec.input.size=[128,128], or quote a string: 'name=\"a b\"'.",
            ) from error
        return key, value
    return key, parsed


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """All of ``--set``, by key; a later one replaces an earlier one."""
    return dict(map(parse_setting, texts))


def of_its_set(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``overrides`` that name another set, without what the recipe says of its own: terms, changes, whom to cite."""
    if f"{_PROVENANCE}data" not in overrides:
        return dict(overrides)
    return {**{f"{_PROVENANCE}{key}": None for key in _OF_A_SET}, **overrides}


def override(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's TOML with some of its values replaced; ``raw`` stays as it is.

    Args:
        raw: Nested tables.
        overrides: Dotted path to value: ``{"training.lr": 1e-3, "network.width": 16}``. None takes the key
            away, so that its default holds. Where the path leads through a name that stands for a table,
            as in ``loss = "dice"``, that becomes ``loss = { name = "dice" }``.

    Raises:
        UsageError: The path leads through something that is no table.
    """
    changed = dict(raw)
    for key, value in overrides.items():
        *path, last = key.split(".")
        table = changed
        for number, part in enumerate(path, start=1):
            table[part] = _table(table.get(part, {}), ".".join(path[:number]), key)
            table = table[part]
        if value is None:
            table.pop(last, None)
        else:
            table[last] = value
    return changed


def _table(found: Any, place: str, key: str) -> dict[str, Any]:  # noqa: ANN401 - any TOML value
    """A copy of the table ``found`` at ``place``."""
    if isinstance(found, str):
        return {"name": found}
    if not isinstance(found, Mapping):
        raise UsageError(
            f"the recipe has no key {key!r}: {place!r} holds a {type(found).__name__}",
            f"Replace {place} as a whole.",
        )
    return dict(found)


def keys_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Keys of the table at ``place`` inside ``model``; of the deepest table on the way that is known."""
    for part in place:
        inner = model.model_fields[part].annotation if part in model.model_fields else None
        tables = [kind for kind in (inner, *get_args(inner)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not tables:
            break
        model = tables[0]
    return list(model.model_fields)
