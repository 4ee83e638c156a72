"""A model repository for NVIDIA's Triton Inference Server.

``DIR/NAME/config.pbtxt`` and ``DIR/NAME/1/model.onnx``, with dynamic batching where the file takes any batch. Clients
find the spec in the configuration's parameter ``segtool``, as they would in the file.

Source of the fields: model_config.proto of Triton's repository ``common``, in which :data:`SCHEMA` is what we write.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from segtool.atomic import atomic_path, write_text
from segtool.backends.graph import read_graph
from segtool.backends.tensorrt_build import shape_profile
from segtool.errors import OutputError
from segtool.model_file import read_spec, sha256
from segtool.spec import ModelSpec

Kind = Literal["onnx", "plan"]

BATCH = {2: 8, 3: 2}
"""By rank: most samples of a batch. Eight slices fill a GPU; a window of a volume nearly does by itself."""
QUEUE_DELAY_US = 2000
"""How long a request waits for others: less than a network takes, so that a lone request hardly notices."""

_BACKENDS: dict[Kind, tuple[str, str]] = {
    "onnx": ("onnxruntime_onnx", "onnxruntime"),
    "plan": ("tensorrt_plan", "tensorrt"),
}

Enumeration = frozenset[str]
Field = tuple[Any, bool]
"""A type (a Python type, an enumeration or the name of a message) and whether the field repeats."""

SCHEMA: dict[str, dict[str, Field]] = {
    "ModelConfig": {
        "name": (str, False),
        "platform": (str, False),
        "backend": (str, False),
        "max_batch_size": (int, False),
        "default_model_filename": (str, False),
        "input": ("ModelInput", True),
        "output": ("ModelOutput", True),
        "dynamic_batching": ("ModelDynamicBatching", False),
        "parameters": ("ParametersEntry", True),
    },
    "ModelInput": {
        "name": (str, False),
        "data_type": (frozenset({"TYPE_FP32"}), False),
        "dims": (int, True),
    },
    "ModelOutput": {
        "name": (str, False),
        "data_type": (frozenset({"TYPE_FP32"}), False),
        "dims": (int, True),
    },
    "ModelDynamicBatching": {"preferred_batch_size": (int, True), "max_queue_delay_microseconds": (int, False)},
    "ParametersEntry": {"key": (str, False), "value": ("ModelParameter", False)},
    "ModelParameter": {"string_value": (str, False)},
}
"""The messages of model_config.proto, as far as they are written here."""


def write_repository(model: Path, folder: Path, *, plan: Path | None = None) -> Path:
    """Add a model to a repository; a new version of one that is there already.

    Args:
        model: A file with a spec inside.
        folder: The repository.
        plan: A TensorRT engine of the model, to be served in its place.

    Returns:
        The folder of the version.

    Raises:
        ModelError: Not a model of ours.
        OutputError: The folder cannot be written.
    """
    spec, kind = read_spec(model), "onnx" if plan is None else "plan"
    home, served = folder / spec.name, plan or model
    text = config_text(config(model, spec, "onnx" if plan is None else "plan"))
    versions = sorted(int(path.name) for path in home.glob("*") if path.name.isdigit()) if home.is_dir() else []
    target = home / str(versions[-1] if versions else 1) / f"model.{kind}"
    if target.is_file() and sha256(target) != sha256(served):
        target = home / str(versions[-1] + 1) / target.name
    for name in read_graph(model).external if plan is None else ():
        with atomic_path(target.with_name(name)) as temporary:
            shutil.copyfile(model.with_name(name), temporary)
    with atomic_path(target) as temporary:
        shutil.copyfile(served, temporary)
    write_text(home / "config.pbtxt", text)
    return target.parent


def config(model: Path, spec: ModelSpec, kind: Kind) -> dict[str, Any]:
    """The fields of ``config.pbtxt``."""
    platform, backend = _BACKENDS[kind]
    shapes = read_graph(model)
    given, made = next(iter(shapes.inputs.values())), next(iter(shapes.outputs.values()))
    free = given[0] is None
    # An engine takes what it was built for and no more.
    most = BATCH[spec.input.rank] if kind == "onnx" else shape_profile(model, shapes).largest[0]
    # Without batching the dimensions include the batch; with it they leave it out.
    skipped = 1 if free else 0
    fields: dict[str, Any] = {
        "name": spec.name,
        "platform": platform,
        "backend": backend,
        "default_model_filename": f"model.{kind}",
        "max_batch_size": most if free else 0,
        "input": [_tensor("image", (given[0], len(spec.channels), *given[2:])[skipped:])],
        "output": [_tensor("logits", (made[0], spec.output_channels, *given[2:])[skipped:])],
    }
    if free:
        fields["dynamic_batching"] = {
            "preferred_batch_size": sorted({max(1, most // 2), most}),
            "max_queue_delay_microseconds": QUEUE_DELAY_US,
        }
    fields["parameters"] = [{"key": ModelSpec.KEY, "value": {"string_value": spec.to_json()}}]
    return fields


def _tensor(name: str, dims: tuple[int | None, ...]) -> dict[str, Any]:
    return {"name": name, "data_type": "TYPE_FP32", "dims": [-1 if n is None else n for n in dims]}


def config_text(fields: Mapping[str, Any]) -> str:
    """``config.pbtxt`` of the fields, a protocol buffer's text.

    Raises:
        OutputError: A field is not in the schema, or of another type.
    """
    return "\n".join(_lines(fields, "ModelConfig", "")) + "\n"


def _lines(fields: Mapping[str, Any], message: str, indent: str) -> list[str]:
    lines = []
    for name, value in fields.items():
        if name not in SCHEMA[message]:
            raise _unfit(f"{message} has no field {name!r}")
        kind, repeats = SCHEMA[message][name]
        if isinstance(value, list) != repeats:
            raise _unfit(f"{message}.{name} {'repeats' if repeats else 'does not repeat'}")
        for one in value if repeats else [value]:
            if isinstance(kind, str):
                lines += [f"{indent}{name} {{", *_lines(one, kind, f"{indent}  "), f"{indent}}}"]
            else:
                lines.append(f"{indent}{name}: {_scalar(one, kind, f'{message}.{name}')}")
    return lines


def _scalar(value: object, kind: type | Enumeration, where: str) -> str:
    if isinstance(kind, frozenset):
        if value not in kind:
            raise _unfit(f"{where} is {value!r}, none of {', '.join(sorted(kind))}")
        return str(value)
    if type(value) is not kind:
        raise _unfit(f"{where} is {value!r}, not of type {kind.__name__}")
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


def _unfit(what: str) -> OutputError:
    return OutputError(f"config.pbtxt: {what}", "Report this: Triton would refuse the configuration.")
