"""An ONNX file of any origin made into a model of ours: its graph adapted, its spec checked by running it."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto
from pydantic import ValidationError

from segtool.backends import load_backend
from segtool.backends.graph import read_graph
from segtool.errors import ModelError, UsageError
from segtool.model_file import read_metadata, write_spec
from segtool.spec import ModelSpec
from segtool_export.external_data import save_model
from segtool_export.onnx_file import INPUT, OUTPUT, smallest_extent
from segtool_export.onnx_graph import known_operators, rename, set_dims, without_activation
from segtool_export.parity import AnyArray, Run

_TOLERANCE = 1e-4
"""Between a graph's answers before and after it is adapted, relative to the largest: engines reorder sums."""
_FATAL_ONLY = 4


@dataclass(frozen=True)
class Adopted:
    """A file of ours in FP32 and what was changed or found out, for who exports."""

    path: Path
    spec: ModelSpec
    opset: int
    notes: tuple[str, ...]


def read_spec_file(path: Path) -> ModelSpec:
    """A spec as TOML: its fields at the top, or in a table ``[spec]`` as recipes have it.

    Raises:
        UsageError: Not TOML, or not a valid spec; the line names the first fault.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--spec {path}: cannot be read ({error})", "Check the path.") from error
    except (ValueError, RecursionError) as error:  # also of numbers and dates that Python does not make
        raise UsageError(f"--spec {path}: not TOML ({error})", "Mend the file.") from error
    try:
        return ModelSpec.model_validate(raw.get("spec", raw))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "spec"
        raise UsageError(
            f"--spec {path}: not valid at {place!r} ({first['msg'].removeprefix('Value error, ')})", "Mend the file."
        ) from error


def adopt(source: Path, spec_file: Path | None, target: Path) -> Adopted:
    """Write ``source`` to ``target`` as a model of ours in FP32: one input ``image``, one output ``logits``.

    A last sigmoid or softmax is taken off, and a batch of one is made any batch where the graph bears it.

    Args:
        source: An ONNX file.
        spec_file: TOML of its spec; None takes the one in the file.
        target: Where to write.

    Raises:
        UsageError: The file has no spec, or the TOML is not one.
        ModelError: The file cannot be read or run, or the spec contradicts it.
    """
    shapes = read_graph(source)
    for what, names in (("input", shapes.inputs), ("output", shapes.outputs)):
        if len(names) != 1:
            listed = ", ".join(names) or "none"
            raise ModelError(
                f"{source}: {len(names)} {what}s ({listed}), wanted one", f"Export it again with one {what}."
            )
    if shapes.precision != "fp32":
        raise ModelError(f"{source}: is {shapes.precision} already", "Start from the model in FP32.")
    spec = _spec(source, spec_file)
    model = _load(source)
    dims = next(iter(shapes.inputs.values()))
    if any(n is not None for n in dims[2:]):
        spec = spec.in_windows()  # a graph of one extent takes no whole cases
    _check_declared(source, spec, dims)
    original = _original(source)
    notes = list(_adapt(source, model, spec))
    save_model(model, target)
    fixed = [n for n in dims[2:] if n is not None]
    extents = [_extent(spec)] if fixed else _extents(spec)
    activation = next((note for note in notes if "taken off" in note), None)
    for extent in extents:
        _compare(source, spec, original, target, extent, activation is not None)
    if dims and dims[0] == 1 and not _free_batch(model, target, spec):
        notes.append("the batch stays fixed at 1: the graph does not bear another")
    if fixed:
        notes.append(f"the extent is fixed at {'x'.join(str(n) for n in dims[2:])}")
    write_spec(target, spec, target)
    return Adopted(target, spec, _opset(model), tuple(notes))


def _spec(source: Path, spec_file: Path | None) -> ModelSpec:
    if spec_file is not None:
        return read_spec_file(spec_file)
    inside = read_metadata(source).get(ModelSpec.KEY)
    if inside is None:
        raise UsageError(
            f"{source}: an ONNX file without a segtool spec",
            "Describe its channels, labels and input in a TOML file, and give that with --spec.",
        )
    return ModelSpec.from_json(inside, str(source))


def _load(source: Path) -> onnx.ModelProto:
    model = onnx.load(source)
    for entry in [entry for entry in model.metadata_props if entry.key == ModelSpec.KEY]:
        model.metadata_props.remove(entry)  # the spec to be checked may be another
    unknown = known_operators(model)
    if unknown is not None:
        raise ModelError(f"{source}: {unknown}", "Convert it with onnx.version_converter, or export it anew.")
    if any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
        return model  # operators of an engine, which the engine checks
    try:
        onnx.checker.check_model(str(source))  # by its path, since a model in memory may be too large to be passed on
    except onnx.checker.ValidationError as error:
        first_line = str(error).strip().splitlines()[0]
        raise ModelError(f"{source}: not a valid ONNX graph ({first_line})", "Export it anew.") from error
    return model


def _original(source: Path) -> Run:
    """The file as it is, by its own names."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    try:
        session = ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(
            f"{source}: onnxruntime {ort.__version__} cannot load it ({error})",
            "Update onnxruntime, or export the file with an older operator set, such as 17.",
        ) from error
    name = session.get_inputs()[0].name

    def run(batch: AnyArray) -> AnyArray:
        first: AnyArray = session.run(None, {name: batch})[0]
        return first

    return run


def _check_declared(source: Path, spec: ModelSpec, dims: tuple[int | None, ...]) -> None:
    """What the graph declares of its input, against the spec."""
    rank, wanted = len(dims) - 2, _extent(spec)
    if rank != spec.input.rank:
        raise _contradiction(source, f"its input has {rank} spatial axes, the spec's has {spec.input.rank}")
    if dims[1] is not None and dims[1] != len(spec.channels):
        raise _contradiction(source, f"its input has {dims[1]} channels, the spec {len(spec.channels)}")
    if any(found is not None and found != n for found, n in zip(dims[2:], wanted, strict=True)):
        found = "x".join("?" if n is None else str(n) for n in dims[2:])
        raise _contradiction(source, f"its input has extent {found}, the spec {'x'.join(map(str, wanted))}")
    if dims[0] is not None and dims[0] != 1:
        raise ModelError(
            f"{source}: its batch is fixed at {dims[0]}", "Export it again with a dynamic batch, or a batch of 1."
        )


def _contradiction(source: Path, what: str) -> ModelError:
    return ModelError(f"{source}: the spec contradicts the graph: {what}", "Mend the spec.")


def _adapt(source: Path, model: onnx.ModelProto, spec: ModelSpec) -> list[str]:
    """Names, types and the end of the graph; returns notes."""
    weights = {tensor.name for tensor in model.graph.initializer}
    graph_input = next(value for value in model.graph.input if value.name not in weights)
    graph_output = model.graph.output[0]
    for value in (graph_input, graph_output):
        kind = value.type.tensor_type.elem_type
        if kind != TensorProto.FLOAT:
            raise ModelError(
                f"{source}: {value.name!r} is {TensorProto.DataType.Name(kind).lower()}, wanted float32",
                "Export it again with float32 inputs and logits.",
            )
    found = without_activation(model)
    notes = []
    if found is not None:
        if found != spec.activation:
            raise _contradiction(source, f"it ends in {found}, the spec says {spec.activation}")
        notes.append(f"the {found} at its end is taken off: what remains are logits")
    rename(model, graph_input.name, INPUT)
    rename(model, model.graph.output[0].name, OUTPUT)
    return notes


def _compare(
    source: Path,
    spec: ModelSpec,
    original: Run,
    target: Path,
    extent: tuple[int, ...],
    activated: bool,
) -> None:
    """Run both graphs on noise: the shape that the spec promises, and the same answers."""
    shape = (1, len(spec.channels), *extent)
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    size = "x".join(str(n) for n in extent)
    try:
        before = original(noise)
    except Exception as error:
        given = f"{len(spec.channels)} channels and {size}, divisor {spec.divisor}"
        raise _contradiction(source, f"it fails on an input of {given} ({error})") from error
    wanted = (1, spec.output_channels, *extent)
    if before.shape != wanted:
        found = "x".join(str(n) for n in before.shape)
        raise _contradiction(
            source, f"of an input of {size} it makes {found}, the spec {'x'.join(str(n) for n in wanted)}"
        )
    after = load_backend(target, "cpu").run(noise)
    if activated:
        after = _activate(after, spec)
    if not np.abs(after - before).max() <= _TOLERANCE * max(1.0, float(np.abs(before).max())):
        raise ModelError(
            f"{source}: answers otherwise once adapted (by up to {np.abs(after - before).max():.2g})",
            "Rename its input to 'image' and its output to 'logits' where it is made.",
        )


def _activate(logits: AnyArray, spec: ModelSpec) -> AnyArray:
    if spec.activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-logits)))
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _free_batch(model: onnx.ModelProto, target: Path, spec: ModelSpec) -> bool:
    """Make the batch dynamic where two samples at once give what they give one by one; True where that is done."""
    shape = (2, len(spec.channels), *_extent(spec))
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    backend = load_backend(target, "cpu")
    wanted = np.concatenate([backend.run(noise[:1]), backend.run(noise[1:])])
    free = onnx.ModelProto()
    free.CopyFrom(model)
    set_dims(free, {0: "batch"})
    fixed = target.read_bytes()
    save_model(free, target)
    try:
        found = load_backend(target, "cpu").run(noise)
        if found.shape == wanted.shape and np.allclose(found, wanted, atol=_TOLERANCE * max(1, np.abs(wanted).max())):
            return True
    except Exception:  # noqa: BLE001, S110 - whatever an engine makes of a graph that holds its batch as a number
        pass
    target.write_bytes(fixed)
    return False


def _extent(spec: ModelSpec) -> tuple[int, ...]:
    return spec.extent


def _extents(spec: ModelSpec) -> list[tuple[int, ...]]:
    """The spec's own, and one that its divisor allows but no larger number would divide."""
    small = smallest_extent(spec)
    return [_extent(spec), (small + spec.divisor, *(small,) * (spec.input.rank - 1))]


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
