"""Runs the command line in this process, as a shell would."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from segtool.cli import main


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    def lines(self, word: str) -> list[str]:
        """The lines of stdout that begin with ``word``, without it."""
        return [line.removeprefix(word).strip() for line in self.out.splitlines() if line.startswith(word)]


def segtool(capsys: pytest.CaptureFixture[str], *arguments: object) -> Answer:
    """Run ``segtool ARGUMENTS``; whatever is no way to leave a program is raised."""
    capsys.readouterr()
    code = 0
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return Answer(code, said.out, said.err)


def files_below(folder: Path) -> set[str]:
    """All files, hidden ones too, by their path below ``folder``."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
