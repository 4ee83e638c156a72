"""Model files that claim, hide or point at what they should not: refused before any engine sees them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import AttributeProto, FunctionProto, ModelProto, TensorProto, helper, load, numpy_helper, save
from tiny import bright_spec, volume_spec, write_model

from segtool.backends import load_backend
from segtool.backends.graph import read_graph
from segtool.bundled import default_model
from segtool.case import Case
from segtool.errors import GridError, ModelError
from segtool.geometry import Geometry
from segtool.model_file import read_metadata, read_spec
from segtool.preprocess import WindowedCase
from segtool.protobuf import LARGEST_ENTRIES, MOST_FIELDS, Reader, encode, mapped
from segtool.spec import VolumeSpec

GRAPH = encode(7, b"")
"""An empty graph."""
FEW = 10_000
"""Fields, in place of the million that a file may have."""


@pytest.fixture
def few_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reader.__init__, "__defaults__", (FEW,))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model.onnx", bright_spec())


def refused(path: Path) -> str:
    """The one line with which the file is refused by whoever would run it."""
    with pytest.raises(ModelError) as caught:
        load_backend(path, "cpu")
    return str(caught.value)


# Bytes


def number_of(value: int) -> bytes:
    """A varint of ten bytes where ``value`` has 64 bits."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


BYTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "a length beyond the file": (lambda: GRAPH + b"\x3a\xff\xff\xff\xff\x07", "truncated"),
    "a length of 64 bits": (lambda: GRAPH + b"\x3a" + number_of(2**64 - 1), "truncated"),
    "a number that does not end": (lambda: GRAPH + b"\x08" + b"\xff" * 20, "truncated"),
    # A reader in C++ keeps 32 bits of the tag and sees field 7; one that takes all of them would step over a graph.
    "a tag of 33 bits": (lambda: GRAPH + number_of((1 << 32) | 7 << 3 | 2) + b"\x00", "truncated"),
    "metadata of 17 MB": (
        lambda: GRAPH + encode(14, encode(1, b"k") + encode(2, bytes(17 * 2**20))),
        "metadata of more than",
    ),
    "metadata of 20 x 1 MB": (
        lambda: GRAPH + b"".join(encode(14, encode(1, b"%d" % n) + encode(2, bytes(2**20))) for n in range(20)),
        f"metadata of more than {LARGEST_ENTRIES}",
    ),
    "two specs": (
        lambda: GRAPH + b"".join(encode(14, encode(1, b"segtool") + encode(2, b"%d" % n)) for n in (1, 2)),
        "two things under one key",
    ),
    "a key of 1 MB": (lambda: GRAPH + encode(14, encode(1, b"k" * 2**20)), "a name of 1048576 bytes"),
    "more fields than any model": (lambda: GRAPH + b"\x08\x01" * FEW, f"more than {FEW} fields"),
}  # fmt: skip


@pytest.mark.parametrize("what", BYTES)
@pytest.mark.usefixtures("few_fields")
def test_bytes_that_no_model_has_are_refused_by_both_readers(tmp_path: Path, what: str) -> None:
    make, said = BYTES[what]
    path = tmp_path / "m.onnx"
    path.write_bytes(make())
    for read in (read_metadata, read_graph):
        with pytest.raises(ModelError, match=said):
            read(path)


def test_a_file_of_many_gigabytes_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.truncate(2**33)  # of holes: no disk is taken
    for read in (read_spec, read_graph):
        with pytest.raises(ModelError, match="8589934592 bytes, where an ONNX file ends at 2147483648"):
            read(path)


@pytest.mark.usefixtures("few_fields")
@pytest.mark.parametrize(
    "inside", [encode(5, b""), encode(1, b""), encode(11, encode(1, b"n"))], ids=["weights", "nodes", "inputs"]
)
def test_a_graph_of_endless_parts_is_not_gone_through(tmp_path: Path, inside: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(encode(7, inside * (FEW + 1)))
    with pytest.raises(ModelError, match=f"more than {FEW} fields"):
        read_graph(path)


def test_a_model_has_a_hundredth_of_the_fields_that_it_may_have() -> None:
    reader = Reader(MOST_FIELDS // 100)
    graphs = [bytes(value) for _, value in reader.messages(mapped(default_model()), 7)]
    assert sum(len(list(reader.messages(memoryview(graph), 1, 5))) for graph in graphs) > 100


def test_graphs_within_graphs_end_somewhere(tmp_path: Path) -> None:
    graph = b""
    for _ in range(200):
        graph = encode(1, encode(5, encode(6, graph)))
    path = tmp_path / "m.onnx"
    path.write_bytes(encode(7, graph))
    with pytest.raises(ModelError, match="more than 16 deep"):
        read_graph(path)


@pytest.mark.parametrize("name", ["m.ort", "m.xml", "m.pb", "m.engine", "m", "m.onnx.ort"])
def test_engines_own_formats_are_refused_by_their_name(model: Path, name: str) -> None:
    other = model.rename(model.with_name(name))
    assert "ends in" in refused(other)
    assert "wanted .onnx" in refused(other)


# Files with weights


def outside(tensor: TensorProto, location: str, **more: str) -> TensorProto:
    """``tensor`` with its numbers in a file."""
    for kind in ("raw_data", "float_data"):
        tensor.ClearField(kind)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def in_a_weight(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.initializer.append(tensor)


def in_a_constant(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_a_list_of_tensors(model: ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Identity", ["image"], ["i"])
    node.attribute.append(AttributeProto(name="all", type=AttributeProto.TENSORS, tensors=[tensor]))
    model.graph.node.append(node)


def in_a_branch(model: ModelProto, tensor: TensorProto) -> None:
    body = helper.make_graph([], "body", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["image"], ["j"], then_branch=body, else_branch=body))


def in_a_loop_in_a_branch(model: ModelProto, tensor: TensorProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [tensor])
    body = helper.make_graph([helper.make_node("Loop", ["", ""], ["k"], body=inner)], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["image"], ["j"], then_branch=body, else_branch=body))


def in_a_list_of_graphs(model: ModelProto, tensor: TensorProto) -> None:
    body = helper.make_graph([], "body", [], [], [tensor])
    node = helper.make_node("Identity", ["image"], ["i"])
    node.attribute.append(AttributeProto(name="all", type=AttributeProto.GRAPHS, graphs=[body]))
    model.graph.node.append(node)


def function_of(node: object = None, attribute: object = None) -> FunctionProto:
    function = FunctionProto(name="f", domain="")
    if node is not None:
        function.node.append(node)
    if attribute is not None:
        function.attribute_proto.append(attribute)
    return function


def in_a_function(model: ModelProto, tensor: TensorProto) -> None:
    model.functions.append(function_of(node=helper.make_node("Constant", [], ["c"], value=tensor)))


def in_a_functions_default(model: ModelProto, tensor: TensorProto) -> None:
    model.functions.append(function_of(attribute=helper.make_attribute("a", tensor)))


def in_sparse_values(model: ModelProto, tensor: TensorProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    sparse.dims.append(4)


def in_sparse_indices(model: ModelProto, tensor: TensorProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.indices.CopyFrom(tensor)
    sparse.dims.append(4)


def in_a_training(model: ModelProto, tensor: TensorProto) -> None:
    model.training_info.add().algorithm.initializer.append(tensor)


HIDEOUTS = (
    in_a_weight, in_a_constant, in_a_list_of_tensors, in_a_branch, in_a_loop_in_a_branch, in_a_list_of_graphs,
    in_a_function, in_a_functions_default, in_sparse_values, in_sparse_indices, in_a_training,
)  # fmt: skip
"""Every place of a model in which a tensor may be."""


def tensor() -> TensorProto:
    return numpy_helper.from_array(np.ones(4, np.float32), "t")


@pytest.mark.parametrize("hide", HIDEOUTS, ids=lambda hide: hide.__name__)
@pytest.mark.parametrize("engine", ["cpu", "openvino", "tensorrt", "cuda", "auto"])
def test_weights_outside_the_folder_are_found_wherever_they_are_and_for_every_engine(
    model: Path, hide: Callable[[ModelProto, TensorProto], None], engine: str
) -> None:
    (model.parent.parent / "secret.bin").write_bytes(bytes(64))
    changed = load(model)
    hide(changed, outside(tensor(), "../secret.bin"))
    save(changed, model)
    with pytest.raises(ModelError, match=r"'../secret.bin', outside its folder"):
        load_backend(model, engine)


LOCATIONS: dict[str, tuple[str, dict[str, str], str]] = {
    "absolute": ("/etc/hostname", {}, "outside its folder"),
    "up and down": ("sub/../../secret.bin", {}, "outside its folder"),
    "through a link": ("link.bin", {}, "outside its folder"),
    "through a linked folder": ("linked/secret.bin", {}, "outside its folder"),
    "a circle of links": ("circle", {}, "cannot be read|not beside it|outside its folder"),
    "a folder": ("sub", {}, "not beside it"),
    "nothing": ("", {}, "no file's name"),
    "a zero byte": ("w\0.bin", {}, "no file's name"),
    "not there": ("gone.bin", {}, "not beside it"),
    "too long": ("n" * 5000, {}, "cannot be read"),
    # ONNX Runtime reads the process's memory at the offset of a tensor that lies there.
    "memory": ("*/_ORT_MEM_ADDR_/*", {"offset": "4096"}, "no file's name"),
    "beyond the end": ("w.bin", {"offset": "8"}, "beyond the end"),
    "length beyond the end": ("w.bin", {"length": "17"}, "beyond the end"),
    "offset of 2^63": ("w.bin", {"offset": str(2**63)}, "beyond the end"),
    "negative offset": ("w.bin", {"offset": "-4"}, "wanted a number"),
    "offset of words": ("w.bin", {"offset": "0x10"}, "wanted a number"),
    "offset of a million digits": ("w.bin", {"offset": "1" * 50_000}, "wanted a number"),
}


@pytest.mark.parametrize("what", LOCATIONS)
def test_a_place_of_weights_is_a_part_of_a_file_beside_the_model(model: Path, tmp_path: Path, what: str) -> None:
    location, more, said = LOCATIONS[what]
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    (home / "*" / "_ORT_MEM_ADDR_").mkdir(parents=True)
    (home / "*" / "_ORT_MEM_ADDR_" / "*").write_bytes(bytes(8192))
    (tmp_path / "secret.bin").write_bytes(bytes(64))
    (home / "link.bin").symlink_to(tmp_path / "secret.bin")
    (home / "linked").symlink_to(tmp_path)
    (home / "circle").symlink_to("circle")
    (home / "w.bin").write_bytes(bytes(16))
    changed = load(model)
    in_a_weight(changed, outside(tensor(), location, **more))
    path = home / "m.onnx"
    save(changed, path)
    with pytest.raises(ModelError, match=said) as caught:
        read_graph(path)
    assert len(str(caught.value)) < 1000


def test_weights_beside_the_model_are_used(model: Path) -> None:
    wanted = load_backend(model, "cpu").run(np.ones((1, 1, 32, 32), np.float32))
    model.with_name("w.bin").write_bytes(bytes(4096) + load(model).graph.initializer[0].raw_data)
    changed = load(model)
    outside(changed.graph.initializer[0], "w.bin", offset="4096", length="4")
    save(changed, model)
    assert np.array_equal(load_backend(model, "cpu").run(np.ones((1, 1, 32, 32), np.float32)), wanted)


def test_a_linked_model_keeps_its_weights_where_engines_look_for_them(model: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    other.mkdir()
    changed = load(model)
    in_a_weight(changed, outside(tensor(), "w.bin"))
    save(changed, home / "m.onnx")
    (home / "w.bin").write_bytes(bytes(16))
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (other / "m.onnx").symlink_to(home / "m.onnx")
    (other / "w.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(ModelError, match="outside its folder"):
        read_graph(other / "m.onnx")
    read_graph(home / "m.onnx")


# Operators and sizes


@pytest.mark.parametrize(
    ("domain", "operator", "said"),
    [
        ("com.somebody", "Conv", "'com.somebody'"),
        ("ai.onnx.contrib", "PyOp", "'ai.onnx.contrib'"),
        ("trt.plugins", "Plugin", "'trt.plugins'"),
        ("com.microsoft", "EPContext", "'EPContext'"),
        ("", "EPContext", "'EPContext'"),
    ],
)
@pytest.mark.parametrize("place", ["graph", "branch", "function"])
def test_operators_that_somebody_would_have_to_bring_are_refused(
    model: Path, domain: str, operator: str, said: str, place: str
) -> None:
    # Of embed_mode 0, the attribute of EPContext is the path of a compiled engine.
    node = helper.make_node(operator, ["image"], ["n"], domain=domain, embed_mode=0, ep_cache_context="../engine.bin")
    changed = load(model)
    if place == "graph":
        changed.graph.node.append(node)
    elif place == "branch":
        body = helper.make_graph([node], "body", [], [])
        changed.graph.node.append(helper.make_node("If", ["image"], ["j"], then_branch=body, else_branch=body))
    else:
        changed.functions.append(function_of(node=node))
    save(changed, model)
    assert said in refused(model)
    assert "segtool loads no code that belongs to a model" in refused(model)


def bomb(operator: str, shape: list[int], names: list[str], through: str = "weight") -> Callable[[ModelProto], None]:
    """An operator whose result is as large as a constant says."""

    def change(model: ModelProto) -> None:
        constant = numpy_helper.from_array(np.array(shape, np.int64), "shape")
        if through == "weight":
            model.graph.initializer.append(constant)
        elif through == "list":
            model.graph.node.append(helper.make_node("Constant", [], ["shape"], value_ints=shape))
        else:
            model.graph.node.append(helper.make_node("Constant", [], ["shape"], value=constant))
        model.graph.node.append(helper.make_node(operator, names, ["bomb"]))

    return change


def claims(dims: list[int], **parts: object) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        model.graph.initializer.append(TensorProto(name="t", data_type=TensorProto.FLOAT, dims=dims, **parts))

    return change


def dense(model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
    sparse.dims.extend([10**6, 10**6])


def input_of(*dims: int) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        for axis, extent in zip(model.graph.input[0].type.tensor_type.shape.dim, dims, strict=True):
            axis.dim_value = extent

    return change


BOMBS: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "constant of 10^12": (bomb("ConstantOfShape", [10**12], ["shape"]), "ConstantOfShape is of 1e\\+12"),
    "the same in a node": (bomb("ConstantOfShape", [10**6, 10**6], ["shape"], "node"), "ConstantOfShape is of 1e\\+12"),
    "the same as a list": (bomb("ConstantOfShape", [10**6, 10**6], ["shape"], "list"), "ConstantOfShape is of 1e\\+12"),
    "expanded": (bomb("Expand", [1, 1, 10**5, 10**5], ["image", "shape"]), "Expand is of 1e\\+10"),
    "tiled": (bomb("Tile", [1, 1, 10**5, 10**5], ["image", "shape"]), "Tile is of 1e\\+10"),
    "resized": (bomb("Resize", [1, 1, 10**5, 10**5], ["image", "", "", "shape"]), "Resize is of 1e\\+10"),
    "beyond all numbers": (bomb("Tile", [2**62] * 60, ["image", "shape"]), "Tile is of 1e\\+300"),
    "a loop of 10^9 passes": (bomb("Loop", [10**9], ["shape", ""]), "a loop of 1e\\+09 passes"),
    "a tensor that is not there": (claims([10**6, 10**6]), "claims 1e\\+12 numbers in 0 bytes"),
    "a tensor of few bytes": (claims([10**6, 10**6], raw_data=bytes(4)), "claims 1e\\+12 numbers in 5 bytes"),
    "an axis of -1": (claims([-1, 4], raw_data=bytes(4)), "an axis of less than no numbers"),
    "two axes of -1": (claims([-2, -2], raw_data=bytes(16)), "an axis of less than no numbers"),
    "sparse of 10^12": (dense, "a sparse tensor is of 1e\\+12"),
    "an input of 10^6 x 10^6": (input_of(1, 1, 10**6, 10**6), "'image' is of 1e\\+12"),
    "an input of no channels": (input_of(1, 0, 32, 32), "'image' has an axis of 0"),
    "an input of -1": (input_of(-1, 1, 32, 32), "'image' has an axis of -1"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_what_is_larger_than_any_network_needs_is_refused_unread(model: Path, what: str) -> None:
    change, said = BOMBS[what]
    changed = load(model)
    change(changed)
    save(changed, model)
    with pytest.raises(ModelError, match=said):
        read_graph(model)


def test_an_input_that_is_left_out_has_no_size(model: Path) -> None:
    # The tensor of a constant has no name, nor has an input that is left out.
    changed = load(model)
    changed.graph.node.extend(
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(2**62), "")),
            helper.make_node("Resize", ["image", "", "", ""], ["r"]),
        ]
    )
    save(changed, model)
    read_graph(model)


def test_a_spacing_of_which_the_networks_would_make_a_world_is_refused() -> None:
    spec = volume_spec(input=VolumeSpec(patch=(16, 16, 16), spacing_mm=(0.5, 0.5, 0.5), crop_to_nonzero=False))
    volume = np.arange(16**3, dtype=np.float32).reshape(1, 16, 16, 16)
    case = Case("c", volume, Geometry.of_volume((16, 16, 16), np.diag([100.0, 100.0, 100.0, 1.0])))
    with pytest.raises(GridError, match="would make 3200x3200x3200 voxels"):
        WindowedCase(case, spec)


@pytest.mark.skipif(os.name == "nt", reason="folders of Windows have no such modes")
def test_a_fifo_called_like_a_model_is_not_waited_for(tmp_path: Path) -> None:
    from segtool.bundled import find_model

    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="no such file"):
        find_model(tmp_path / "m.onnx")
