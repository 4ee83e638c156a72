"""Changes of JSON and TOML: values of another kind, keys dropped, doubled and renamed, numbers out of reason."""

import json
from collections.abc import Iterator
from typing import Any

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import FLOATS

_MARK = "\u2063mark\u2063"
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 256, 2**31, 2**63, 10**30, "", " ", "0", "a", "\0", "\n", "../x", "a" * 5000,
    [], {}, [[]], [None], {"": None}, {"a": {"b": {}}}, *FLOATS,
)  # fmt: skip
_RAW = (
    "[" * 3000, "[" * 200 + "]" * 200, '{"a":' * 3000, "9" * 5000, "-" + "9" * 400, "1e999", "NaN", "-Infinity",
    "\\u0000", '"\\ud800"', "{", "]", "", "0x1", "1_000", "2020-01-01", "'''", '"""', "nan", "inf", "00",
)  # fmt: skip
"""What stands in place of a value in the text."""

_LARGEST = 10**100


def places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - any JSON
    """Every list and table with every key of it."""
    if isinstance(tree, dict | list):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from places(tree[key])


def change_json(data: bytes, choices: Choices) -> bytes | None:
    """JSON with one value, key or place changed; None where it is none."""
    try:
        tree = json.loads(data)
        found = list(places(tree))
    except (ValueError, RecursionError):
        return None
    if not found:
        return None
    raw = _change(found, choices)
    text = json.dumps(tree, ensure_ascii=False)
    if raw is not None:
        text = text.replace(json.dumps(_MARK, ensure_ascii=False), raw, 1)
    return text.encode("utf-8", "surrogatepass")


def _change(found: list[tuple[Any, Any]], choices: Choices) -> str | None:
    """Change a tree; what is to be put in place of the mark once it is text."""
    holder, key = choices.one(found)
    other, other_key = choices.one(found)
    match choices.whole(0, 7):
        case 0:
            del holder[key]
        case 1 | 2:
            holder[key] = choices.one(_ODD)
        case 3:
            holder[key], other[other_key] = json.loads(json.dumps([other[other_key], holder[key]]))
        case 4 if isinstance(holder, dict):
            holder[choices.one(("", "a", "schema", "name", "labels", "labels.a", "\0", "x" * 5000))] = holder.pop(key)
        case 5:
            times = choices.one((2, 100))
            holder[key] = [json.loads(json.dumps(holder[key])) for _ in range(times)]
        case 6 if isinstance(holder[key], int | float) and abs(holder[key]) < _LARGEST:
            value = holder[key]
            holder[key] = choices.one((value + 1, -value, value * 10**6, float(value), str(value)))
        case _:
            holder[key] = _MARK
            return choices.one(_RAW)
    return None


def change_lines(data: bytes, choices: Choices) -> bytes | None:
    """TOML or CSV with a line dropped, doubled, moved, or another value behind its ``=`` or comma."""
    lines = data.split(b"\n")
    place, other = choices.whole(0, len(lines) - 1), choices.whole(0, len(lines) - 1)
    line = lines[place]
    match choices.whole(0, 5):
        case 0:
            del lines[place]
        case 1:
            lines.insert(other, line)
        case 2:
            lines[place], lines[other] = lines[other], line
        case 3 | 4:
            mark = b"=" if b"=" in line else b","
            key, found, _ = line.partition(mark)
            odd = choices.one(_ODD)
            text = choices.one(_RAW) if choices.whole(0, 1) else json.dumps(odd, ensure_ascii=False)
            lines[place] = key + (found or mark) + b" " + text.encode("utf-8", "surrogatepass")
        case _:
            lines[place] = line.replace(
                choices.one((b'"', b"[", b"]", b".", b",", b"=", b"\r")), choices.one((b"", b'"', b"\0")), 1
            )
    return b"\n".join(lines)
