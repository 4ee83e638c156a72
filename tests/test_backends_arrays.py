"""With an engine on a GPU everything up to the label map happens in the engine's own arrays.

No GPU is needed: `device_arrays` stands in for cupy and refuses to be mixed with numpy.
"""

from pathlib import Path

import device_arrays
import numpy as np
import pytest
from tiny import bright_spec, volume_spec, write_model, write_pictures

from segtool import ensemble
from segtool.api import Model
from segtool.backends import load_backend
from segtool.backends.base import Backend
from segtool.pipeline import PredictOptions, _EngineStart, _models, predict_folder
from segtool.postprocess import activate, decide
from segtool.resample import array_module, on_host, resize
from segtool.sliding_window import slide
from segtool.spec import LabelSpec, ModelSpec

TWO = (LabelSpec(name="core", value=1), LabelSpec(name="rim", value=4))


class OnDevice:
    """An engine whose arrays are a GPU's."""

    def __init__(self, inner: Backend) -> None:
        self._inner, self.xp = inner, device_arrays
        self.name, self.version, self.device, self.precision = inner.name, inner.version, "cuda", inner.precision
        self.why = self.note = ""

    def run(self, batch: np.ndarray) -> np.ndarray:
        return device_arrays.asarray(self._inner.run(device_arrays.asnumpy(batch)))

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "load_backend", lambda *args, **options: OnDevice(load_backend(*args, **options)))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_the_stand_in_refuses_to_be_mixed() -> None:
    array = device_arrays.asarray(noise(3))
    with pytest.raises(TypeError):
        array + noise(3)
    with pytest.raises(TypeError):
        array[noise(3) > 0] = 1
    assert array_module(array) is device_arrays
    assert array_module(noise(3)) is np


@pytest.mark.parametrize("shape", [(8, 6, 10), (4, 3, 5), (11, 6, 5), (16, 12, 20)])
def test_resampling_stays_where_the_array_lies(shape: tuple[int, ...]) -> None:
    logits = noise(2, 8, 6, 10)
    answer = resize(device_arrays.asarray(logits), shape)
    assert array_module(answer) is device_arrays
    assert np.array_equal(on_host(answer), resize(logits, shape))


@pytest.mark.parametrize(
    ("spec", "threshold"),
    [
        (bright_spec(labels=TWO), 0.5),
        (bright_spec(labels=TWO), (0.3, 0.6)),
        (bright_spec(labels=TWO, activation="softmax"), 0.5),
        (bright_spec(labels=TWO, activation="softmax"), 0.3),
        (bright_spec(labels=TWO, activation="softmax"), (0.3, 0.6)),
    ],
)
def test_labels_are_decided_where_the_logits_lie(spec: ModelSpec, threshold: float | tuple[float, ...]) -> None:
    logits = noise(spec.output_channels, 9, 7)
    for function in (activate, lambda array, spec: decide(array, spec, threshold)):
        answer = function(device_arrays.asarray(logits), spec)
        assert array_module(answer) is device_arrays
        assert np.array_equal(on_host(answer), function(logits, spec))


def test_windows_are_blended_on_the_device() -> None:
    volume = noise(1, 20, 17, 9)
    blended = slide(volume, lambda batch: batch * 2, (16, 16, 16), 0.5, xp=device_arrays)
    assert array_module(blended) is device_arrays
    assert np.array_equal(on_host(blended), slide(volume, lambda batch: batch * 2, (16, 16, 16), 0.5))


@pytest.mark.parametrize("spec", [bright_spec(), volume_spec()], ids=["2d", "3d"])
def test_the_python_interface_gives_the_same_labels(tmp_path: Path, monkeypatch, spec: ModelSpec) -> None:
    model = write_model(tmp_path / "m.onnx", spec)
    volume = np.abs(noise(24, 20, 18))
    expected = Model(model).segment(volume, np.eye(4)).labels
    monkeypatch.setattr(ensemble, "load_backend", lambda *args, **options: OnDevice(load_backend(*args, **options)))
    assert expected.any()
    labels = Model(model, tta="flips").segment(volume, np.eye(4)).labels
    assert np.array_equal(labels, Model(model).segment(volume, np.eye(4)).labels)
    assert np.array_equal(labels, expected)


def test_the_pipeline_gives_the_same_report(tmp_path: Path, on_device: None) -> None:
    model = write_model(tmp_path / "m.onnx", bright_spec())
    write_pictures(tmp_path / "scans", 20)  # more than the batches of two threads
    report = predict_folder([tmp_path / "scans"], PredictOptions(model=model, output=tmp_path / "out"))
    assert report.device == "cuda"
    assert [case.status for case in report.cases] == ["done"] * 20
    assert all(case.scores["tumour"].dice == 1 for case in report.cases)


@pytest.mark.parametrize(("spec", "threads"), [(bright_spec(), 2), (volume_spec(), 1)], ids=["2d", "3d"])
def test_slices_are_copied_by_one_thread_while_another_computes(
    tmp_path: Path, on_device: None, spec: ModelSpec, threads: int
) -> None:
    options = PredictOptions(model=write_model(tmp_path / "m.onnx", spec), output=tmp_path / "out")
    engine = _EngineStart(_models(options), spec, options, calls=1, on_wait=lambda _line: None)()
    assert engine.calls == threads
