"""Models whose weights one file cannot hold; the limit is lowered, as two gigabytes would take minutes."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from foreign_onnx import SPEC, write_foreign
from shell import segtool
from tiny import bright_spec, volume_spec
from torch import nn

from segtool.backends import load_backend, nvidia
from segtool.backends.graph import read_graph
from segtool.backends.tensorrt_build import load_bindings
from segtool.backends.tensorrt_engine import engine_key
from segtool.errors import MissingDependencyError, ModelError, UsageError
from segtool.model_file import read_spec, sha256
from segtool_export import external_data
from segtool_export.exporting import PLAIN, Conversion, Exported
from segtool_export.from_onnx import export_onnx
from segtool_export.onnx_file import write_onnx
from segtool_export.triton import write_repository


@pytest.fixture(autouse=True)
def lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "LARGEST_BYTES", 50)
    monkeypatch.setattr(external_data, "_SMALLEST_BYTES", 64)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))


def export(folder: Path, conversion: Conversion = PLAIN) -> Exported:
    """A foreign file as ours, alone in a folder."""
    (folder / "spec.toml").write_text(SPEC, encoding="utf-8")
    source = write_foreign(folder / "other.onnx")
    return export_onnx(source, folder / "out" / "ours.onnx", folder / "spec.toml", None, None, conversion)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("half", [None, "nothing"], ids=["fp32", "fp16"])
def test_a_network_is_written_as_a_model_and_one_file_of_weights(tmp_path: Path, half) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(network(), bright_spec(), path, 17, half=half)
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    assert read_graph(path).external == {"m.onnx.data"}
    image = noise(2, 1, 32, 32)
    with torch.inference_mode():
        wanted = network()(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(load_backend(path, "cpu").run(image), wanted, atol=1e-5 if half is None else 1e-2)


def test_what_one_file_holds_stays_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_data, "LARGEST_BYTES", 2_000_000_000)
    export(tmp_path)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["ours.onnx"]


def test_an_export_names_its_weights_and_their_checksum(tmp_path: Path, capsys) -> None:
    exported = export(tmp_path)
    weights = exported.path.with_name("ours.onnx.data")
    assert {file.name for file in exported.path.parent.iterdir()} == {"ours.onnx", "ours.onnx.data"}
    said = exported.spec.provenance["export"]["weights"]
    assert said == {"file": weights.name, "size_bytes": weights.stat().st_size, "sha256": sha256(weights)}
    assert exported.size_bytes == exported.path.stat().st_size + weights.stat().st_size
    assert "its weights lie beside it in ours.onnx.data: the two belong together" in exported.notes
    assert "export.weights.file: ours.onnx.data" in segtool(capsys, "inspect", exported.path).out


def test_onnxruntime_loads_it_from_wherever_the_two_lie(tmp_path: Path) -> None:
    exported = export(tmp_path)
    moved = tmp_path / "elsewhere"
    exported.path.parent.rename(moved)
    image = noise(1, 2, 32, 32)
    source = ort.InferenceSession(str(tmp_path / "other.onnx"), providers=["CPUExecutionProvider"])
    wanted = source.run(None, {"x": image})[0]
    np.testing.assert_allclose(load_backend(moved / "ours.onnx", "cpu").run(image), wanted, atol=1e-5)


def test_exporting_again_replaces_both_files(tmp_path: Path) -> None:
    first = export(tmp_path)
    size = first.path.with_name("ours.onnx.data").stat().st_size
    export(tmp_path)
    assert first.path.with_name("ours.onnx.data").stat().st_size == size
    assert read_spec(first.path) == first.spec


@pytest.mark.parametrize("conversion", [Conversion(static=True), PLAIN], ids=["static", "plain"])
def test_a_fixed_batch_is_freed_and_shapes_are_fixed_as_in_one_file(tmp_path: Path, conversion: Conversion) -> None:
    (tmp_path / "spec.toml").write_text(SPEC, encoding="utf-8")
    source = write_foreign(tmp_path / "other.onnx", dims=(1, 2, 32, 32))
    exported = export_onnx(source, tmp_path / "ours.onnx", tmp_path / "spec.toml", None, None, conversion)
    assert load_backend(exported.path, "cpu").run(noise(3, 2, 32, 32)).shape == (3, 1, 32, 32)


def test_an_exported_model_can_be_exported_again(tmp_path: Path) -> None:
    exported = export(tmp_path)
    again = export_onnx(exported.path, tmp_path / "again.onnx", None, None, None, PLAIN)
    assert read_graph(again.path).external == {"again.onnx.data"}


def test_weights_that_are_lost_are_named(tmp_path: Path) -> None:
    exported = export(tmp_path)
    exported.path.with_name("ours.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"'ours\.onnx\.data' are not beside it\. Copy that file along"):
        load_backend(exported.path, "cpu")


@pytest.mark.parametrize("kept", [0, 40])
def test_weights_that_are_cut_short_are_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    exported = export(tmp_path)
    weights = exported.path.with_name("ours.onnx.data")
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ModelError) as caught:
        load_backend(exported.path, "cpu")
    assert "\n" not in str(caught.value)


def test_weights_outside_the_folder_are_refused(tmp_path: Path) -> None:
    exported = export(tmp_path)
    content = exported.path.read_bytes()
    name = b"ours.onnx.data"
    for outside in (b"../../abc.data", b"/tmp/elsewhere"):
        assert len(outside) == len(name)
        exported.path.write_bytes(content.replace(name, outside))
        with pytest.raises(ModelError, match=r"outside its folder\. Put the weights beside"):
            load_backend(exported.path, "cpu")


def test_an_engine_belongs_to_the_weights_too(tmp_path: Path) -> None:
    try:
        bindings = load_bindings()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    path, card = tmp_path / "m.onnx", nvidia.Gpu("Card", 2**30, "9.0")
    write_onnx(network(), bright_spec(), path, 17)
    key = engine_key(bindings, path, read_graph(path), card)
    assert engine_key(bindings, path, read_graph(path), card) == key
    weights = path.with_name("m.onnx.data")
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert engine_key(bindings, path, read_graph(path), card).digest != key.digest


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_converters_of_files_refuse_what_they_cannot_hold(tmp_path: Path, precision: str) -> None:
    (tmp_path / "spec.toml").write_text(SPEC, encoding="utf-8")
    source = write_foreign(tmp_path / "other.onnx")
    with pytest.raises(UsageError, match=r"no converter of ONNX files takes\. Export a run with --precision fp16"):
        export_onnx(source, tmp_path / "ours.onnx", tmp_path / "spec.toml", tmp_path, None, Conversion(precision))


def test_a_repository_gets_both_files(tmp_path: Path) -> None:
    exported = export(tmp_path)
    version = write_repository(exported.path, tmp_path / "triton")
    image = noise(1, 2, 32, 32)
    served = load_backend(version / "model.onnx", "cpu")
    assert np.array_equal(served.run(image), load_backend(exported.path, "cpu").run(image))


def test_a_volume_network_is_written_so_too(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    write_onnx(nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, 1, 1)), volume_spec(), path, 17)
    assert load_backend(path, "cpu").run(noise(1, 1, 16, 16, 16)).shape == (1, 1, 16, 16, 16)
