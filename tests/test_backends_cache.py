"""The cache of engines: what is loaded, what is built again, and who waits for whom."""

import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from engine_keys import KEY, PROFILE

from segtool.backends.engine_cache import EngineCache, cache_folder
from segtool.errors import OutputError, UsageError


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def silent(_line: str) -> None:
    pass


@pytest.mark.parametrize(
    "change",
    [
        {"model": "meningioma"},
        {"onnx_sha256": "cd" * 32},
        {"engine": "tensorrt 10.16.2"},
        {"engine": "tensorrt-rtx 10.16.1"},
        {"gpu": "NVIDIA H100"},
        {"capability": "12.0"},
        {"precision": "fp32"},
        {"profile": replace(PROFILE, largest=(16, 1, 32, 32))},
        {"profile": replace(PROFILE, usual=(4, 1, 32, 32))},
        {"profile": replace(PROFILE, smallest=(8, 1, 32, 32))},
    ],
    ids=str,
)
def test_with_any_part_different_it_is_another_engine(cache: EngineCache, change: dict[str, object]) -> None:
    other = replace(KEY, **change)
    cache.put(KEY, b"plan")
    assert other.digest != KEY.digest
    assert cache.get(other) is None
    assert cache.get(KEY) == b"plan"


def test_an_engine_renamed_to_another_key_is_not_loaded(cache: EngineCache) -> None:
    other = replace(KEY, gpu="NVIDIA H100")
    cache.put(KEY, b"plan")
    cache.path(KEY).rename(cache.path(other))
    assert cache.get(other) is None


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_a_damaged_or_foreign_file_is_built_again(cache: EngineCache, damage: str) -> None:
    cache.put(KEY, b"plan" * 100)
    path = cache.path(KEY)
    whole = path.read_bytes()
    path.write_bytes(
        {"truncated": whole[:-1], "flipped": whole[:-1] + b"x", "foreign": b"\x00" * 500, "empty": b""}[damage]
    )
    assert cache.get(KEY) is None
    assert cache.get_or_build(KEY, lambda: b"new", silent) == b"new"
    assert cache.get(KEY) == b"new"


posix = pytest.mark.skipif(os.name == "nt", reason="files of Windows have no such modes")


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022])
def test_engines_are_their_users_alone_whatever_is_usual(cache: EngineCache, umask: int) -> None:
    before = os.umask(umask)
    try:
        cache.put(KEY, b"plan")
        inside = cache.make_folder("onnxruntime-abc")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cache.folder, inside, cache.path(KEY))]
    assert modes == [0o700, 0o700, 0o600]
    assert cache.get(KEY) == b"plan"


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_engine_that_others_may_write_is_not_loaded(cache: EngineCache, mode: int) -> None:
    cache.put(KEY, b"plan")
    cache.path(KEY).chmod(mode)
    assert cache.get(KEY) is None
    assert cache.get_or_build(KEY, lambda: b"new", silent) == b"new"


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_neither_read_nor_written(cache: EngineCache, mode: int) -> None:
    cache.put(KEY, b"plan")
    cache.folder.chmod(mode)
    assert cache.get(KEY) is None
    with pytest.raises(OutputError, match=r"engines are machine code\. Run chmod 700"):
        cache.get_or_build(KEY, lambda: b"new", silent)
    with pytest.raises(OutputError, match=r"SEGTOOL_CACHE"):
        cache.make_folder("onnxruntime-abc")


@posix
def test_a_link_to_an_engine_that_others_may_write_is_not_followed(cache: EngineCache, tmp_path: Path) -> None:
    cache.put(KEY, b"plan")
    elsewhere = cache.path(KEY).rename(tmp_path / "shared.engine")
    cache.path(KEY).symlink_to(elsewhere)
    elsewhere.chmod(0o666)
    assert cache.get(KEY) is None


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_an_engine_of_another_user_is_not_loaded(cache: EngineCache) -> None:
    cache.put(KEY, b"plan")
    os.chown(cache.path(KEY), 12345, -1)
    assert cache.get(KEY) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_the_user_may_write_to_the_cache(cache: EngineCache) -> None:
    cache.put(KEY, b"plan")
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_a_build_happens_once(cache: EngineCache) -> None:
    built: list[int] = []

    def build() -> bytes:
        built.append(1)
        return b"plan"

    assert [cache.get_or_build(KEY, build, silent) for _ in range(3)] == [b"plan"] * 3
    assert built == [1]


def test_a_build_that_fails_leaves_nothing_and_gives_the_lock_back(cache: EngineCache) -> None:
    def fails() -> bytes:
        raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError):
        cache.get_or_build(KEY, fails, silent)
    assert cache.entries() == []
    assert cache.get_or_build(KEY, lambda: b"plan", silent) == b"plan"


BUILDER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from engine_keys import KEY
from segtool.backends.engine_cache import EngineCache
def build():
    Path({mark!r}).touch()
    time.sleep({seconds})
    return b"from the other process"
EngineCache(Path({folder!r})).get_or_build(KEY, build, print)
"""


def other_process(cache: EngineCache, tmp_path: Path, seconds: float) -> subprocess.Popen[bytes]:
    """A process that has just begun to build."""
    mark = tmp_path / "begun"
    tests = str(Path(__file__).parent)
    code = BUILDER.format(tests=tests, mark=str(mark), seconds=seconds, folder=str(cache.folder))
    process = subprocess.Popen([sys.executable, "-c", code])
    while not mark.exists():
        assert process.poll() is None
        time.sleep(0.02)
    return process


def test_of_two_processes_one_builds_and_one_waits(cache: EngineCache, tmp_path: Path) -> None:
    process = other_process(cache, tmp_path, seconds=0.5)
    said: list[str] = []
    plan = cache.get_or_build(KEY, lambda: pytest.fail("built twice"), said.append)
    assert plan == b"from the other process"
    assert said == ["waiting for another segtool that builds an engine"]
    assert process.wait() == 0


def test_a_build_that_is_killed_leaves_the_cache_whole_and_the_lock_free(cache: EngineCache, tmp_path: Path) -> None:
    kept = replace(KEY, gpu="another")
    cache.put(kept, b"kept")
    process = other_process(cache, tmp_path, seconds=60)
    (cache.folder / f".partial-{process.pid}-{cache.path(KEY).name}").write_bytes(b"half an eng")
    process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    process.wait()
    assert cache.get(KEY) is None
    assert cache.get_or_build(KEY, lambda: b"new", silent) == b"new"
    assert cache.get(kept) == b"kept"
    assert sorted(entry.bytes for entry in cache.entries()) == sorted(
        cache.path(key).stat().st_size for key in (KEY, kept)
    )


def test_clearing_waits_for_nobody(cache: EngineCache, tmp_path: Path) -> None:
    process = other_process(cache, tmp_path, seconds=60)
    with pytest.raises(UsageError, match="Try again when that is done"):
        cache.clear()
    process.kill()
    process.wait()
    cache.put(KEY, b"plan")
    size = cache.path(KEY).stat().st_size
    assert cache.clear() == size
    assert cache.entries() == []


def test_entries_say_what_they_are_for(cache: EngineCache) -> None:
    cache.put(KEY, b"plan")
    (entry,) = cache.entries()
    assert entry.facts == KEY.facts()
    assert entry.facts["profile"] == "1x1x32x32 8x1x32x32 8x1x32x32"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_no_space_is_said_with_what_to_do(cache: EngineCache, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open
    monkeypatch.setattr("segtool.backends.engine_cache.Path.open", lambda *_: full("wb", buffering=0))
    with pytest.raises(OutputError, match=r"No space left.*SEGTOOL_CACHE"):
        cache.put(KEY, b"plan")


def test_the_cache_lies_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEGTOOL_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.parametrize("what", ["its folder", "the lock"])
def test_a_cache_that_cannot_be_written_is_said_with_what_to_do(tmp_path: Path, what: str) -> None:
    place = tmp_path / "engines"
    if what == "the lock":
        (place / "lock").mkdir(parents=True)
    else:
        place.write_bytes(b"a file")
    with pytest.raises(OutputError, match=r"engines.*cannot be (made|written) .*SEGTOOL_CACHE"):
        EngineCache(place).get_or_build(KEY, lambda: b"plan", silent)
