"""Tables written as TOML, which Python's own library only reads."""

from typing import Any


def toml_text(raw: dict[str, Any]) -> str:
    """TOML that reads back as ``raw``, a table of everything that JSON has but null."""
    return "".join(_table(raw, ()))


def _table(raw: dict[str, Any], path: tuple[str, ...]) -> list[str]:
    """Lines of a table: plain values first, then its tables, each under its full name."""
    lines = [f"[{'.'.join(path)}]\n"] if path else []
    lines += [f"{_key(k)} = {_value(v)}\n" for k, v in raw.items() if not isinstance(v, dict)]
    lines.append("\n")
    for key, value in raw.items():
        if isinstance(value, dict):
            lines += _table(value, (*path, _key(key)))
    return lines


def _key(key: str) -> str:
    plain = key.replace("-", "").replace("_", "")
    return key if plain.isascii() and plain.isalnum() else _value(key)


def _value(value: Any) -> str:  # noqa: ANN401 - any value that JSON has
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
        return f'"{escaped}"'
    if isinstance(value, list):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())}}}"
    return repr(value)
