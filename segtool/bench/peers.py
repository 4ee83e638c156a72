"""Other tools that run the same network: found by entry point, so that inference knows none of them."""

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from segtool.backends.base import Backend
from segtool.bench.rows import Row
from segtool.case import CaseSource
from segtool.errors import MissingDependencyError, UsageError

GROUP = "segtool.bench_peers"


@runtime_checkable
class SegmentsCases(Protocol):
    """What a peer is beyond a backend if it segments whole cases by itself."""

    network_s: float
    """Seconds spent inside the network since the peer was loaded."""

    def segment(self, case: CaseSource, target: Path) -> None:
        """From the case's files to its label map at ``target``, a ``.nii.gz`` in a folder that is there.

        Raises:
            CaseError: The tool cannot take the case.
        """
        ...


def peer_names() -> tuple[str, ...]:
    """All that are registered, whether or not what they need is installed."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load_peer(row: Row) -> Backend:
    """The row's peer, loaded.

    Raises:
        UsageError: No peer has this name.
        MissingDependencyError: What all peers share, torch, is not installed.
        UserError: The peer cannot run the row's model; it says why.
    """
    for point in entry_points(group=GROUP):
        if point.name == row.peer:
            try:
                make = cast("Callable[[Row], Backend]", point.load())
            except ModuleNotFoundError as error:
                raise MissingDependencyError(
                    f"--compare {row.peer}: {error.name} is not installed",
                    "Install it with: pip install 'segtool[export]'",
                ) from error
            return make(row)
    raise UsageError(
        f"--compare {row.peer}: nothing of that name is known here",
        f"Choose some of: {', '.join(peer_names()) or 'none; install segtool[export]'}.",
    )
