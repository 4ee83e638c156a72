"""``dataset.json`` of nnU-Net and the Medical Segmentation Decathlon: what channel number i is called."""

import json
from pathlib import Path
from typing import Any

from segtool.limits import DEFAULT_LIMITS
from segtool.scan.found import Problem

FILE_NAME = "dataset.json"


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever JSON holds
    """The content of a small file that lies beside scans.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, no plain file (a pipe would keep its reader waiting), or larger than any of its kind.
        RecursionError: It nests too deep.
    """
    if not path.is_file() or path.stat().st_size > DEFAULT_LIMITS.text_bytes:
        raise ValueError("no file, or too large")
    return json.loads(path.read_text(encoding="utf-8"))


def read_channel_names(path: Path) -> tuple[str, ...] | Problem | None:
    """Channel names in the order of their numbers.

    nnU-Net 2 calls the field ``channel_names``, nnU-Net 1 and the Decathlon ``modality``. Both map a number,
    written as text, to a name; some converters wrote the map the other way round.

    Returns:
        The names; None where the file says nothing about channels; a problem where it cannot be understood.
    """
    try:
        content: Any = read_json(path)
    except (OSError, ValueError, RecursionError):
        return Problem(str(path), "cannot be read as JSON, so that it names no channels", "Repair or remove the file.")
    table = content.get("channel_names", content.get("modality")) if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table:
        return None
    try:
        if not all(number.isdecimal() for number in table):
            table = {number: name for name, number in table.items()}
        numbered = {int(number): str(name) for number, name in table.items()}
    except (TypeError, ValueError, OverflowError):
        numbered = {}
    if sorted(numbered) != list(range(len(numbered))) or not numbered:
        return Problem(str(path), "its channels are not numbered from 0", 'Write them as {"0": "t1", "1": "t1ce"}.')
    return tuple(numbered[number] for number in range(len(numbered)))
