"""What every engine must do: one answer, whatever the batch, the size and the number of callers.

ONNX Runtime in fp32 on a CPU is the reference. Engines that are not installed or have no GPU skip with their reason.
"""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import bright_spec, volume_spec
from torch import nn

from segtool.backends import Device, load_backend
from segtool.backends.base import Backend, Precision
from segtool.bundled import default_model
from segtool.case import Case
from segtool.errors import DeviceError, MissingDependencyError
from segtool.geometry import Geometry
from segtool.metrics import dice
from segtool.model_file import read_spec, write_spec
from segtool.phantom import PLANES, phantom_slice
from segtool.postprocess import decide
from segtool.preprocess import SlicedCase
from segtool.spec import LabelSpec, SliceSpec, VolumeSpec

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Engine:
    """An engine and how far it may lie from the reference.

    Args:
        device: As the command line names it.
        precision: Of its arithmetic.
        tolerance: Of logits, as a share of the reference's spread.
        mask_dice: Lowest Dice of the bundled model's masks.
    """

    device: Device
    precision: Precision
    tolerance: float
    mask_dice: float


ENGINES = [
    Engine("cpu", "fp32", 1e-5, 1.0),
    Engine("cuda", "fp32", 1e-3, 0.9999),
    Engine("tensorrt", "fp32", 1e-3, 0.9999),
    Engine("openvino", "fp32", 1e-5, 0.9999),
    # 8 bits of each factor: single logits move, masks hardly.
    Engine("openvino", "bf16", 5e-2, 0.999),
]
SHAPES = {2: (32, 48), 3: (16, 24, 16)}


class Small(nn.Module):
    """Down, up, and a skip between: convolutions, instance norm, pooling, transposed convolution, concatenation."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        conv = nn.Conv2d if rank == 2 else nn.Conv3d
        norm = nn.InstanceNorm2d if rank == 2 else nn.InstanceNorm3d
        up = nn.ConvTranspose2d if rank == 2 else nn.ConvTranspose3d
        pool = nn.MaxPool2d if rank == 2 else nn.MaxPool3d
        self.first = nn.Sequential(conv(2, 8, 3, padding=1), norm(8, affine=True), nn.LeakyReLU())
        self.below = nn.Sequential(pool(2), conv(8, 16, 3, padding=1), nn.ReLU(), up(16, 8, 2, stride=2))
        self.last = conv(16, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skip = self.first(image)
        logits: torch.Tensor = self.last(torch.cat([skip, self.below(skip)], 1))
        return logits


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights, batch and space dynamic."""
    rank: int = request.param
    path = tmp_path_factory.mktemp("model") / f"{rank}d.onnx"
    torch.manual_seed(0)
    names = {0: "batch", **{axis: f"s{axis}" for axis in range(2, rank + 2)}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, about itself
        torch.onnx.export(
            Small(rank).eval(),
            (torch.zeros(1, 2, *SHAPES[rank]),),
            path,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": names, "logits": names},
            opset_version=17,
            dynamo=False,
        )
    labels = tuple(LabelSpec(name=name, value=value) for value, name in enumerate(("core", "rim", "oedema"), 1))
    spec = volume_spec(channels=("t1", "flair"), labels=labels, input=VolumeSpec(patch=SHAPES[3]), divisor=2)
    if rank == 2:
        spec = bright_spec(channels=spec.channels, labels=labels, input=SliceSpec(size=SHAPES[2]))
    write_spec(path, spec, path)
    return path


Load = Callable[..., Backend]


@pytest.fixture(params=ENGINES, ids=lambda engine: f"{engine.device}-{engine.precision}")
def engine(request: pytest.FixtureRequest) -> Engine:
    chosen: Engine = request.param
    return chosen


@pytest.fixture
def load(engine: Engine, model: Path) -> Iterator[Load]:
    """Loads the engine, or skips with the reason why it is not here."""
    loaded = []

    def loads(threads: int | None = 1, calls: int = 1) -> Backend:
        try:
            backend = load_backend(model, engine.device, threads, calls=calls, precision=engine.precision)
        except (DeviceError, MissingDependencyError) as error:
            assert engine.device != "cpu"
            pytest.skip(error.problem)
        loaded.append(backend)
        return backend

    yield loads
    for backend in loaded:
        backend.close()


def noise(model: Path, count: int, seed: int = 0) -> Float32Array:
    rank = int(model.stem[0])
    return np.random.default_rng(seed).standard_normal((count, 2, *SHAPES[rank])).astype(np.float32)


def answer(backend: Backend, batch: Float32Array) -> Float32Array:
    logits = backend.run(backend.xp.asarray(batch))
    return np.asarray(logits if backend.xp is np else backend.xp.asnumpy(logits))


def check(engine: Engine, logits: Float32Array, reference: Float32Array) -> None:
    assert logits.shape == reference.shape
    assert logits.dtype == np.float32
    assert np.abs(logits - reference).max() <= engine.tolerance * np.ptp(reference)


def test_logits_are_those_of_onnxruntime(model: Path, engine: Engine, load: Load) -> None:
    batch = noise(model, 3)
    check(engine, answer(load(), batch), answer(load_backend(model, "cpu", 1), batch))


def test_the_bundled_model_draws_the_same_masks(engine: Engine) -> None:
    spec = read_spec(default_model())
    try:
        backend = load_backend(default_model(), engine.device, 1, precision=engine.precision)
    except (DeviceError, MissingDependencyError) as error:
        pytest.skip(error.problem)
    pictures = [phantom_slice(seed, plane, 256)[0] for seed in range(2) for plane in PLANES]
    cases = [SlicedCase(Case("head", p[None], Geometry.of_pixels(p.shape)), spec) for p in pictures]
    batch = np.stack([case.tensor(0) for case in cases])
    sides = [answer(one, batch) for one in (load_backend(default_model(), "cpu", 1), backend)]
    before, after = (np.stack([decide(logits, spec, spec.threshold) for logits in side]) for side in sides)
    assert before.any()
    assert dice(before > 0, after > 0) >= engine.mask_dice


def test_any_batch_and_extent_in_any_order(model: Path, engine: Engine, load: Load) -> None:
    if engine.device == "tensorrt":
        pytest.skip("a TensorRT engine takes the extent of its spec alone")
    backend, reference = load(), load_backend(model, "cpu", 1)
    for count, grown in ((5, 0), (1, 2), (3, 0), (2, 4), (7, 0)):
        batch = noise(model, count, seed=count)
        batch = np.pad(batch, [(0, 0), (0, 0), *[(0, grown)] * (batch.ndim - 2)])
        check(engine, answer(backend, batch), answer(reference, batch))


def test_a_sample_does_not_see_its_neighbours_in_the_batch(model: Path, engine: Engine, load: Load) -> None:
    backend, batch = load(), noise(model, 3)
    together = answer(backend, batch)
    for index in range(3):
        check(engine, answer(backend, batch[index : index + 1]), together[index : index + 1])


def test_the_same_input_gives_the_same_answer(model: Path, load: Load) -> None:
    backend, batch = load(), noise(model, 2)
    first = answer(backend, batch)
    assert np.array_equal(first, answer(backend, batch))
    assert np.array_equal(first, answer(load(), batch))


def test_an_answer_stays_when_the_next_one_comes(model: Path, load: Load) -> None:
    backend = load()
    first = answer(backend, noise(model, 2))
    kept = first.copy()
    answer(backend, noise(model, 2, seed=1))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize(("calls", "callers"), [(1, 3), (2, 2), (2, 5)])
def test_threads_get_each_their_own_answer(model: Path, load: Load, calls: int, callers: int) -> None:
    backend = load(calls=calls)
    batches = [noise(model, 1 + seed % 3, seed) for seed in range(12)]
    expected = [answer(backend, batch) for batch in batches]
    with ThreadPoolExecutor(callers) as pool:
        found = list(pool.map(lambda batch: answer(backend, batch), batches))
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one, other)


def test_a_view_of_an_array_is_taken_too(model: Path, engine: Engine, load: Load) -> None:
    backend, batch = load(), noise(model, 4)
    check(engine, answer(backend, batch[1:3]), answer(backend, batch)[1:3])
    mirrored = batch[..., ::-1]
    check(engine, answer(backend, mirrored), answer(backend, mirrored.copy()))


def test_a_read_only_array_is_taken_and_left_as_it_is(model: Path, engine: Engine, load: Load) -> None:
    backend, batch = load(), noise(model, 2)
    expected, kept = answer(backend, batch), batch.copy()
    batch.flags.writeable = False
    check(engine, answer(backend, batch), expected)
    assert np.array_equal(batch, kept)


def test_it_says_what_it_is(engine: Engine, load: Load) -> None:
    backend = load()
    assert backend.precision == engine.precision
    assert backend.device == ("cpu" if engine.device in ("cpu", "openvino") else "cuda")
    assert backend.name.startswith({"cpu": "onnxruntime", "cuda": "onnxruntime"}.get(engine.device, engine.device))
    assert backend.version[0].isdigit()


def test_a_closed_engine_answers_no_more(model: Path, load: Load) -> None:
    backend = load()
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="the engine is closed"):
        answer(backend, noise(model, 1))
