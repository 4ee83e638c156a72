import os
from pathlib import Path

import numpy as np
import pytest
from tiny_cheng import RECIPE

from segtool.errors import CaseError, UsageError
from segtool.loading import load_case
from segtool.preprocess import SlicedCase
from segtool_train.data import list_items
from segtool_train.data.cache import FULL, cache_key, open_cache, read_cache
from segtool_train.data.dataset import EpochShuffle, TrainingSamples, random_patch, to_batch
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
    keys = {cache_key(items, SPEC, "all"), cache_key(items, wider, "all"), cache_key(items[1:], SPEC, "all")}
    image = items[0].source.first.path
    before = image.stat()
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    keys.add(cache_key(items, SPEC, "all"))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(keys) == 4
    renamed = SPEC.model_copy(update={"name": "other", "threshold": 0.4})
    assert cache_key(items, renamed, "all") == cache_key(items, SPEC, "all")  # decides no pixel


def test_a_corrupt_file_in_the_middle_leaves_no_half_cache(discs: Path, tmp_path: Path):
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(discs, folder)
    broken = folder / "images" / "0007.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(CaseError, match="0007"):
        open_cache(tmp_path / "cache", list_items("cheng", folder, SPEC).items, SPEC)
    assert not list((tmp_path / "cache").iterdir())


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


def test_a_patch_on_a_label_holds_it_and_keeps_image_and_target_together():
    target = np.zeros((1, 20, 20, 20), np.uint8)
    target[0, 17, 3, 10] = FULL
    image = np.arange(8000, dtype=np.float32).reshape(1, 20, 20, 20)
    for seed in range(5):
        cut, mask = random_patch(image, target, (8, 8, 8), True, np.random.default_rng(seed))
        assert cut.shape == mask.shape == (1, 8, 8, 8)
        assert cut[mask == FULL].tolist() == [image[0, 17, 3, 10]]


def test_a_volume_smaller_than_the_patch_is_padded_with_its_lowest_value_and_background():
    image, target = np.full((2, 4, 8, 8), 3.0, np.float32), np.full((1, 4, 8, 8), FULL, np.uint8)
    image[0, 0, 0, 0] = -2
    cut, mask = random_patch(image, target, (8, 8, 8), False, np.random.default_rng(0))
    assert cut.shape == (2, 8, 8, 8)
    assert cut[1, 0, 0, 0] == -2
    assert mask.sum() == target.sum()


def test_targets_become_shares():
    batch = to_batch([(np.zeros((1, 2, 2), np.float32), np.array([[[0, 51], [204, 255]]], np.uint8))], [9])
    assert batch.target.flatten().tolist() == pytest.approx([0, 0.2, 0.8, 1])
    assert batch.samples.tolist() == [9]
