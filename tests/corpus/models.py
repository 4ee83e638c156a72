"""Models' own bytes and specs, options of recipes, tables of sets, reports and patients."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpus import Row
from segtool.backends.graph import read_graph
from segtool.errors import ModelError, UsageError
from segtool.model_file import read_metadata
from segtool.output_folder import RUN_FILE, Part, RunIdentity
from segtool.patients import read_patients
from segtool.protobuf import encode
from segtool.scan.dataset_json import read_channel_names
from segtool.shared_run import SharedRun
from segtool.spec import ModelSpec

SPEC: dict[str, Any] = {
    "name": "m",
    "channels": [{"name": "t1"}],
    "labels": [{"name": "t", "value": 1}],
    "input": {"rank": 2, "size": [32, 32]},
}
VOLUME = {"rank": 3, "patch": [32, 32, 32]}
RUN = {"tool_version": "1", "model": "m 1", "models": [{"sha256": "00"}], "options": {"threshold": 0.5}}
CASE = {"name": "a", "status": "done", "stamp": "1"}


def content(name: str, data: bytes | str) -> Callable[[Path], Path]:
    """Puts ``data`` into a file."""

    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


def onnx(data: bytes, words: str, read: Callable[[Path], object] = read_graph) -> Row:
    return Row(content("m.onnx", data), read, words, ModelError)


def spec(text: str, words: str) -> Row:
    return Row(content("spec.json", text), lambda path: ModelSpec.from_json(path.read_bytes()), words, ModelError)


def changed(**changes: object) -> str:
    return json.dumps(SPEC | changes)


def setting(text: str) -> Row:
    def read(path: Path) -> object:
        from segtool_train.overrides import parse_setting

        return parse_setting(path.read_text())

    return Row(content("set.txt", text), read, "quote a string", UsageError)


def go_on(path: Path) -> object:
    """As ``--continue`` does."""
    run = SharedRun(path.parent, RunIdentity("1", "m 1", ("00",), {"threshold": 0.5}), Part(), True)
    try:
        return run.earlier("a", "1"), run.lost
    finally:
        run.leave(None, True)


def report(text: str) -> Row:
    return Row(content("report.json", text), go_on)


def lines(*rows: object) -> Row:
    head = {"run": {**RUN, "continues": False, "trusts_files": False}}
    text = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in (head, *rows))
    return Row(content(RUN_FILE, text), go_on)


DEEP = "[" * 100_000

ROWS: dict[str, Row] = {
    # Of an ONNX file
    "a tag of 33 bits hides a graph": onnx(b"\x3a\x00\xba\x80\x80\x80\x10\x00", "segtool export"),
    "a length of 2^63": onnx(b"\x3a\x00\x3a" + b"\xff" * 8 + b"\x7f", "segtool export"),
    "a group": onnx(b"\x3a\x00\x0b", "segtool export"),
    "the same key twice": onnx(
        b"\x3a\x00" + b"".join(encode(14, encode(1, b"k") + encode(2, value)) for value in (b"1", b"2")),
        "two things under one key",
        read_metadata,
    ),
    "a packed shape of a million axes": onnx(
        encode(7, encode(5, encode(1, b"\x01" * 1_000_000))), "more than 64 numbers where a shape is due"
    ),
    "a name of 1 MB": onnx(encode(7, encode(5, encode(8, b"n" * 2**20))), "a name of 1048576 bytes"),
    "an attribute of a million numbers": Row(
        content("m.onnx", encode(7, encode(1, encode(5, encode(8, b"\x01" * 1_000_000))))), read_graph
    ),
    # Of a spec
    "spec: nested deep": spec(DEEP, "Export the model again"),
    "spec: a number of 5,000 digits": spec("9" * 5000, "Export the model again"),
    "spec: half of a surrogate": spec('"\\ud800', "Export the model again"),
    "spec: a picture of 10^6 x 10^6": spec(
        changed(input={"rank": 2, "size": [10**6, 10**6]}, divisor=1), "more than 2147483648 voxels"
    ),
    "spec: a picture of 10^30": spec(changed(input={"rank": 2, "size": [10**30, 8]}, divisor=1), "valid at"),
    "spec: a spacing of 0": spec(changed(input={**VOLUME, "spacing_mm": [0, 1, 1]}), "spacing_mm"),
    "spec: a spacing of 10^-9": spec(changed(input={**VOLUME, "spacing_mm": [1e-9, 1, 1]}), "spacing_mm"),
    "spec: a negative spacing": spec(changed(input={**VOLUME, "spacing_mm": [-1, 1, 1]}), "spacing_mm"),
    "spec: a spacing of infinity": spec(
        changed(input={**VOLUME, "spacing_mm": [1, 1, 1]}).replace("[1, 1, 1]", "[1e999, 1, 1]"), "spacing_mm"
    ),
    # Of recipes: those of files are in tests/train
    "--set: nested deep": setting("a.b=" + DEEP),
    "--set: no date": setting("a.b=[2020-13-45]"),
    "--set: a number of 5,000 digits": setting("a.b=[" + "9" * 5000 + "]"),
    # Of dataset.json
    "dataset.json: a channel with the number infinity": Row(
        content("dataset.json", '{"modality": {"FLAIR": "0", "T1w": -Infinity}}'), read_channel_names
    ),
    "dataset.json: nested deep": Row(content("dataset.json", DEEP), read_channel_names),
    "dataset.json: a number of 5,000 digits": Row(
        content("dataset.json", '{"modality": {"' + "9" * 5000 + '": "t1"}}'), read_channel_names
    ),
    # Of an earlier run
    "report: nested deep": report(DEEP),
    "report: cases are a number": report(json.dumps(RUN | {"cases": 3})),
    "report: a case is a list": report(json.dumps(RUN | {"cases": [["a"]]})),
    "report: a case without a name": report(json.dumps(RUN | {"cases": [{"status": "done"}]})),
    "report: a case's name is a list": report(json.dumps(RUN | {"cases": [{**CASE, "name": ["a"]}]})),
    "report: a case of another status": report(json.dumps(RUN | {"cases": [{**CASE, "status": "fine"}]})),
    "report: confidence is a number": report(json.dumps(RUN | {"cases": [{**CASE, "confidence": 0.5}]})),
    "report: notes are a number": report(json.dumps(RUN | {"cases": [{**CASE, "notes": 1}]})),
    "run file: nested deep": lines(DEEP),
    "run file: a line without end": lines('{"case": {"name": "a"'),
    "run file: a case is a number": lines({"case": 3}),
    "run file: a case's scores are a list": lines({"case": {**CASE, "scores": [1]}}),
    "run file: slices are words": lines({"case": {**CASE, "slices": {"x": {}}}}),
    "run file: a lost case without a name": lines({"lost": {"error": "e"}}),
    # Of patients
    "patients: no text": Row(content("p.csv", b"\xff\xfe\x00"), read_patients, "case,patient", UsageError),
    "patients: a zero byte": Row(content("p.csv", b"case,patient\na\0,\n"), read_patients, "case,patient", UsageError),
    "patients: a field of 1 MB": Row(
        content("p.csv", "case,patient\na," + "x" * 2**20 + "\n"), read_patients, "case,patient", UsageError
    ),
}
