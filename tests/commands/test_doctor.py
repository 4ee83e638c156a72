import json
import sys

import numpy as np
import pytest
import typer
from tiny import bright_spec, volume_spec, write_model
from typer.testing import CliRunner

from segtool import bundled
from segtool.backends.nvidia import driver
from segtool.commands import doctor as room


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An installation whose bundled models are those written into the folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(bundled, "MODELS_FOLDER", folder)
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes the metadata of a package as pip would, where Python finds it first."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])

    def install(name, version, *requires):
        folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {line}" for line in requires]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")

    return install


def run(*arguments):
    app = typer.Typer()
    app.command()(room.doctor)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_working_installation_runs_its_model_and_exits_0(shelf):
    write_model(shelf / "bright.onnx", bright_spec())
    result = run()
    assert result.exit_code == 0
    assert "trial run       bright on cpu" in result.stdout
    assert result.stdout.splitlines()[-1] == "Prediction works here."


def test_a_3d_model_is_tried_too(shelf):
    write_model(shelf / "bright.onnx", volume_spec())
    (finding,) = room.trial_run()
    assert finding.status == "ok"
    assert "16x16x16" in finding.value


def test_no_model_means_no_prediction_and_exit_1(shelf):
    result = run()
    assert result.exit_code == 1
    assert "trial run       failed: " in result.stdout
    assert "--model" in result.stdout


def test_a_model_that_answers_nan_fails_the_trial(shelf):
    write_model(shelf / "bad.onnx", bright_spec(), np.array([[np.nan]]))
    (finding,) = room.trial_run()
    assert finding.status == "failed"
    assert "pip install --force-reinstall" in finding.remedy


def test_json_says_whether_it_works_and_lists_all_findings(shelf):
    write_model(shelf / "bright.onnx", bright_spec())
    report = json.loads(run("--json").stdout)
    assert report["works"] is True
    abouts = [finding["about"] for finding in report["findings"]]
    for expected in (
        "segtool",
        "python",
        "platform",
        "processor",
        "onnxruntime",
        "openvino",
        "gpu",
        "trial run",
    ):
        assert expected in abouts


def test_what_an_extra_lacks_is_named_with_its_install_line(installed):
    installed("segtool", "0.1.0", "numpy>=1", "numpy; extra == 'full'", 'no-such-thing>=2; extra == "train"')
    full, train = room.extras()
    assert (full.about, full.value) == ("[full]", "complete")
    assert (train.value, train.status) == ("no no-such-thing", "missing")
    assert train.remedy.endswith("pip install 'segtool[train]'")


def test_the_other_build_of_onnxruntime_is_not_called_missing(installed):
    installed("segtool", "0.1.0", "onnxruntime-gpu>=1.20; extra == 'gpu'")
    (finding,) = room.extras()
    assert finding.status == "ok"


def test_a_missing_dependency_fails(installed):
    installed("segtool", "0.1.0", "numpy>=1", "no-such-thing>=2")
    found, lacking = room.dependencies()
    assert found.value.startswith("numpy ")
    assert (lacking.status, lacking.remedy) == ("failed", "Install it with: pip install no-such-thing")


def test_two_builds_of_onnxruntime_are_warned_of(installed):
    installed("onnxruntime", "1.20.0")
    installed("onnxruntime-gpu", "1.20.0")
    first = next(iter(room.engines()))
    assert first.status == "note"
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in first.remedy


def test_a_gpu_is_listed_with_its_memory_or_its_absence_has_a_reason():
    try:
        found = driver()
    except OSError as error:
        assert "driver" in str(error)
    else:
        assert all(str(gpu).endswith("GiB") for gpu in found.gpus)
        assert float(found.cuda) > 9
