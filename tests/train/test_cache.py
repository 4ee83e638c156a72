import math
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import bright_spec, volume_spec, write_pictures
from tiny_cheng import RECIPE

from segtool.errors import CaseError, OutputError, UsageError
from segtool.loading import load_case
from segtool.preprocess import SlicedCase
from segtool.spec import LabelSpec
from segtool_train.data import cache_filling, list_items
from segtool_train.data.cache import cache_key, open_cache, read_cache
from segtool_train.data.dataset import EpochShuffle, TrainingSamples, loader, random_patch, to_batch
from segtool_train.data.prepare import FULL, Rule
from segtool_train.recipe import find_recipe, parse_recipe, read_recipe

SPEC = parse_recipe(RECIPE, "discs", "here").spec


def test_a_real_slice_is_the_same_to_the_bit_in_training_and_at_inference(real_data: Path, tmp_path: Path):
    spec = read_recipe(find_recipe("cheng-lite0")).spec
    item = list_items("cheng", real_data / "cheng", spec).items[100]
    cache = open_cache(tmp_path, [item], spec)

    case = load_case(item.source, spec)
    sliced = SlicedCase(case, spec)
    assert case.reference is not None
    target = sliced.target(case.reference.labels, 0)

    np.testing.assert_array_equal(cache.image(0), sliced.tensor(0), strict=True)
    np.testing.assert_array_equal(cache.target(0), np.rint(target * FULL).astype(np.uint8), strict=True)
    assert cache.target(0).any()
    batch = TrainingSamples(cache, None, 0.0, 0).__getitems__([(0, 0)])
    np.testing.assert_array_equal(batch.image[0].numpy(), sliced.tensor(0), strict=True)


def test_a_cache_is_filled_once_and_found_again(discs: Path, tmp_path: Path):
    items = list_items("cheng", discs, SPEC).items
    filled: list[int] = []
    first = open_cache(tmp_path, items, SPEC, on_item=lambda done, _all: filled.append(done))
    second = open_cache(tmp_path, items, SPEC, on_item=lambda done, _all: filled.append(done))
    assert filled == list(range(1, len(items) + 1))
    assert first.samples == second.samples == read_cache(first.folder).samples
    assert [path.name for path in tmp_path.iterdir()] == [first.folder.name]


def test_a_stale_cache_is_never_used(discs: Path):
    items = list_items("cheng", discs, SPEC).items
    wider = SPEC.model_copy(update={"intensity": SPEC.intensity.model_copy(update={"foreground": "all"})})
    keys = {cache_key(items, Rule(SPEC)), cache_key(items, Rule(wider)), cache_key(items[1:], Rule(SPEC))}
    image = items[0].source.first.path
    before = image.stat()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    keys.add(cache_key(items, Rule(SPEC)))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    keys.add(cache_key(items, Rule(SPEC, background_values=(3,))))
    assert len(keys) == 5
    renamed = SPEC.model_copy(update={"name": "other", "threshold": 0.4})
    assert cache_key(items, Rule(renamed)) == cache_key(items, Rule(SPEC))  # decides no pixel


def test_the_size_of_a_patch_decides_no_voxel_of_a_cache_and_its_spacing_does():
    spec = volume_spec(patch=16)
    patch = spec.model_copy(update={"input": spec.input.model_copy(update={"patch": (32, 32, 32), "overlap": 0.1})})
    spacing = spec.model_copy(update={"input": spec.input.model_copy(update={"spacing_mm": (2.0, 2.0, 2.0)})})
    assert cache_key([], Rule(spec)) == cache_key([], Rule(patch)) != cache_key([], Rule(spacing))


def with_broken(discs: Path, folder: Path, *names: str) -> Path:
    """A copy of the set in which the named images are cut off."""
    shutil.copytree(discs, folder)
    for name in names:
        image = folder / "images" / f"{name}.png"
        image.write_bytes(image.read_bytes()[:100])
    return folder


def test_corrupt_files_in_the_middle_are_all_found_in_one_pass(discs: Path, tmp_path: Path):
    items = list_items("cheng", with_broken(discs, tmp_path / "set", "0007", "0012"), SPEC).items
    filled: list[int] = []
    for _ in range(2):
        with pytest.raises(CaseError, match=r"2 of 20 cases.*0007.*--skip-broken"):
            open_cache(tmp_path / "cache", items, SPEC, on_item=lambda done, _all: filled.append(done))
    cache = open_cache(tmp_path / "cache", items, SPEC, skip_broken=True)
    assert filled == list(range(1, 21))  # one pass for all three
    assert [name for name, _ in cache.broken] == ["0007", "0012"]
    assert [sample.item for sample in cache.samples] == [
        item.name for item in items if item.name not in {"0007", "0012"}
    ]


def test_a_file_that_vanished_after_it_was_listed_is_broken_like_others(discs: Path, tmp_path: Path):
    items = list_items("cheng", with_broken(discs, tmp_path / "set"), SPEC).items
    items[3].source.first.path.unlink()
    with pytest.raises(CaseError, match=r"1 of 20 cases.*0003"):
        open_cache(tmp_path / "cache", items, SPEC)


THREE_LABELS = tuple(LabelSpec(name=name, value=v, reference_values=(v,)) for v, name in enumerate("abc", start=1))


def masks_of(folder: Path, *values: int) -> Path:
    """One picture a value: a corner of the mask holds it."""
    write_pictures(folder, count=len(values))
    for number, value in enumerate(values):
        mask = np.zeros((32, 32), np.uint8)
        mask[:4, :4] = value
        Image.fromarray(mask).save(folder / f"slice_{number}_mask.png")
    return folder


def test_a_class_value_that_the_recipe_does_not_know_is_named_with_its_case_and_a_remedy(tmp_path: Path):
    spec = bright_spec(labels=THREE_LABELS)
    items = list_items("folder", masks_of(tmp_path / "set", 3, 7, 9), spec).items
    with pytest.raises(CaseError, match=r"slice_1: its mask holds the values 0, 7, and the recipe knows 0, 1, 2, 3"):
        open_cache(tmp_path / "cache", items, spec)
    with pytest.raises(CaseError, match=r"1 of 3 cases.*slice_2.*background_values"):
        open_cache(tmp_path / "cache", items, spec, background_values=(7,))
    cache = open_cache(tmp_path / "cache", items, spec, background_values=(7, 9))
    assert [cache.target(index).any() for index in range(3)] == [True, False, False]
    assert [sample.labelled for sample in cache.samples] == [True, False, False]


def test_a_binary_recipe_takes_every_value_that_is_not_zero(tmp_path: Path):
    items = list_items("folder", masks_of(tmp_path / "set", 255, 7), bright_spec()).items
    cache = open_cache(tmp_path / "cache", items, bright_spec())
    assert all(sample.labelled for sample in cache.samples)


def test_a_cache_that_would_not_fit_is_refused_after_a_few_cases(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    items = list_items("cheng", discs, SPEC).items
    # A case of 64x64 has 4 bytes of image and 1 of target a pixel: 20480 bytes, so 16 cases more want 327680.
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=327679))
    filled: list[int] = []
    with pytest.raises(OutputError, match=r"needs about 0.41 MB of disk.*--cache"):
        open_cache(tmp_path, items, SPEC, on_item=lambda done, _all: filled.append(done))
    assert filled == [1, 2, 3]
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=327680))
    open_cache(tmp_path, items, SPEC)


def dead_process() -> int:
    """Number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_a_killed_process_left_half_written_is_removed_and_what_others_write_is_not(discs: Path, tmp_path: Path):
    here, there = cache_filling._HOST, "0123abcd"
    names = {
        f".partial-{dead_process()}-{here}-key": False,
        f".partial-{os.getpid()}-{here}-key": True,
        f".partial-1-{there}-key": True,
        f".partial-2-{there}-key": False,
        ".partial-3-images.png": True,  # no cache
    }
    for name in names:
        (tmp_path / name).mkdir()
    long_ago = time.time() - 3 * 24 * 3600
    os.utime(tmp_path / f".partial-2-{there}-key", (long_ago, long_ago))
    open_cache(tmp_path, list_items("cheng", discs, SPEC).items[:2], SPEC)
    assert {name: (tmp_path / name).is_dir() for name in names} == names


def test_two_runs_that_fill_one_cache_at_once_both_have_it(discs: Path, tmp_path: Path):
    items = list_items("cheng", discs, SPEC).items[:2]

    def faster(done: int, _all: int) -> None:
        if done == 2:  # the other run ends first; it has another process number
            other = open_cache(tmp_path / "other", items, SPEC)
            other.folder.rename(tmp_path / other.folder.name)

    cache = open_cache(tmp_path, items, SPEC, on_item=faster)
    assert cache.folder.parent == tmp_path
    assert len(cache.samples) == 2


def test_a_cache_crosses_to_another_process_without_its_pixels(discs: Path, tmp_path: Path):
    cache = open_cache(tmp_path, list_items("cheng", discs, SPEC).items, SPEC)
    before = cache.image(3).copy(), cache.target(3).copy()
    sent = pickle.dumps(cache)
    assert len(sent) < 20 * 200  # an image alone is 16384 bytes
    received = pickle.loads(sent)
    np.testing.assert_array_equal(received.image(3), before[0])
    np.testing.assert_array_equal(received.target(3), before[1])


def test_workers_give_the_batches_that_one_process_gives(discs: Path, tmp_path: Path):
    cache = open_cache(tmp_path, list_items("cheng", discs, SPEC).items, SPEC)
    seen = []
    for workers in (0, 2):
        shuffle = EpochShuffle(range(20), 4, seed=1)
        batches = loader(TrainingSamples(cache, None, 0.0, 0), shuffle, 4, workers)
        for epoch in range(2):
            shuffle.set_epoch(epoch)
            seen.append([(batch.samples.tolist(), batch.image) for batch in batches])
    for one, two in zip(seen[:2], seen[2:], strict=True):
        assert [samples for samples, _ in one] == [samples for samples, _ in two]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True))


def test_a_cache_that_is_gone_says_what_to_do(tmp_path: Path):
    with pytest.raises(UsageError, match="--cases"):
        read_cache(tmp_path / "nothing")


@pytest.mark.parametrize("damage", [("index.json", b"{"), ("images.f32", b"1234"), ("targets.u8", None)])
def test_a_damaged_cache_is_to_be_removed(discs: Path, tmp_path: Path, damage: tuple[str, bytes | None]):
    items = list_items("cheng", discs, SPEC).items[:2]
    name, content = damage
    file = open_cache(tmp_path, items, SPEC).folder / name
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(UsageError, match="Remove that folder"):
        open_cache(tmp_path, items, SPEC)


def test_an_epochs_order_depends_on_seed_and_epoch_alone():
    one, two = EpochShuffle(range(10), 4, seed=1), EpochShuffle(range(10), 4, seed=1)
    list(one)
    for sampler in (one, two):
        sampler.set_epoch(5)
    assert list(one) == list(two)
    assert len(one) == 8  # the incomplete batch is left out
    one.set_epoch(6)
    assert [index for _, index in one] != [index for _, index in two]
    assert len(EpochShuffle(range(3), 4, seed=1)) == 3  # unless there is no other


def test_copies_show_every_sample_so_often_in_passes_that_never_come_again():
    shuffle = EpochShuffle([3, 5, 7, 9], 4, seed=1, copies=2)
    passes = []
    for epoch in (0, 1):
        shuffle.set_epoch(epoch)
        keys = list(shuffle)
        assert len(shuffle) == len(keys) == 8
        assert sorted(index for _, index in keys) == [3, 3, 5, 5, 7, 7, 9, 9]
        passes += keys
    assert len(set(passes)) == 16  # a patch is drawn by pass and sample


@pytest.mark.parametrize(
    ("weights", "shown"),
    [
        ([1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]),
        ([1, 1, 1, 1, 2, 2], [0.75, 0.75, 0.75, 0.75, 1.5, 1.5]),  # of six
        ([1, 1, 1, 1, 4, 4], [0.5, 0.5, 0.5, 0.5, 2, 2]),
        ([0, 0, 0, 0, 0, 5], [0, 0, 0, 0, 0, 6]),
    ],
)
def test_weights_say_how_often_a_sample_is_shown(weights: list[float], shown: list[float]):
    shuffle, counts, keys = EpochShuffle(range(6), 1, seed=0, weights=weights), Counter[int](), set()
    for epoch in range(200):
        shuffle.set_epoch(epoch)
        passes = list(shuffle)
        once = Counter(index for _, index in passes)
        assert len(passes) == len(shuffle) == 6
        assert all(math.floor(mean) <= once[index] <= math.ceil(mean) for index, mean in enumerate(shown))
        counts += once
        keys |= set(passes)
    assert [counts[index] / 200 for index in range(6)] == pytest.approx(shown, abs=0.12)
    assert len(keys) == 200 * 6  # no patch comes twice


def test_a_balanced_epoch_depends_on_seed_and_epoch_alone():
    one, two = (EpochShuffle(range(9), 2, 3, copies=2, weights=range(1, 10)) for _ in range(2))
    list(one)
    for sampler in (one, two):
        sampler.set_epoch(5)
    assert list(one) == list(two)


def test_a_patch_on_a_label_holds_it_and_keeps_image_and_target_together():
    target = np.zeros((1, 20, 20, 20), np.uint8)
    target[0, 17, 3, 10] = FULL
    image = np.arange(8000, dtype=np.float32).reshape(1, 20, 20, 20)
    for seed in range(5):
        cut, mask = random_patch(image, target, (8, 8, 8), (17, 3, 10), 0.0, np.random.default_rng(seed))
        assert cut.shape == mask.shape == (1, 8, 8, 8)
        assert cut[mask == FULL].tolist() == [image[0, 17, 3, 10]]


def test_a_patch_of_a_cached_volume_is_a_view_that_reads_no_other_voxel(tmp_path: Path):
    image = np.memmap(tmp_path / "image", np.float32, "w+", shape=(2, 20, 20, 20))
    target = np.memmap(tmp_path / "target", np.uint8, "w+", shape=(1, 20, 20, 20))
    cut, mask = random_patch(image, target, (8, 20, 8), (10, 10, 10), 0.0, np.random.default_rng(0))
    assert np.shares_memory(cut, image)
    assert np.shares_memory(mask, target)


def test_every_place_of_a_volume_can_be_cut():
    image = np.arange(6, dtype=np.float32).reshape(1, 6, 1, 1)
    cuts = [
        random_patch(image, np.zeros((1, 6, 1, 1), np.uint8), (4, 1, 1), None, 0.0, np.random.default_rng(seed))[0]
        for seed in range(30)
    ]
    assert {tuple(cut.ravel().tolist()) for cut in cuts} == {(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)}


def test_a_volume_smaller_than_the_patch_lies_in_its_middle_within_its_lowest_value_and_background():
    image, target = np.full((2, 4, 8, 9), 3.0, np.float32), np.full((1, 4, 8, 9), FULL, np.uint8)
    for centre in (None, (0, 0, 8)):
        cut, mask = random_patch(image, target, (9, 8, 8), centre, -2.0, np.random.default_rng(0))
        assert cut.shape == (2, 9, 8, 8)
        # 5 voxels are missing along the first axis: 2 before, 3 behind, as a window at inference has them.
        assert cut[:, :, 0, 0].tolist() == [[-2.0] * 2 + [3.0] * 4 + [-2.0] * 3] * 2
        assert mask[0, :, 0, 0].tolist() == [0] * 2 + [FULL] * 4 + [0] * 3


def test_targets_become_shares():
    batch = to_batch([(np.zeros((1, 2, 2), np.float32), np.array([[[0, 51], [204, 255]]], np.uint8))], [9])
    assert batch.target.flatten().tolist() == pytest.approx([0, 0.2, 0.8, 1])
    assert batch.samples.tolist() == [9]
