"""Several processes: their shares by hand; and, where slow tests are wanted, two that train as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_cheng import RECIPE

from segtool.errors import UsageError
from segtool_train.data.dataset import EpochShuffle
from segtool_train.processes import Processes, exchange, find_processes
from segtool_train.trainer import RankShare

slow = pytest.mark.skipif("SEGTOOL_SLOW_TESTS" not in os.environ, reason="slow: set SEGTOOL_SLOW_TESTS=1")


def test_processes_share_the_batches_that_one_alone_would_see():
    def shuffle() -> EpochShuffle:
        made = EpochShuffle(range(11), 4, seed=3)
        made.set_epoch(5)
        return made

    alone = list(shuffle())
    two = [RankShare(shuffle(), 4, Processes("cpu", 2, 1, rank)) for rank in (0, 1)]
    assert [len(share) for share in two] == [4, 4]
    shares = [list(share) for share in two]
    for start in (0, 4):
        half = start // 2
        assert [*shares[0][half : half + 2], *shares[1][half : half + 2]] == alone[start : start + 4]


def test_a_share_tells_its_epoch_on():
    inner = EpochShuffle(range(8), 4, seed=0)
    share = RankShare(inner, 4, Processes("cpu"))
    first = list(share)
    share.set_epoch(1)
    assert first != list(share) == list(inner)


def test_a_batch_that_does_not_divide_is_refused():
    assert Processes("cuda", 4, 2).share(16) == 2
    with pytest.raises(UsageError, match=r"batch of 6 does not divide by 4 devices\. Change --batch or --devices"):
        Processes("cpu", 4).share(6)


def test_alone_there_is_nobody_to_exchange_with():
    assert exchange("word") == ["word"]
    assert find_processes("cpu", None) == Processes("cpu", 1, 1, 0)


def test_torchruns_word_counts(monkeypatch: pytest.MonkeyPatch):
    started = {"TORCHELASTIC_RUN_ID": "1", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    assert find_processes("cpu", None) == Processes("cpu", local=2, machines=2, rank=3)
    assert not find_processes("cpu", 2).first
    with pytest.raises(UsageError, match=r"torchrun has started 2 processes here\. Leave --devices out"):
        find_processes("cpu", 3)


PLAIN = RECIPE.partition("[augmentation]")[0].replace("depth = 3", 'depth = 3\nnorm = "instance"')
"""Without chance in the batch and without norms over it, so that shares of a batch add up to the batch."""


def train(discs: Path, folder: Path, *arguments: str, launcher: tuple[str, ...] = (sys.executable,)) -> list[str]:
    recipe = folder / "discs.toml"
    recipe.parent.mkdir(exist_ok=True)
    recipe.write_text(PLAIN, encoding="utf-8")
    command = [*launcher, "-m", "segtool", "train", str(recipe), "-d", str(discs), "-o", str(folder / "run")]
    options = ["--device", "cpu", "--no-export", "--set", "training.loss=bce", *arguments]
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@slow
@pytest.mark.parametrize(("arguments", "launcher"), [(("--devices", "2"), (sys.executable,)), ((), TORCHRUN)])
def test_two_processes_train_as_one(discs: Path, tmp_path: Path, arguments: tuple[str, ...], launcher: tuple[str, ...]):
    alone = train(discs, tmp_path / "alone")
    together = train(discs, tmp_path / "together", *arguments, launcher=launcher)
    assert len([line for line in together if line.startswith("epoch ")]) == 2  # one of them speaks
    assert len(alone) == len(together)
    weights = [load_file(tmp_path / name / "run" / "best.safetensors") for name in ("alone", "together")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-3) for key in weights[0])


@slow
def test_a_compiled_network_keeps_the_names_of_its_weights(discs: Path, tmp_path: Path):
    train(discs, tmp_path / "plain", "--epochs", "1")
    train(discs, tmp_path / "compiled", "--epochs", "1", "--compile")
    weights = [load_file(tmp_path / name / "run" / "best.safetensors") for name in ("plain", "compiled")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-3) for key in weights[0])
