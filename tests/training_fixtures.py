"""Fixtures of training and export.

One thread a test: small tensors gain nothing from more, and other work on the machine slows them a lot.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_cheng import write_cheng


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set in the Cheng layout: 10 patients with 2 slices each."""
    return write_cheng(tmp_path_factory.mktemp("data") / "discs")
