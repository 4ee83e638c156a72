"""The parent's end of a row's process: start it, ask it, end it."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

from segtool.bench.rows import Row
from segtool.errors import UserError

_PATIENCE_S = 10.0


class RowError(UserError):
    """One row could not be measured; the others can."""


def _command(task: str, row: Row, *paths: Path) -> list[str]:
    return [sys.executable, "-m", "segtool.bench.worker", task, json.dumps(row.as_dict()), *map(str, paths)]


class LatencyProcess:
    """A loaded engine that times calls whenever it is asked to."""

    def __init__(self, row: Row) -> None:
        # A file, since a pipe that nobody reads would stop an engine that says much.
        self._said = TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._process = subprocess.Popen(  # noqa: S603 - this Python, this package
            _command("latency", row),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            encoding="utf-8",
        )
        try:
            self.engine: dict[str, Any] = self._answer()["ready"]
        except BaseException:
            self.close()
            raise

    @property
    def process_id(self) -> int:
        """Of the operating system."""
        return self._process.pid

    def time_calls(self, seconds: float, calls: int) -> tuple[tuple[float, ...], float]:
        """Seconds of each call, and the process's peak memory in MB.

        Args:
            seconds: How long to go on at least.
            calls: How many to make at least.

        Raises:
            RowError: The process ended.
        """
        if self._process.stdin is None:
            raise RuntimeError("the process has no stdin")
        with contextlib.suppress(BrokenPipeError):  # it ended; why is asked for below
            self._process.stdin.write(json.dumps({"seconds": seconds, "calls": calls}) + "\n")
            self._process.stdin.flush()
        answer = self._answer()
        return tuple(answer["seconds"]), float(answer["peak_mb"])

    def _answer(self) -> dict[str, Any]:
        if self._process.stdout is None:
            raise RuntimeError("the process has no stdout")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._said.seek(0)
            raise _ended(code, self._said.read().decode(errors="replace"))
        return _checked(json.loads(line))

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            if self._process.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
            try:
                self._process.wait(_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def __enter__(self) -> "LatencyProcess":
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()


def segment_cases(row: Row, inputs: Path, output: Path, masks: Path | None) -> dict[str, Any]:
    """Segment a folder in a process of its own.

    Returns:
        ``elapsed_s``, ``cases``, ``failed``, ``stage_seconds``, ``peak_mb`` and ``reference_dice``.

    Raises:
        RowError: It cannot be done on this row's engine.
    """
    paths = (inputs, output) if masks is None else (inputs, output, masks)
    done = subprocess.run(  # noqa: S603 - this Python, this package
        _command("cases", row, *paths), capture_output=True, text=True, encoding="utf-8"
    )
    if not done.stdout.strip():
        raise _ended(done.returncode, done.stderr)
    return _checked(json.loads(done.stdout))


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        raise RowError(answer["error"], answer["remedy"])
    return answer


def _ended(code: int, said: str) -> RowError:
    """A process that ended without a word of ours: out of memory, a crash of the engine, a bug."""
    last = said.strip().splitlines()[-1:] or [f"signal {-code}" if code < 0 else f"exit code {code}"]
    return RowError(
        f"the row's process ended ({last[0]})", "Try a smaller --batch; out of memory ends a process without a word."
    )
