"""The lines of a run file: what a run is, and a line for each case that somebody has finished."""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segtool.case_result import CaseResult
from segtool.claims import MOST_AT_ONCE
from segtool.output_folder import RunIdentity

_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


@dataclass
class Content:
    """What the lines of a run file say.

    Attributes:
        identity: Of the run; None before its line.
        results: By case, whoever finished it.
        lost: What scans could not make a case of.
        earlier: By case, what an earlier run did that this one goes on with.
        trusts_files: It goes on with results of which nothing is known but that they are there.
        runs: How many, each of which the next has replaced or gone on with.
        begun: By case without a result, whether it was done with nothing else in hand.
        deaths: By case that was in hand when a process died, how often it was the only one.
    """

    identity: RunIdentity | None = None
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    lost: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: dict[str, dict[str, Any]] = field(default_factory=dict)
    trusts_files: bool = False
    runs: int = 0
    begun: dict[str, bool] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)

    def take(self, line: bytes) -> str | None:
        """Take in one line; returns the case of which it is the result."""
        try:
            ((kind, value),) = json.loads(line).items()
            if kind == "begun":
                self._take_begun(value["name"], value["alone"])
                return None
            if kind != "run":
                CaseResult.from_dict(value)  # raises where it is none
            if kind == "run":
                self._begin(value)
            elif kind == "case":
                self.results[value["name"]] = value
                self.begun.pop(value["name"], None)
                if value["status"] != "failed":  # one that was given up is not tried again
                    self.deaths.pop(value["name"], None)
                return str(value["name"])
            elif kind == "lost":
                self.lost[f"{value['name']} {value.get('error')}"] = value
            elif kind == "earlier":
                self.earlier[value["name"]] = value
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            pass  # left half written by a process that was killed
        return None

    def _begin(self, value: Mapping[str, Any]) -> None:
        identity, trusts_files = RunIdentity.from_dict(value), value["trusts_files"]
        self.earlier = {**self.earlier, **self.results} if value["continues"] else {}
        self.results, self.lost = {}, {}
        self.identity, self.trusts_files = identity, trusts_files
        if not value["continues"]:
            self.begun, self.deaths = {}, {}
        for name in list(self.begun):
            self._count_death(name)
        self.runs += 1

    def _take_begun(self, name: object, alone: object) -> None:
        if not isinstance(name, str) or not isinstance(alone, bool):
            raise TypeError("no case that was begun")
        self._count_death(name)  # whoever had begun with it before left no result
        self.begun[name] = alone

    def _count_death(self, name: str) -> None:
        if name in self.begun:
            self.deaths[name] = self.deaths.get(name, 0) + self.begun.pop(name)

    def deaths_with(self, name: str) -> int | None:
        """How often a process died with this case alone in hand; None where none died that had it in hand."""
        if name not in self.begun:
            return self.deaths.get(name)
        return self.deaths.get(name, 0) + self.begun[name]


def read_run_file(path: Path) -> Content:
    """What a run file says; nothing where there is none.

    Raises:
        OSError: It cannot be read, or is a link.
    """
    content = Content()
    try:
        # A pipe would keep its reader waiting.
        file = os.open(path, os.O_RDONLY | _AS_IT_IS)
    except FileNotFoundError:
        return content
    with os.fdopen(file, "rb") as lines:
        if stat.S_ISREG(os.fstat(file).st_mode):
            while line := lines.readline(MOST_AT_ONCE):
                content.take(line)
    return content


def line_of(kind: str, value: Mapping[str, Any]) -> bytes:
    """A line as :meth:`Content.take` takes it in: ``run``, ``begun``, ``case``, ``lost`` or ``earlier``."""
    return json.dumps({kind: value}, separators=(",", ":")).encode() + b"\n"
