"""What OpenVINO leaves behind in the process: no freed stack under a signal handler, no second ``Core``, no memory.

Each claim is tried in a process of its own: where it is wrong, the process dies.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openvino_here import openvino_or_skip
from tiny import bright_spec, write_model

from segtool.backends import load_backend
from segtool.backends.openvino_engine import the_core


@pytest.fixture
def model(tmp_path: Path) -> Path:
    openvino_or_skip()
    return write_model(tmp_path / "bright.onnx", bright_spec())


BEFORE = """
import faulthandler, gc, signal, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from segtool.backends import load_backend

def load():
    return load_backend(Path(sys.argv[1]), "openvino", 1)

def interrupt():
    gc.collect()
    signal.raise_signal(signal.SIGINT)  # to this thread

signal.signal(signal.SIGINT, lambda *_: print("handled"))
"""
IN_THE_ORDER_THEY_CAME = """
first, second = load(), load()
del first
gc.collect()
del second
interrupt()
"""
IN_ANOTHER_THREAD = """
with ThreadPoolExecutor(1) as pool:
    engines = [pool.submit(load).result()]
    engines.clear()
    pool.submit(interrupt).result()
"""
ENGINES_FIRST_THEN_FAULTHANDLER = """
engine = load()
faulthandler.enable()
del engine
interrupt()
"""
FAULTHANDLER_FIRST = """
faulthandler.enable()
engine = load()
del engine
interrupt()
"""
A_COMMAND_BETWEEN = """
from segtool.commands.doctor_engines import engines
first = load()
list(engines())
second = load()
del first
gc.collect()
del second
interrupt()
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(IN_THE_ORDER_THEY_CAME, id="in the order they came"),
        pytest.param(IN_ANOTHER_THREAD, id="in another thread"),
        pytest.param(ENGINES_FIRST_THEN_FAULTHANDLER, id="before faulthandler"),
        pytest.param(FAULTHANDLER_FIRST, id="after faulthandler"),
        pytest.param(A_COMMAND_BETWEEN, id="doctor between"),
    ],
)
def test_a_signal_is_handled_after_engines_are_let_go(model: Path, code: str) -> None:
    done = subprocess.run([sys.executable, "-c", BEFORE + code, model], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "handled\n", "")


def test_all_engines_share_one_core_whoever_starts_it(model: Path) -> None:
    load_backend(model, "openvino", 1).close()
    with ThreadPoolExecutor(4) as pool:
        assert {id(core) for core in pool.map(lambda _: the_core(), range(16))} == {id(the_core())}
