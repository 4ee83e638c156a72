"""Files that pass for weights and would run code: refused in one line, and nothing of it runs."""

import io
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segtool.errors import UserError
from segtool_export.weights import RunWeights
from segtool_train.networks.pretrained import read_weights
from segtool_train.run_folder import RunFolder

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def plain_pickle(trap: Trap) -> bytes:
    return pickle.dumps({"state_dict": trap})


def torch_file(trap: Trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}, "hyper_parameters": trap}, buffer)
    return buffer.getvalue()


def old_torch_file(trap: Trap) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": trap}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def sound_file_with_another_pickle(trap: Trap) -> bytes:
    sound, changed = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(2)}}, sound)
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(name, plain_pickle(trap) if name.endswith("data.pkl") else source.read(name))
    return changed.getvalue()


FILES: tuple[Callable[[Trap], bytes], ...] = (
    plain_pickle, torch_file, old_torch_file, sound_file_with_another_pickle,
    lambda trap: plain_pickle(trap)[:-3],
    lambda _: b"\x80\x04]\x94" + b"(" * 100_000,
    lambda _: b"\x80\x02" + b"\x8a\xff" + bytes(255) + b".",
    lambda _: b"\x80\x02h\x05.",  # what was never put there
    lambda _: b"\x80\x02e.",  # appended to nothing
    lambda _: b"\x80\x02}(K\x01u.",  # a key without a value
    lambda _: b"\x80\x02r\x01",  # half a number
    lambda _: b"PK\x03\x04" + bytes(100),
    lambda _: b"",
)  # fmt: skip


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def test_the_trap_works(mark: Path) -> None:
    pickle.loads(plain_pickle(Trap(mark)))
    assert mark.is_dir()


@pytest.mark.parametrize("make", FILES)
@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
def test_weights_that_would_run_code_are_refused_and_run_none(
    tmp_path: Path, mark: Path, make: Callable[[Trap], bytes], suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(make(Trap(mark)))
    with pytest.raises(UserError) as caught:
        read_weights(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not mark.exists()


@pytest.mark.parametrize("make", FILES)
def test_checkpoints_that_would_run_code_are_refused_by_resume_and_export(
    tmp_path: Path, mark: Path, make: Callable[[Trap], bytes]
) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.last_file.write_bytes(make(Trap(mark)))
    shutil.copyfile(run.last_file, run.best_file)
    for read in (run.check_last, run.read_best, RunWeights(run, "last")._checkpoint):
        with pytest.raises(UserError):
            read()
    assert not mark.exists()


def test_lightning_is_given_checkpoints_as_tensors_alone(tmp_path: Path, mark: Path) -> None:
    """As the trainer gives them: `ckpt_path` with `weights_only`."""
    from segtool_train.frameworks import pl

    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0", "epoch": 0, "loops": Trap(mark)}, path)
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_epochs=1
    )
    with pytest.raises(pickle.UnpicklingError):
        trainer.strategy.load_checkpoint(path, weights_only=True)
    assert not mark.exists()
