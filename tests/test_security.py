"""What inference never does: unpickle, start processes, talk to a network, load a library of somebody's."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import bright_spec, write_model, write_pictures

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "segtool"
ENTRIES = ("segtool.api", "segtool.commands.predict", "segtool.commands.evaluate", "segtool.commands.inspect",
           "segtool.commands.models", "segtool.commands.demo", "segtool.backends.onnx_runtime",
           "segtool.backends.openvino_engine", "segtool.backends.tensorrt_engine")  # fmt: skip
"""Where inference begins; engines are imported by name."""

MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "torch", "subprocess",
    "multiprocessing", "socket", "socketserver", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "ftplib",
    "smtplib", "asyncio", "webbrowser", "pty", "code", "codeop", "runpy",
}  # fmt: skip
"""Never imported by it."""
CALLS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {
    "system", "popen", "fork", "forkpty", "execv", "execve", "execvp", "spawnv", "spawnl", "posix_spawn", "startfile",
    "register_custom_ops_library", "load_library", "dlopen", "add_extension", "loads_pickle",
}  # fmt: skip
"""Of any module or object: starts a process or loads a library into an engine."""
MAY: dict[str, set[str]] = {
    "segtool.backends.nvidia": {"ctypes"},  # asks the driver which GPUs there are
}


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what a module imports, wherever it does so, and of modules that it names in texts."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "the house imports by full names"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("segtool."):
            yield node.value.partition(":")[0]  # of tables from names to `module:Class`


def reachable() -> dict[str, ast.AST]:
    """Every module of ours that inference may come to import, parsed."""
    found: dict[str, ast.AST] = {}
    waiting = list(ENTRIES)
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if file is None or name in found:
            continue
        found[name] = ast.parse(file.read_text(encoding="utf-8"))
        waiting += [one for one in imported(found[name]) if one.partition(".")[0] == "segtool"]
        waiting.append(name.rpartition(".")[0])  # the package above runs first
    return found


@pytest.fixture(scope="module")
def graph() -> dict[str, ast.AST]:
    return reachable()


def test_the_walk_reaches_all_that_inference_has(graph: dict[str, ast.AST]) -> None:
    assert len(graph) > 100
    for name in ("segtool.formats.dicom.read", "segtool.outputs.dicom_seg", "segtool.backends.engine_cache",
                 "segtool.scan.archives", "segtool.formats.hdf5", "segtool.postprocess.decision"):  # fmt: skip
        assert name in graph


def test_nothing_that_runs_code_from_files_or_talks_to_anybody_is_imported(graph: dict[str, ast.AST]) -> None:
    found = {
        (name, one)
        for name, tree in graph.items()
        for one in imported(tree)
        if one.partition(".")[0] in MODULES | {"ctypes"} and one.partition(".")[0] not in MAY.get(name, set())
    }
    assert found == set()


def test_nothing_evaluates_text_starts_a_process_or_brings_a_library_into_an_engine(graph: dict[str, ast.AST]) -> None:
    found = []
    for name, tree in graph.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
                found.append((name, node.func.id))
            if isinstance(node, ast.Attribute) and node.attr in ATTRIBUTES:
                found.append((name, node.attr))
            if (
                isinstance(node, ast.keyword)
                and node.arg in ("shell", "allow_pickle")
                and ast.unparse(node.value) != "False"
            ):
                found.append((name, node.arg))
    assert found == []


def test_nobody_in_the_house_registers_a_library_of_operators_or_runs_a_shell() -> None:
    folders = ("segtool", "train", "export", "benchmarks")
    texts = {path: path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")}
    for word in (
        "register_custom_ops_library",
        "shell=True",
        "os.system",
        "allow_pickle=True",
        "yaml.load",
        "weights_only=False",
    ):
        assert [str(path) for path, text in texts.items() if word in text] == []


def test_torch_files_are_read_as_tensors_alone() -> None:
    """Every ``torch.load`` says so, and so does whoever hands a checkpoint to Lightning."""
    seen = 0
    for path in [*(ROOT / "train").rglob("*.py"), *(ROOT / "export").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            text = ast.unparse(node.func)
            if text == "torch.load" or "ckpt_path" in words or text.endswith("load_from_checkpoint"):
                assert words.get("weights_only") == "True", f"{path}: {ast.unparse(node)}"
                seen += 1
            assert text not in ("pickle.load", "pickle.loads", "joblib.load", "torch.hub.load")
    assert seen >= 4


STARTS = ("InferenceSession", "read_model", "parse_from_file")
CHECKED = {
    "segtool/backends/onnx_runtime.py", "segtool/backends/openvino_engine.py", "segtool/backends/tensorrt_build.py",
    "segtool/bench/limit.py", "export/segtool_export/foreign.py",
}  # fmt: skip
"""Who gives files to engines: three are given a `Graph`, which `read_graph` alone makes, the others call it before."""


def test_no_engine_is_given_a_file_that_was_not_checked() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("segtool", "train", "export")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in STARTS
    }
    assert found == CHECKED


WATCHED = r"""
import json, os, sys
out, temporary = sys.argv[1], sys.argv[2]
bad = []
NEVER = ("socket.", "subprocess.Popen", "os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "pty.spawn",
         "pickle.find_class", "urllib.Request", "http.client", "ftplib", "smtplib", "webbrowser", "code.__new__")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def hook(event, arguments):
    if event.startswith(NEVER):
        bad.append((event, str(arguments)[:200]))
    elif event == "ctypes.dlopen":
        name = str(arguments[0])
        known = (sys.prefix, sys.base_prefix, "/lib", "/usr/lib")
        if "/" in name and not name.startswith(known):
            bad.append((event, name))
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        name = os.path.abspath(os.fsdecode(arguments[0])) if not isinstance(arguments[0], int) else ""
        if name and not name.startswith((out, temporary, "/dev/", "/proc/")) and "__pycache__" not in name:
            bad.append((event, name))
sys.addaudithook(hook)
from segtool.cli import main
try:
    main(sys.argv[3:])
    code = 0
except SystemExit as stop:
    code = stop.code or 0
numbers = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
files = [os.readlink(number) for number in numbers if os.path.islink(number)]
bad += [("socket left", one) for one in files if one.startswith("socket:")]
print(json.dumps({"code": code, "bad": bad}), file=sys.stderr)
"""
"""Predicts while Python reports what it does. Engines are machine code and report nothing: of them it is seen whether
they leave a socket open or anything in the home folder."""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files as Linux has them")
@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_a_prediction_starts_nothing_asks_nobody_and_writes_its_results_alone(tmp_path: Path, device: str) -> None:
    if device == "openvino":
        pytest.importorskip("openvino")
    model = write_model(tmp_path / "model.onnx", bright_spec())
    write_pictures(tmp_path / "scans", 2)
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    arguments = ["predict", str(tmp_path / "scans"), "-m", str(model), "-o", str(out), "--device", device, "--overlay"]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(out), str(temporary), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "/nowhere", "HOME": str(tmp_path / "home"), "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stderr.splitlines()[-1]) == {"code": 0, "bad": []}, done.stdout
    assert not (tmp_path / "home").exists()


def test_onnx_runtime_does_not_tell_its_maker_of_models(tmp_path: Path) -> None:
    """It would from version 1.29 on, as soon as it is imported, with an identifier in the home folder."""
    code = "import segtool, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    rows = (({}, "; import onnxruntime", "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "", "0"))  # what the user says stays
    for given, more, wanted in rows:
        environment = {"HOME": str(tmp_path / "home"), **given}
        done = subprocess.run(
            [sys.executable, "-c", code + more], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.strip() == wanted
    assert not (tmp_path / "home").exists()


def test_the_watch_would_see_it(tmp_path: Path) -> None:
    spoilt = WATCHED.replace(
        "    main(sys.argv[3:])",
        "    import pickle, socket, subprocess; subprocess.run(['true']); pickle.loads(b'cos\\ngetcwd\\n.');"
        "open(sys.argv[3], 'w').close(); socket.socket().close()",
    )
    done = subprocess.run(
        [sys.executable, "-c", spoilt, str(tmp_path / "out"), str(tmp_path / "tmp"), str(tmp_path / "elsewhere")],
        capture_output=True,
        text=True,
        check=True,
    )
    events = {event for event, _ in json.loads(done.stderr.splitlines()[-1])["bad"]}
    assert {"subprocess.Popen", "pickle.find_class", "open", "socket.__new__"} <= events


# The pinned packages


def test_the_lock_and_the_constraints_agree_and_cover_what_inference_needs() -> None:
    import tomllib

    from benchmarks.lock import LOCK, pins

    locked, constraints = (pins(path.read_text(encoding="utf-8")) for path in (LOCK, ROOT / "constraints.txt"))
    assert all(digests for _, digests in locked.values())
    assert {name for name in locked if name in constraints and locked[name][0] != constraints[name][0]} == set()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = [Requirement(text) for text in (*project["dependencies"], *extras["cpu"], *extras["dicom"])]
    for one in wanted:
        version, _ = locked[canonicalize_name(one.name)]
        assert one.specifier.contains(version), one
    assert not {"torch", "monai", "lightning", "onnx"} & locked.keys()
    assert "--only-binary :all:" in LOCK.read_text(encoding="utf-8")


# What SECURITY.md says


def test_the_limits_in_security_md_are_those_of_the_code() -> None:
    import re
    from dataclasses import asdict

    from segtool.limits import DEFAULT_LIMITS

    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| ([\d ,]+) \|", text, re.MULTILINE))
    assert {name: int(value.replace(",", "")) for name, value in table.items()} == asdict(DEFAULT_LIMITS)


def test_the_tests_and_files_that_security_md_names_are_there() -> None:
    import re

    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests|benchmarks|segtool|train|export)/[\w./-]+)`", text))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).exists()] == []
