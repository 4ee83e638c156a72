"""Which rows a benchmark has: model files, engines, precisions and batches that can meet on this machine."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from segtool.backends import DEVICES, Device
from segtool.backends.base import Precision
from segtool.backends.graph import read_graph
from segtool.errors import MissingDependencyError, UsageError
from segtool.model_file import read_spec
from segtool.spec import ModelSpec

BATCHES = {2: (1, 8), 3: (1,)}
"""By the rank of the input: what is measured where no batch is named."""
_ALWAYS: list[Device] = ["cpu"]
"""Where other tools run on every machine."""


@dataclass(frozen=True)
class Row:
    """One engine with one model file.

    Args:
        model: The ``.onnx`` file.
        device: As ``segtool predict --device`` takes it, never ``auto``.
        precision: Of the arithmetic; None for the file's own.
        batch: Slices or windows a call.
        threads: CPU threads of a call; None for one a core.
        peer: Name of another tool that runs the same network, None for segtool itself.
    """

    model: Path
    device: Device
    precision: Precision | None
    batch: int
    threads: int | None = None
    peer: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"model": str(self.model)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Row":
        """The inverse of :meth:`as_dict`."""
        return cls(**(values | {"model": Path(values["model"])}))


def parse_devices(names: Sequence[str]) -> tuple[Device, ...]:
    """The devices that words such as ``cpu`` or ``cpu,openvino`` name; none means whatever is here.

    Raises:
        UsageError: Not a device, or ``auto``, which is no engine.
    """
    known = [device for device in DEVICES if device != "auto"]
    words = [word for name in names for word in name.split(",")]
    for word in words:
        if word not in known:
            raise UsageError(f"--device {word}: not an engine", f"Choose some of: {', '.join(known)}.")
    return tuple(cast("Device", word) for word in dict.fromkeys(words))


def parse_batches(texts: Sequence[str]) -> tuple[int, ...]:
    """The batches that words such as ``4`` or ``1,8`` name.

    Raises:
        UsageError: Not whole numbers above zero.
    """
    words = [word for text in texts for word in text.split(",")]
    for word in words:
        if not word.strip().isdecimal() or int(word) < 1:
            raise UsageError(f"--batch {word}: not a number of slices", "Give numbers from 1 on, such as --batch 1,8.")
    return tuple(dict.fromkeys(int(word) for word in words))


def engines_here() -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """Engines that can run on this machine, and of every other the line that says what it lacks."""
    from segtool.backends.nvidia import driver
    from segtool.backends.onnx_runtime import providers

    here: list[Device] = []
    missing = []
    try:
        built = providers()
    except MissingDependencyError as error:
        built = ()
        missing.append(f"cpu: {error}")
    here += ["cpu"] if built else []
    if find_spec("openvino") is None:
        missing.append("openvino: not installed. Install it with: pip install 'segtool[openvino]'")
    else:
        here.append("openvino")
    try:
        driver()
    except OSError as error:
        missing.append(f"cuda, tensorrt: {error}")
        return tuple(here), tuple(missing)
    if "cuda" in built:
        here.append("cuda")
    else:
        missing.append("cuda: onnxruntime here lacks it. Install it with: pip install 'segtool[gpu]'")
    if "tensorrt" in built or find_spec("tensorrt") is not None:
        here.append("tensorrt")
    else:
        missing.append("tensorrt: not installed. Install it with: pip install 'segtool[tensorrt]'")
    return tuple(here), tuple(missing)


def plan(
    models: Sequence[Path],
    devices: Sequence[Device],
    precisions: Sequence[Precision],
    batches: Sequence[int],
    threads: int | None,
) -> tuple[Row, ...]:
    """Rows in the order in which they are shown.

    Args:
        models: The files.
        devices: Engines to run them on.
        precisions: Empty for every one that the engine has for the file; a precision that no engine has for any
            file is an error when its row is loaded.
        batches: Empty for :data:`BATCHES`.
        threads: Of a call on a CPU.

    Raises:
        ModelError: A file is not a model.
    """
    rows: list[Row] = []
    for model in models:
        own = cast("Precision", read_graph(model).precision)
        spec = read_spec(model)
        for device in devices:
            for precision in precisions or _precisions(device, own, spec):
                rows += [Row(model, device, precision, batch, threads) for batch in batches or BATCHES[spec.input.rank]]
    return tuple(rows)


def peer_rows(
    models: Sequence[Path],
    peers: Sequence[str],
    devices: Sequence[Device],
    batches: Sequence[int],
    threads: int | None,
) -> tuple[Row, ...]:
    """Rows of other tools, each model with each of them; words may hold several names, with commas between.

    They run on the CPU, and on CUDA where that is among ``devices``.
    """
    names = dict.fromkeys(name for word in peers for name in word.split(","))
    return tuple(
        Row(model, device, None, batch, threads, name)
        for model in models
        for device in ([*_ALWAYS, "cuda"] if "cuda" in devices else _ALWAYS)
        for name in names
        for batch in batches or BATCHES[read_spec(model).input.rank]
    )


def _precisions(device: Device, own: Precision, spec: ModelSpec) -> Iterator[Precision]:
    if device != "openvino" or own not in ("fp32", "int8"):
        yield own
        return
    if own == "fp32":
        yield own
        if _computes_bf16():
            yield "bf16"
    else:
        # OpenVINO refuses most files in int8 that were not proved on it, see `segtool.backends.openvino_check`.
        ways: dict[Precision, str] = {"int8": "int8", "bf16": "int8+bf16"}
        yield from (precision for precision, computing in ways.items() if spec.is_proved("openvino", computing))


def _computes_bf16() -> bool:
    """Whether OpenVINO does; False where it cannot be imported, which the row in fp32 will say."""
    from segtool.backends.openvino_engine import computes_bf16

    try:
        return computes_bf16()
    except MissingDependencyError:
        return False
