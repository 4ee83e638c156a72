"""Other tools that run the same network: found by entry point, so that inference knows none of them."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import cast

from segtool.backends.base import Backend
from segtool.bench.rows import Row
from segtool.errors import UsageError

GROUP = "segtool.bench_peers"


def peer_names() -> tuple[str, ...]:
    """All that are registered, whether or not what they need is installed."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def load_peer(row: Row) -> Backend:
    """The row's peer, loaded.

    Raises:
        UsageError: No peer has this name.
        UserError: The peer cannot run the row's model; it says why.
    """
    for point in entry_points(group=GROUP):
        if point.name == row.peer:
            return cast("Callable[[Row], Backend]", point.load())(row)
    raise UsageError(
        f"--compare {row.peer}: nothing of that name is known here",
        f"Choose some of: {', '.join(peer_names()) or 'none; install segtool[export]'}.",
    )
