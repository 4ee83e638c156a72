"""Triton's repository and a bundle's metadata, read back by means that are not ours."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tiny import bright_spec, volume_spec, write_model

from segtool.errors import OutputError
from segtool.model_file import sha256
from segtool.spec import LabelSpec, ModelSpec
from segtool_export.bundle import write_metadata
from segtool_export.onnx_graph import set_dims
from segtool_export.triton import config_text, write_repository

STRING, INT32, INT64, UINT64, ENUM, MESSAGE = 9, 5, 3, 4, 14, 11
FIELDS: dict[str, list[tuple[str, int, int, bool, str]]] = {
    "ModelParameter": [("string_value", 1, STRING, False, "")],
    "ParametersEntry": [("key", 1, STRING, False, ""), ("value", 2, MESSAGE, False, "ModelParameter")],
    "ModelDynamicBatching": [
        ("preferred_batch_size", 1, INT32, True, ""),
        ("max_queue_delay_microseconds", 2, UINT64, False, ""),
    ],
    "ModelInput": [
        ("name", 1, STRING, False, ""),
        ("data_type", 2, ENUM, False, "DataType"),
        ("dims", 4, INT64, True, ""),
    ],
    "ModelOutput": [
        ("name", 1, STRING, False, ""),
        ("data_type", 2, ENUM, False, "DataType"),
        ("dims", 3, INT64, True, ""),
    ],
    "ModelConfig": [
        ("name", 1, STRING, False, ""),
        ("platform", 2, STRING, False, ""),
        ("max_batch_size", 4, INT32, False, ""),
        ("input", 5, MESSAGE, True, "ModelInput"),
        ("output", 6, MESSAGE, True, "ModelOutput"),
        ("default_model_filename", 8, STRING, False, ""),
        ("dynamic_batching", 11, MESSAGE, False, "ModelDynamicBatching"),
        ("parameters", 14, MESSAGE, True, "ParametersEntry"),
        ("backend", 17, STRING, False, ""),
    ],
}
"""Name, number, type, whether it repeats and of which message, as model_config.proto has them."""


@pytest.fixture(scope="module")
def schema() -> Any:
    """Triton's ModelConfig, as far as it is used, for protobuf's own parser."""
    file = descriptor_pb2.FileDescriptorProto(name="triton.proto", package="inference", syntax="proto3")
    kinds = file.enum_type.add(name="DataType")
    for name, number in (("TYPE_INVALID", 0), ("TYPE_FP16", 10), ("TYPE_FP32", 11)):
        kinds.value.add(name=name, number=number)
    for message, fields in FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeats, inner in fields:
            field = described.field.add(name=name, number=number, type=kind, label=3 if repeats else 1)
            if inner:
                field.type_name = f".inference.{inner}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def read(path: Path, schema: Any) -> Any:
    return text_format.Parse((path / "config.pbtxt").read_text(encoding="utf-8"), schema())


def test_a_model_of_slices_is_served_in_batches(tmp_path: Path, schema: Any):
    model = write_model(tmp_path / "bright.onnx", bright_spec(description='A "bright" one\\'))
    version = write_repository(model, tmp_path / "repository")
    assert version == tmp_path / "repository" / "bright" / "1"
    assert sha256(version / "model.onnx") == sha256(model)
    config = read(version.parent, schema)
    assert (config.name, config.platform, config.backend) == ("bright", "onnxruntime_onnx", "onnxruntime")
    assert config.default_model_filename == "model.onnx"
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    (given,), (made,) = config.input, config.output
    assert (given.name, list(given.dims), given.data_type) == ("image", [1, -1, -1], 11)
    assert (made.name, list(made.dims)) == ("logits", [1, -1, -1])
    (parameter,) = config.parameters
    assert ModelSpec.from_json(parameter.value.string_value).description == 'A "bright" one\\'


def test_a_model_of_volumes_has_three_axes_and_small_batches(tmp_path: Path, schema: Any):
    spec = volume_spec(channels=("t1ce", "flair"), labels=(LabelSpec(name="a", value=1), LabelSpec(name="b", value=2)))
    config = read(write_repository(write_model(tmp_path / "m.onnx", spec), tmp_path / "r").parent, schema)
    assert list(config.input[0].dims) == [2, -1, -1, -1]
    assert list(config.output[0].dims) == [2, -1, -1, -1]
    assert config.max_batch_size == 2


def test_a_fixed_batch_is_part_of_the_shape_and_nothing_is_batched(tmp_path: Path, schema: Any):
    import onnx

    path = write_model(tmp_path / "bright.onnx", bright_spec())
    model = onnx.load(path)
    set_dims(model, {0: 1, 2: 32, 3: 32})
    onnx.save(model, path)
    config = read(write_repository(path, tmp_path / "r").parent, schema)
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [1, 1, 32, 32]
    assert not config.HasField("dynamic_batching")


def test_another_model_of_the_name_is_the_next_version(tmp_path: Path):
    first = write_model(tmp_path / "a.onnx", bright_spec())
    second = write_model(tmp_path / "b.onnx", bright_spec(description="better"))
    names = [write_repository(model, tmp_path / "r").name for model in (first, first, second, second)]
    assert names == ["1", "1", "2", "2"]


def test_an_engine_is_served_by_tensorrt(tmp_path: Path, schema: Any):
    (tmp_path / "engine").write_bytes(b"plan")
    model = write_model(tmp_path / "bright.onnx", bright_spec())
    version = write_repository(model, tmp_path / "r", plan=tmp_path / "engine")
    config = read(version.parent, schema)
    assert (version / "model.plan").read_bytes() == b"plan"
    assert (config.platform, config.backend) == ("tensorrt_plan", "tensorrt")
    assert config.max_batch_size == 8


def test_an_engine_of_volumes_is_served_one_window_at_a_time(tmp_path: Path, schema: Any):
    (tmp_path / "engine").write_bytes(b"plan")
    model = write_model(tmp_path / "bright.onnx", volume_spec())
    config = read(write_repository(model, tmp_path / "r", plan=tmp_path / "engine").parent, schema)
    assert config.max_batch_size == 1  # the profile that engines of volumes are built for
    assert list(config.dynamic_batching.preferred_batch_size) == [1]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"colour": "red"}, "ModelConfig has no field 'colour'"),
        ({"max_batch_size": "8"}, "is '8', not of type int"),
        ({"max_batch_size": True}, "is True, not of type int"),
        ({"input": {"name": "image"}}, "ModelConfig.input repeats"),
        ({"input": [{"data_type": "FP32"}]}, "is 'FP32', none of TYPE_FP32"),
    ],
)
def test_a_configuration_that_triton_would_refuse_is_not_written(fields: dict[str, Any], says: str):
    with pytest.raises(OutputError, match="Triton would refuse") as raised:
        config_text(fields)
    assert says in str(raised.value)


def test_a_bundle_has_metadata_beside_the_model(tmp_path: Path):
    spec = bright_spec(activation="softmax", version="3", provenance={"licence": "CC0", "software": {"torch": "2.13"}})
    model = write_model(tmp_path / "bright.onnx", spec)
    path = write_metadata(model)
    assert path == tmp_path / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    # MONAI's schema demands these of every bundle.
    assert {"version", "numpy_version", "task", "description", "network_data_format"} <= content.keys()
    assert (content["version"], content["copyright"], content["pytorch_version"]) == ("3", "CC0", "2.13")
    data = content["network_data_format"]
    assert data["inputs"]["image"]["channel_def"] == {"0": "t1ce"}
    assert data["inputs"]["image"]["value_range"] == [0, 1]
    assert data["outputs"]["logits"]["channel_def"] == {"0": "background", "1": "tumour"}
    assert content["model_sha256"] == sha256(model)
