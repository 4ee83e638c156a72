"""What a mutation chooses from: hypothesis where it draws, a seeded generator where libFuzzer leads."""

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")


class Choices(Protocol):
    """Source of every decision of a mutation."""

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        ...

    def one(self, options: Sequence[T]) -> T:
        """One of them."""
        ...

    def content(self, most: int) -> bytes:
        """Up to ``most`` bytes."""
        ...


class Drawn:
    """Choices of hypothesis."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        """As of :class:`Choices`."""
        return int(self._draw(_integers(low, high)))

    def one(self, options: Sequence[T]) -> T:
        """As of :class:`Choices`."""
        return options[self.whole(0, len(options) - 1)]

    def content(self, most: int) -> bytes:
        """As of :class:`Choices`."""
        return bytes(self._draw(_binary(most)))


class Seeded:
    """Choices of a generator."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing here is a secret

    def whole(self, low: int, high: int) -> int:
        """As of :class:`Choices`."""
        return self._random.randint(low, high)

    def one(self, options: Sequence[T]) -> T:
        """As of :class:`Choices`."""
        return self._random.choice(options)

    def content(self, most: int) -> bytes:
        """As of :class:`Choices`."""
        return self._random.randbytes(self._random.randint(0, most))


# Building a strategy takes longer than drawing from it.
@lru_cache(maxsize=4096)
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


@lru_cache(maxsize=256)
def _binary(most: int) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=most)
