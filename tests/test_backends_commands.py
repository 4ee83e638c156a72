"""Engines on the command line: what `predict`, `models --cache`, `export --tensorrt` and `doctor` say of them."""

import json
from datetime import date
from pathlib import Path

import pytest
from engine_keys import KEY
from openvino_here import openvino_or_skip
from shell import segtool
from tiny import bright_spec, write_model, write_pictures

from segtool.backends import nvidia
from segtool.backends.engine_cache import EngineCache
from segtool.commands import doctor_engines


def has_gpu() -> bool:
    try:
        nvidia.driver()
    except OSError:
        return False
    return True


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "scans", 5)
    return tmp_path / "scans"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "bright.onnx", bright_spec())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineCache:
    monkeypatch.setenv("SEGTOOL_CACHE", str(tmp_path / "cache"))
    return EngineCache()


# predict


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_predict_runs_on_openvino_in_the_precision_asked_for(scans, model, tmp_path, capsys, precision) -> None:
    openvino = openvino_or_skip()
    answer = segtool(
        capsys, "predict", scans, "-m", model, "-o", tmp_path / "out", "--device", "openvino", "--precision", precision
    )
    if answer.code == 2 and "does not compute in bf16" in answer.err:
        pytest.skip("this processor has no bf16")
    assert answer.code == 0
    version = openvino.__version__.partition("-")[0]
    assert answer.lines("model")[0].endswith(f"openvino {version} cpu {precision}")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["engine"], report["device"], report["precision"]) == (f"openvino {version}", "cpu", precision)
    assert [case["scores"]["tumour"]["dice"] for case in report["cases"]] == [1.0] * 5


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
def test_predict_says_why_auto_took_the_cpu(scans, model, tmp_path, capsys) -> None:
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out")
    assert answer.lines("model")[0].endswith("cpu fp32 (auto: no NVIDIA driver)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--precision", "fp99"), "Choose one of: fp32, fp16, bf16, int8."),
        (("--device", "npu"), "Choose one of: auto, cpu, cuda, tensorrt, openvino."),
        (("--device", "cpu", "--precision", "bf16"), "Pass --device openvino."),
        (("--device", "cpu", "--precision", "fp16"), "Export the model with --precision fp16"),
    ],
)
def test_predict_refuses_before_any_work(scans, model, tmp_path, capsys, arguments, said) -> None:
    answer = segtool(capsys, "predict", scans, "-m", model, "-o", tmp_path / "out", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert len(answer.err.splitlines()) == 1


def test_going_on_in_another_precision_is_refused(scans, model, tmp_path, capsys) -> None:
    openvino_or_skip()
    first = ("predict", scans, "-m", model, "-o", tmp_path / "out", "--device", "openvino", "--precision", "fp32")
    assert segtool(capsys, *first).code == 0
    answer = segtool(capsys, *first[:-1], "bf16", "--continue")
    assert answer.code == 2
    assert "other options than the earlier run" in answer.err


# models --cache


def test_engines_are_listed_and_cleared(cache: EngineCache, capsys) -> None:
    cache.put(KEY, b"plan" * 1000)
    (cache.folder / "timing.cache").write_bytes(b"times")
    (cache.folder / "onnxruntime-abc").mkdir()
    (cache.folder / "onnxruntime-abc" / "graph.engine").write_bytes(b"of another maker")
    heading, engine, summary = segtool(capsys, "models", "--cache").out.splitlines()
    assert heading.split()[:4] == ["model", "engine", "GPU", "precision"]
    for part in ("glioma", "tensorrt 10.16.1", "NVIDIA H200", "fp16", "8x1x32x32", "abababababab", str(date.today())):
        assert part in engine
    assert summary.startswith("1 engine, 2 other files, 0.0 MB in ")
    assert summary.endswith("segtool models --cache --clear")
    cleared = segtool(capsys, "models", "--cache", "--clear").out
    assert cleared.startswith(f"freed   1 engine, 2 other files, 0.0 MB in {cache.folder}")
    assert [path.name for path in cache.folder.iterdir()] == ["lock"]
    assert segtool(capsys, "models", "--cache").out.startswith("0 engines, 0.0 MB in ")


@pytest.mark.parametrize("header", [b'{"key": {"gpu": 1}}', b'{"key": "H200"}', b"[]", b"{", b""])
def test_a_file_that_is_no_engine_of_ours_is_another_file(cache: EngineCache, capsys, header: bytes) -> None:
    cache.put(KEY, b"plan")
    (cache.folder / "strange.engine").write_bytes(b"segtool engine 1\n" + header + b"\nplan")
    answer = segtool(capsys, "models", "--cache")
    assert answer.code == 0
    assert "1 engine, 1 other file, " in answer.out


def test_engines_as_json(cache: EngineCache, capsys) -> None:
    cache.put(KEY, b"plan")
    (engine,) = json.loads(segtool(capsys, "models", "--cache", "--json").out)
    assert (engine["model"], engine["gpu"], engine["precision"]) == ("glioma", "NVIDIA H200", "fp16")
    cleared = json.loads(segtool(capsys, "models", "--cache", "--clear", "--json").out)
    assert (cleared["deleted"], cleared["folder"]) == (1, str(cache.folder))


def test_a_cache_that_was_never_used_is_empty(cache: EngineCache, capsys) -> None:
    assert segtool(capsys, "models", "--cache").out == f"0 engines, 0.0 MB in {cache.folder}\n"
    assert json.loads(segtool(capsys, "models", "--cache", "--json").out) == []
    assert segtool(capsys, "models", "--cache", "--clear").code == 0
    assert not cache.folder.exists()


def test_an_engine_that_is_being_built_is_not_cleared_away(cache: EngineCache, capsys) -> None:
    cache.put(KEY, b"plan")
    with cache._locked(None):
        answer = segtool(capsys, "models", "--cache", "--clear")
    assert answer.code == 2
    assert "Try again when that is done" in answer.err
    assert cache.get(KEY) == b"plan"


@pytest.mark.parametrize("arguments", [("--clear",), ("t1ce-tumour-2d", "--cache")])
def test_only_the_whole_cache_is_cleared_or_listed(cache: EngineCache, capsys, arguments) -> None:
    answer = segtool(capsys, "models", *arguments)
    assert answer.code == 2
    assert "Run: segtool models --cache" in answer.err


# export --tensorrt


@pytest.mark.skipif(has_gpu(), reason="there is a GPU here")
def test_export_says_why_it_builds_no_engine(model, capsys) -> None:
    pytest.importorskip("torch", reason="export needs torch")
    answer = segtool(capsys, "export", model, "--tensorrt")
    assert answer.code == 2
    assert "there is none here (no NVIDIA driver)" in answer.err


@pytest.mark.parametrize("more", [("-o", "other.onnx"), ("--precision", "fp16"), ("--static-shape",), ("--bundle",)])
def test_export_builds_engines_into_the_cache_alone(model, capsys, more: tuple[str, ...]) -> None:
    pytest.importorskip("torch", reason="export needs torch")
    answer = segtool(capsys, "export", model, "--tensorrt", *more)
    assert answer.code == 2
    assert "Give the model, --cases and --triton alone." in answer.err


# doctor


def test_doctor_names_every_engine_with_what_installs_it() -> None:
    found = {finding.about: finding for finding in doctor_engines.engines()}
    assert list(found) == ["onnxruntime", "openvino", "tensorrt", "cupy"]
    for name, finding in found.items():
        installed = finding.value[0].isdigit() or finding.value.startswith("tensorrt")
        assert installed or "pip install 'segtool[" in finding.remedy, name


def test_doctor_tries_openvino_in_every_precision_it_has() -> None:
    openvino_or_skip()
    trials = [finding for finding in doctor_engines.other_trials() if finding.about == "trial openvino"]
    assert "openvino fp32" in trials[0].value
    assert "openvino bf16" in trials[1].value or "does not compute in bf16" in trials[1].value
