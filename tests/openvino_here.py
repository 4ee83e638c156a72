"""OpenVINO for tests, without its converter, whose import reports itself over the network."""

from typing import Any

import pytest

from segtool.backends.openvino_engine import import_openvino
from segtool.errors import MissingDependencyError


def openvino_or_skip() -> Any:
    """The package, or a skip that says why it is not here."""
    try:
        return import_openvino()
    except MissingDependencyError as error:
        pytest.skip(error.problem)
