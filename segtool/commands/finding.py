"""What ``segtool doctor`` reports, line by line."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "missing", "failed"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        about: What was looked at.
        value: What was found.
        status: ``failed`` where prediction cannot work, ``missing`` where something optional is not there,
            ``note`` where something is odd.
        remedy: The exact line that mends it, where there is one.
    """

    about: str
    value: str
    status: Status = "ok"
    remedy: str = ""
