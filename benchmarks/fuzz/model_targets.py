"""Targets: a model's bytes and spec, recipes, tables of sets, reports and patients."""

import contextlib
import json
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.mutations import havoc, shuffle
from benchmarks.fuzz.target import Target, all_of
from benchmarks.fuzz.trees import change_json, change_lines
from segtool.backends.base import check_graph
from segtool.backends.graph import read_graph
from segtool.bundled import default_model
from segtool.commands.model_facts import model_text
from segtool.errors import UsageError
from segtool.model_file import read_metadata, read_spec
from segtool.output_folder import RUN_FILE, Part, RunIdentity
from segtool.patients import check_patients, read_patients
from segtool.protobuf import MalformedError, encode, fields
from segtool.scan import scan
from segtool.scan.sets import get_layout, list_items, recognise
from segtool.shared_run import SharedRun
from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, SliceSpec, VolumeSpec
from segtool_train.overrides import parse_settings
from segtool_train.recipe import read_recipe
from segtool_train.sweep.plan import read_sweep

_ROOT = Path(__file__).resolve().parents[2]
_SET = b"#set "
"""Lines of a recipe's input that are options of the command line."""


class OnnxMetadata(Target):
    """The reader of a model file: what it says of itself, and what of it is checked before an engine starts."""

    suffix = ".onnx"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.protobuf", "segtool.backends", "segtool.model_file")

    def seeds(self) -> list[bytes]:
        """Small graphs with constants, branches, functions, sparse weights and weights beside the file."""
        return list(_graphs())

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A field anywhere in the tree of messages: dropped, doubled, swapped, renumbered, its numbers changed."""
        return _changed_message(data, choices, 0)

    def read(self, path: Path) -> None:
        """As every command does before an engine is started."""
        all_of(lambda: read_metadata(path), lambda: read_spec(path), lambda: check_graph(path, read_graph(path)))

    def place(self, folder: Path, data: bytes) -> Path:
        """Beside a file of weights."""
        if not (folder / "w.bin").exists():
            (folder / "w.bin").write_bytes(bytes(64))
            with contextlib.suppress(FileExistsError):
                (folder / "link.bin").symlink_to("/etc/hostname")
        return super().place(folder, data)


class SpecJson(Target):
    """The spec inside a model file."""

    suffix = ".json"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.spec", "segtool.spec_statistics", "segtool.commands.model_facts")

    def seeds(self) -> list[bytes]:
        """The bundled model's, and one that uses what is optional."""
        return [spec.to_json().encode() for spec in _specs()]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A value of its tree."""
        return change_json(data, choices)

    def read(self, path: Path) -> object:
        """Read, show, write and read again: the same comes back."""
        spec = ModelSpec.from_json(path.read_bytes(), "input")
        shown = spec.model_dump(mode="json", by_alias=True)
        model_text({"path": "input", "bytes": 0, "sha256": "", "spec": shown})
        text = spec.to_json()  # what JSON cannot say, such as infinity in the provenance, is null there
        if ModelSpec.from_json(text).to_json() != text:
            raise AssertionError("another spec comes back")
        return spec


class Recipe(Target):
    """Recipes in TOML, with ``--set`` from the command line, and sweeps."""

    suffix = ".toml"
    instrument: ClassVar[tuple[str, ...]] = (
        "segtool_train.recipe",
        "segtool_train.overrides",
        "segtool_train.sweep",
        "segtool.spec",
    )

    fixed: ClassVar[tuple[str, ...]] = (
        "an array of 3,000 brackets ended in a RecursionError, in files and in --set",
        "dates and numbers that TOML allows and Python does not make ended in a ValueError",
    )

    def seeds(self) -> list[bytes]:
        """Shipped recipes and sweeps."""
        folder = _ROOT / "train" / "recipes"
        names = ("cheng-lite0", "brats3d-light", "coco-resnet50")
        options = _SET + b"training.lr=1e-3\n" + _SET + b"spec.input.size=[64, 64]\n" + _SET + b"loss=dice\n"
        recipes = [(folder / f"{name}.toml").read_bytes() for name in names]
        return [*recipes, options + recipes[0], *(path.read_bytes() for path in (folder / "sweeps").glob("*.toml"))]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A line, or an option of the command line."""
        if choices.whole(0, 4):
            return change_lines(data, choices)
        key = choices.one(
            (b"training.lr", b"network", b"network.name", b"spec.labels", b"name", b"a.b.c", b"spec.provenance.data")
        )
        value = choices.one(
            (b"", b"1", b"[", b"{ name = 1 }", b"'", b"nan", b"1e999", b"[" * 3000, b"9" * 5000, b"x", b"\0")
        )
        return _SET + key + b"=" + value + b"\n" + data

    def read(self, path: Path) -> None:
        """As `segtool train` does."""
        lines = path.read_bytes().split(b"\n")
        texts = [line.removeprefix(_SET).decode("utf-8", "replace") for line in lines if line.startswith(_SET)]
        all_of(lambda: read_recipe(path), lambda: read_recipe(path, parse_settings(texts)), lambda: read_sweep(path))


class DatasetJson(Target):
    """``dataset.json`` of nnU-Net and the Decathlon in a folder of scans."""

    suffix = ".json"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.scan",)

    fixed: ClassVar[tuple[str, ...]] = ("a channel with the number Infinity ended in an OverflowError",)

    def seeds(self) -> list[bytes]:
        """Of nnU-Net 1, of nnU-Net 2 and turned round."""
        files = [{"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz"} for n in range(2)]
        labels = {"0": "background", "1": "tumour"}
        trees = (
            {"modality": {"0": "FLAIR", "1": "T1w"}, "labels": labels, "training": files, "numTraining": 2, "test": []},
            {
                "channel_names": {"0": "t1", "1": "t1ce"},
                "labels": {"background": 0, "tumour": [1, 2]},
                "file_ending": ".nii.gz",
            },
            {"modality": {"FLAIR": "0", "T1w": "1"}, "regions_class_order": [1]},
        )
        return [json.dumps(tree).encode() for tree in trees]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A value of its tree."""
        return change_json(data, choices)

    def place(self, folder: Path, data: bytes) -> Path:
        """In a folder of the layout, whose scans are names alone."""
        for kind, names in {
            "imagesTr": ("c0_0000", "c0_0001", "c1_0000", "c1_0001", "c0", "c1"),
            "labelsTr": ("c0", "c1"),
        }.items():
            if not (folder / kind).exists():
                (folder / kind).mkdir()
                for name in names:
                    (folder / kind / f"{name}.nii.gz").touch()
        path = folder / "dataset.json"
        path.write_bytes(data)
        return path

    def read(self, path: Path) -> None:
        """As `predict` and `inspect --layout` do."""
        folder = path.parent
        all_of(
            lambda: scan([folder], _specs()[0]),
            lambda: recognise(folder),
            lambda: (get_layout("nnunet"), list_items("nnunet", folder)),
            lambda: list_items("decathlon", folder),
        )


class ReportJson(Target):
    """``report.json`` of an earlier run and the file of a killed one, with which ``--continue`` goes on."""

    suffix = ".json"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.output_folder", "segtool.shared_run", "segtool.report")

    fixed: ClassVar[tuple[str, ...]] = (
        "a list of 3,000 brackets ended in a RecursionError, in reports and in run files",
        "cases that are numbers or lists, without a name or of an unknown status ended in a TypeError or KeyError",
        "confidence, notes or scores of another kind ended in a TypeError or AttributeError",
    )

    def seeds(self) -> list[bytes]:
        """Reports of this version and of an older one, and the file of a run that was killed."""
        rows = [
            {"name": "a", "status": "done", "stamp": "1", "notes": ["n"], "warnings": ["w"], "confidence": {"x": 0.5}},
            {"name": "b", "status": "failed", "error": "e"},
        ]
        head = {"tool_version": "1", "model": "bright 1", "models": [{"sha256": "00"}], "options": {"threshold": 0.5}}
        old = {"model": "bright 1", "model_sha256": "00", "options": {"threshold": 0.5}, "cases": rows}
        lines = ({"run": {**head, "continues": False, "trusts_files": False}}, {"earlier": rows[0]}, {"case": rows[0]},
                 {"lost": rows[1]})  # fmt: skip
        return [
            json.dumps({**head, "cases": rows}).encode(),
            json.dumps(old).encode(),
            b"".join(json.dumps(line).encode() + b"\n" for line in lines),
        ]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A value of a line's tree, or a line."""
        lines = data.split(b"\n")
        if len(lines) > 1 and not choices.whole(0, 4):
            return change_lines(data, choices)
        place = choices.whole(0, max(0, len(lines) - 2))
        changed = change_json(lines[place], choices)
        return changed and b"\n".join([*lines[:place], changed, *lines[place + 1 :]])

    def place(self, folder: Path, data: bytes) -> Path:
        """Where the results lie: in lines it is the file of a run."""
        report, run = folder / "report.json", folder / RUN_FILE
        report.unlink(missing_ok=True)
        run.unlink(missing_ok=True)
        path = run if data.startswith(b'{"run"') else report
        path.write_bytes(data)
        return path

    def read(self, path: Path) -> object:
        """As ``--continue`` does."""
        run = SharedRun(path.parent, RunIdentity("1", "bright 1", ("00",), {"threshold": 0.5}), Part(), True)
        try:
            return run.earlier("a", "1"), run.earlier("b", "1"), run.lost
        finally:
            run.leave(None, True)


class PatientsCsv(Target):
    """The table of ``--patients``."""

    suffix = ".csv"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.patients",)

    def seeds(self) -> list[bytes]:
        """With and without quotes and a mark of byte order."""
        rows = "case,patient\na,P1\nb,P1\nc[3],P2\n"
        quoted = '\ufeffpatient,case,"age, in years"\r\n"P ""1""",a,3\r\nP2,"b\nc",4\r\n'
        return [rows.encode(), quoted.encode()]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A line or its last value."""
        return change_lines(data, choices) if choices.whole(0, 1) else havoc(data, choices)

    def read(self, path: Path) -> object:
        """As predict does."""
        found = read_patients(path)
        with contextlib.suppress(UsageError):  # cases that are not in it
            check_patients(found, ["a", "c[3]", ""])
        return found


@cache
def _specs() -> tuple[ModelSpec, ...]:
    channels = tuple(ChannelSpec(name=name, aliases=(f"{name}x",)) for name in ("t1", "t1ce"))
    labels = (LabelSpec(name="ED", value=1), LabelSpec(name="ET", value=3, reference_values=(3, 4), threshold=0.4))
    volume = ModelSpec(
        name="v", channels=channels, labels=labels, regions={"WT": (1, 3)}, activation="softmax",
        input=VolumeSpec(patch=(32, 32, 32), spacing_mm=(1.0, 1.0, 2.0)), test_time_flips=("horizontal", "depth"),
        provenance={"data": [{"name": "x", "n": 3}], "metrics": {"test": {"dice": 0.5}}},
    )  # fmt: skip
    return volume, read_spec(default_model())


@cache
def _graphs() -> tuple[bytes, ...]:
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "weight")
    shape = numpy_helper.from_array(np.array([1, 1, 8, 8]), "shape")
    outside = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "w.bin"), ("offset", "16"), ("length", "16")):
        outside.external_data.add(key=key, value=value)
    body = helper.make_graph([helper.make_node("Identity", ["image"], ["y"])], "body", [], [], [shape])
    nodes = [
        helper.make_node("Conv", ["image", "weight"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Constant", [], ["c"], value=shape),
        helper.make_node("Expand", ["a", "shape"], ["b"]),
        helper.make_node("If", ["b"], ["d"], then_branch=body, else_branch=body),
        helper.make_node("Resize", ["a", "", "", "shape"], ["logits"]),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["n", 1, 8, 8]) for name in ("image", "logits")]
    found = []
    for weights in ([weight, shape], [weight, shape, outside]):
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        sparse = model.graph.sparse_initializer.add(dims=[4, 4])
        sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "s"))
        sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "i"))
        function = model.functions.add(name="f", domain="")
        function.node.add(op_type="Constant", output=["c"], attribute=[helper.make_attribute("value", shape)])
        spec = ModelSpec(
            name="g", channels=(ChannelSpec(name="t1"),), labels=(LabelSpec(name="t", value=1),),
            input=SliceSpec(size=(8, 8)), divisor=8,
        )  # fmt: skip
        model.metadata_props.add(key=ModelSpec.KEY, value=spec.to_json())
        found.append(model.SerializeToString())
    return tuple(found)


_DEEP = 8


def _changed_message(data: bytes, choices: Choices, depth: int) -> bytes | None:
    """A message with one of its fields, or a field inside one of them, changed."""
    try:
        found = list(fields(memoryview(data)))
    except MalformedError:
        return None
    if not found:
        return None
    parts = [data[field.start : field.stop] for field in found]
    place = choices.whole(0, len(found) - 1)
    field = found[place]
    content = field.value
    if isinstance(content, memoryview) and depth < _DEEP and choices.whole(0, 3):
        inner = _changed_message(bytes(content), choices, depth + 1)
        parts[place] = encode(field.number, inner if inner is not None else havoc(bytes(content), choices))
        return b"".join(parts)
    match choices.whole(0, 3):
        case 0:
            return b"".join(shuffle(parts, choices))
        case 1:
            number = choices.one((1, 2, 5, 7, 8, 13, 14, 15, 20, 22, 25, 2**29 - 1))
            parts[place] = encode(number, bytes(content) if isinstance(content, memoryview) else b"\x01")
        case 2 if isinstance(content, int):
            value = choices.one((0, 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1, 10**6, content + 1))
            parts[place] = _varint(field.number << 3) + _varint(value)
        case _:
            parts.insert(
                place,
                _varint(choices.one((field.number << 3 | 2, (1 << 32) | 58, 2)))
                + _varint(choices.one((0, 2**31, 2**63))),
            )
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
