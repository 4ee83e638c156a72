"""Every shipped recipe's network in every precision: does it export, how near does it stay, does TensorRT take it?

    python -m benchmarks.export_matrix [RECIPE ...]

Weights are random, with the running statistics of a few passes over noise, so that the figures are about arithmetic
and not about a data set: ``error`` is the largest difference of the logits from those of torch in FP32 over their
standard deviation, ``agreement`` the share of pixels with the same label. The gates of an export, on masks of real
cases, are another matter. Extents are small, since the graphs take any. TensorRT-RTX parses and builds on a CPU,
here for the smaller extent; running what it builds takes a GPU. Rows of recipes that are not named stay in the
result as they were.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.common import RESULTS, machine, save, versions
from segtool.backends import load_backend
from segtool.backends.graph import read_graph
from segtool.backends.tensorrt_build import Bindings, build_plan, load_bindings, shape_profile
from segtool.errors import MissingDependencyError, UserError
from segtool.model_file import write_spec
from segtool.postprocess import decide
from segtool.spec import ModelSpec
from segtool_export.onnx_file import write_onnx
from segtool_export.parity import AnyArray
from segtool_export.quantisation import calibrate, parted, quantise
from segtool_train.networks import get_network
from segtool_train.networks.base import Interface
from segtool_train.recipe import find_recipe, read_recipe, shipped_recipes

OPSET = 17
EXTENTS = {2: (64, 128), 3: (32, 48)}
"""By rank: multiples of every divisor, two of them, as a graph that fits one may hold it as a number."""


def example_spec(spec: ModelSpec, extent: int) -> ModelSpec:
    """The recipe's spec at another extent."""
    shape = (extent,) * spec.input.rank
    changed = {"size": shape} if spec.input.rank == 2 else {"patch": shape}
    return spec.model_copy(update={"input": spec.input.model_copy(update=changed)})


def warmed_up(network: nn.Module, channels: int, extent: int, rank: int) -> nn.Module:
    """With running statistics that are not those of a new layer."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(2):
            network.train()(torch.randn(2, channels, *(extent,) * rank, generator=noise) * 2 + 0.5)
    return network.eval()


def rows_of(name: str, extents: tuple[int, ...] | None = None, **changes: object) -> list[dict[str, Any]]:
    """One row an extent.

    Args:
        name: A shipped recipe.
        extents: None takes :data:`EXTENTS`.
        changes: Of the network's options, to make it small.
    """
    recipe = read_recipe(find_recipe(name))
    described = get_network(recipe.network.name, {**recipe.network.options, **changes})
    rank, channels = recipe.spec.input.rank, len(recipe.spec.channels)
    extents = extents or EXTENTS[rank]
    torch.manual_seed(0)
    network = warmed_up(described.build(Interface.of(recipe.spec)), channels, extents[0], rank)
    weights = sum(weight.numel() for weight in network.parameters())
    rows = []
    for extent in extents:
        spec = example_spec(recipe.spec, extent)
        row = {"recipe": name, "network": recipe.network.name, "parameters": weights, "extent": [extent] * rank}
        rows.append(row | {"precisions": measure(network, spec, build=extent == extents[0])})
    return rows


def measure(network: nn.Module, spec: ModelSpec, *, build: bool) -> dict[str, dict[str, Any]]:
    """Every precision of one network, with TensorRT's build where that is wanted."""
    extent = spec.extent
    noise = np.random.default_rng(2)
    images = noise.normal(0.5, 2, (3, len(spec.channels), *extent)).astype(np.float32)
    with torch.inference_mode():
        wanted = network(torch.from_numpy(images[:1])).numpy()
    bindings = bindings_here() if build else None
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        full = Path(name) / "fp32.onnx"
        ways: dict[str, Callable[[Path], None]] = {
            "fp32": lambda path: write_onnx(network, spec, path, OPSET),
            "fp16": lambda path: write_onnx(network, spec, path, OPSET, half="nothing"),
            "int8": partial(write_int8, full, spec, images),
        }
        for precision, write in ways.items():
            path = Path(name) / f"{precision}.onnx"
            start = time.perf_counter()
            write(path)
            exported_s = time.perf_counter() - start
            backend = load_backend(path, "cpu", threads=1)
            found[precision] = {
                "precision_read_back": backend.precision,
                "size_bytes": path.stat().st_size,
                "export_s": round(exported_s, 2),
                **difference(wanted, backend.run(images[:1]), spec),
                "tensorrt": None if bindings is None else built(bindings, path),
            }
    return found


def write_int8(full: Path, spec: ModelSpec, images: AnyArray, path: Path, *, outputs: bool = True) -> None:
    """The form that is tried first; without ``outputs`` the one that is next, which keeps sums in FP32."""
    full = parted(full)
    quantise(full, calibrate(full, list(images), "minmax"), path, outputs=outputs)
    write_spec(path, spec, path)


def difference(wanted: AnyArray, found: AnyArray, spec: ModelSpec) -> dict[str, float]:
    """Of logits ``(1, K, *S)``."""
    labels = [decide(logits[0], spec, spec.threshold) for logits in (wanted, found)]
    return {
        "error": float(f"{np.abs(wanted - found).max() / wanted.std():.3g}"),
        "agreement": round(float((labels[0] == labels[1]).mean()), 6),
    }


def bindings_here() -> Bindings | None:
    """TensorRT, where one is installed that builds on this machine."""
    try:
        return load_bindings()
    except MissingDependencyError:
        return None


def built(bindings: Bindings, path: Path) -> dict[str, Any]:
    """Parse and build, or why not."""
    graph, start = read_graph(path), time.perf_counter()
    try:
        plan = build_plan(bindings, path, graph, shape_profile(path, graph))
    except UserError as error:
        return {"engine": bindings.engine, "error": str(error)}
    elapsed = time.perf_counter() - start
    return {"engine": bindings.engine, "build_s": round(elapsed, 2), "size_bytes": len(plan)}


def line(row: dict[str, Any]) -> str:
    """For the terminal."""
    cells = []
    for precision, one in row["precisions"].items():
        engine = one["tensorrt"]
        outcome = "-" if engine is None else f"{engine['build_s']} s" if "build_s" in engine else "FAILS"
        cells.append(f"{precision} {one['error']:.1g} {one['agreement']:.4f} {outcome}")
    return f"{row['recipe']:22} {'x'.join(map(str, row['extent'])):12} {'   '.join(cells)}"


def main() -> None:
    """Measure, print and save."""
    torch.set_num_threads(1)
    path = RESULTS / "export_matrix.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    names = sys.argv[1:] or list(shipped_recipes())
    rows = [row for row in known if row["recipe"] not in names and row["recipe"] in shipped_recipes()]
    for name in names:
        for row in rows_of(name):
            rows.append(row)
            print(line(row), flush=True)
        ordered = sorted(rows, key=lambda row: (row["recipe"], row["extent"]))
        save("export_matrix", {
            "what": "random networks of all recipes: error of the logits over their deviation, and TensorRT's build",
            "opset": OPSET,
            "machine": machine(),
            "versions": versions("torch", "onnx", "onnxruntime", "onnxconverter-common", "tensorrt_rtx"),
            "rows": ordered,
        })  # fmt: skip
    print(path)


if __name__ == "__main__":
    main()
