"""Hostile models and exchanged ones: ``python -m benchmarks.reliability_models [--scale 0.01]``.

Each model is a sound one with something in it that no engine should see: weights that lie outside its folder, in memory
or beyond the end of a file, operators of a library, compiled engines, and sizes out of all reason, each put where a
tensor or operator may be, up to some graphs deep. It is lost where :func:`segtool.backends.graph.read_graph`, which
stands before every engine, lets it pass. Signed models have one bit changed, of the model or of its signature.
"""

import argparse
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.common import machine, save, versions
from segtool.backends.graph import read_graph
from segtool.errors import ModelError
from segtool.model_file import write_spec
from segtool.signatures import sign, signature_file, verified_copies
from segtool.spec import ChannelSpec, LabelSpec, ModelSpec, SliceSpec

MODELS, CHANGED = 10_000, 2_000
_SPEC = ModelSpec(
    name="m",
    channels=(ChannelSpec(name="t1"),),
    labels=(LabelSpec(name="t", value=1),),
    input=SliceSpec(size=(16, 16)),
)
_BIT = 8

Random = random.Random
Part = NodeProto | TensorProto


def _sound() -> ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "h", "w"]) for name in ("image", "logits")]
    weights = [numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "weight")]
    nodes = [helper.make_node("Conv", ["image", "weight"], ["logits"], pads=[1, 1, 1, 1])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# What is hidden


def _weights_elsewhere(rng: Random) -> Part:
    places: list[dict[str, str]] = [
        {
            "location": rng.choice(
                ("../secret.bin", "/etc/hostname", "sub/../../secret.bin", "link.bin", "linked/secret.bin")
            )
        },
        {"location": "*/_ORT_MEM_ADDR_/*", "offset": str(rng.getrandbits(48))},
        {"location": "w.bin", "offset": str(rng.choice((1, 2**31, 2**63, rng.getrandbits(60) + 64)))},
        {"location": "w.bin", "length": str(65 + rng.getrandbits(40))},
        {"location": rng.choice(("gone.bin", "", "w.bin\0", "n" * 4000))},
    ]
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[16], data_location=TensorProto.EXTERNAL)
    for key, value in rng.choice(places).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def _large_tensor(rng: Random) -> Part:
    dims = [rng.choice((10**3, 10**6, 2**40)) for _ in range(rng.randint(2, 5))]
    return TensorProto(name="t", data_type=rng.randint(1, 16), dims=dims, raw_data=rng.randbytes(rng.randint(0, 64)))


def _operator_of_somebody(rng: Random) -> Part:
    domain, operator = rng.choice((("com.somebody", "Conv"), ("ai.onnx.contrib", "PyOp"), ("", "EPContext"),
                                   ("com.microsoft", "EPContext"), ("trt.plugins", "Plugin")))  # fmt: skip
    return helper.make_node(operator, ["image"], ["x"], domain=domain, embed_mode=0, ep_cache_context="../engine.bin")


HIDDEN: dict[str, Callable[[Random], Part]] = {
    "weights elsewhere": _weights_elsewhere,
    "a tensor larger than its bytes": _large_tensor,
    "an operator of a library, a compiled engine": _operator_of_somebody,
}


# Where


def _graph_with(part: Part, rng: Random, depth: int) -> GraphProto:
    """A graph with ``part`` in it, inside branches or loops of nodes, ``depth`` deep."""
    if depth:
        inner = _graph_with(part, rng, depth - 1)
        node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        if rng.random() < 1 / 2:
            node = helper.make_node("Loop", ["", ""], ["y"], body=inner)
        return helper.make_graph([node], "inner", [], [])
    if isinstance(part, NodeProto):
        return helper.make_graph([part], "inner", [], [])
    match rng.randint(0, 3):
        case 0:
            return helper.make_graph([], "inner", [], [], [part])
        case 1:
            return helper.make_graph([helper.make_node("Constant", [], ["c"], value=part)], "inner", [], [])
        case 2:
            node = helper.make_node("Identity", ["image"], ["i"])
            node.attribute.add(name="all", type=9, tensors=[part])
            return helper.make_graph([node], "inner", [], [])
        case _:
            graph = helper.make_graph([], "inner", [], [])
            sparse = graph.sparse_initializer.add(dims=[4])
            (sparse.values if rng.random() < 1 / 2 else sparse.indices).CopyFrom(part)
            return graph


def _put(model: ModelProto, part: Part, rng: Random) -> None:
    graph = _graph_with(part, rng, rng.randint(0, 6))
    match rng.randint(0, 3):
        case 0:
            model.graph.MergeFrom(graph)
        case 1:
            model.training_info.add().algorithm.CopyFrom(graph)
        case 2:
            model.functions.add(name="f", domain="").node.add(op_type="If").attribute.add(name="b", type=5, g=graph)
        case _:
            model.functions.add(name="f", domain="").attribute_proto.add(name="b", type=5, g=graph)


def _hostile(count: int, folder: Path) -> dict[str, Any]:
    (folder / "home" / "sub").mkdir(parents=True)
    (folder / "secret.bin").write_bytes(bytes(64))
    (folder / "home" / "w.bin").write_bytes(bytes(64))
    (folder / "home" / "link.bin").symlink_to("../secret.bin")
    (folder / "home" / "linked").symlink_to("..")
    rng, sound, path = Random(0), _sound(), folder / "home" / "m.onnx"
    path.write_bytes(sound.SerializeToString())
    read_graph(path)
    tried, refused = Counter[str](), Counter[str]()
    for number in range(count):
        what = list(HIDDEN)[number % len(HIDDEN)]
        model = ModelProto()
        model.CopyFrom(sound)
        _put(model, HIDDEN[what](rng), rng)
        path.write_bytes(model.SerializeToString())
        tried[what] += 1
        try:
            read_graph(path)
        except ModelError:
            refused[what] += 1
    return {what: {"tried": tried[what], "refused": refused[what]} for what in HIDDEN}


def _exchanged(count: int, folder: Path) -> dict[str, Any]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key, rng, model = Ed25519PrivateKey.generate(), Random(0), folder / "signed.onnx"
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "k").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))
    (folder / "p").write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    model.write_bytes(_sound().SerializeToString())
    write_spec(model, _SPEC, model)
    sign(model, folder / "k")
    refused = Counter[str]()
    sound = {path: path.read_bytes() for path in (model, signature_file(model))}
    with verified_copies([model], folder / "p"):
        pass
    for number in range(count):
        path = list(sound)[number % 2]
        changed = bytearray(sound[path])
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(_BIT)
        path.write_bytes(changed)
        try:
            with verified_copies([model], folder / "p"):
                pass
        except ModelError:
            refused[path.suffix] += 1
        path.write_bytes(sound[path])
    names = {".onnx": "a bit of a signed model", ".sig": "a bit of its signature"}
    return {name: {"tried": count // 2, "refused": refused[suffix]} for suffix, name in names.items()}


def run(scale: float = 1.0) -> dict[str, Any]:
    """All of it: 10,000 hostile models and 2,000 changed ones at ``scale`` 1."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        rows = _hostile(max(3, round(MODELS * scale)), Path(name))
        rows |= _exchanged(max(2, 2 * round(CHANGED * scale / 2)), Path(name))
    tried, refused = (sum(row[key] for row in rows.values()) for key in ("tried", "refused"))
    return {
        "what": rows,
        "tried": tried,
        "survived": refused,
        "lost": tried - refused,
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(),
        "versions": versions("onnx", "cryptography"),
    }


def main() -> None:
    """Write ``benchmarks/results/reliability_models.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability_models")
    parser.add_argument("--scale", type=float, default=1.0)
    result = run(parser.parse_args().scale)
    print(save("reliability_models", result))
    for what, row in result["what"].items():
        print(f"{what:<46} {row['tried']:>6} tried  {row['refused']:>6} refused")


if __name__ == "__main__":
    main()
