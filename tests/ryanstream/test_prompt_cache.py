"""Prefixes on disk: found by their tokens, bounded, and never the reason for a failure."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mathlete.ryanstream import prompt_cache
from mathlete.ryanstream.prompt_cache import PromptCache, PromptCacheKey, PromptCacheLimits

KEY = PromptCacheKey("model", "w8a8", "torch.bfloat16", "native")
IDS = list(range(128))


def blocks(num: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "0.keys": torch.randn(num, 2, 4, 16, generator=generator).bfloat16(),
        "0.codes": torch.randint(-127, 127, (num, 2, 16, 4), generator=generator).to(torch.int8),
    }


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def equal(found: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    return found.keys() == given.keys() and all(torch.equal(found[name], given[name]) for name in given)


@pytest.fixture
def cache(tmp_path: Path) -> PromptCache:
    return PromptCache(tmp_path / "prompts", KEY)


def test_what_was_stored_is_found_bit_by_bit(cache: PromptCache, tmp_path: Path) -> None:
    given = blocks(8)
    assert cache.load(IDS) is None and not cache.has(IDS)
    cache.store(IDS, given)
    for reader in (cache, PromptCache(tmp_path / "prompts", KEY)):
        found = reader.load([*IDS, 5, 6, 7])
        assert found is not None and found.num_tokens == 128 and equal(found.tensors, given)
        assert reader.has(IDS)
    assert cache.take_warnings() == ()


def test_the_longest_prefix_is_found_if_it_is_long_enough_to_help(cache: PromptCache) -> None:
    cache.store(IDS[:64], blocks(4))
    cache.store(IDS[:96], blocks(6))
    found = cache.load(IDS)
    assert found is not None and found.num_tokens == 96
    found = cache.load(IDS[:95])
    assert found is not None and found.num_tokens == 64
    assert cache.load(IDS, longer_than=96) is None
    assert cache.load(IDS[:63]) is None


def test_another_last_token_is_another_prompt(cache: PromptCache) -> None:
    cache.store(IDS, blocks(8))
    assert cache.load([*IDS[:-1], 1000]) is None
    assert not cache.has([*IDS[:-1], 1000])


@pytest.mark.parametrize(
    "other",
    [
        PromptCacheKey("another", "w8a8", "torch.bfloat16", "native"),
        PromptCacheKey("model", "bf16", "torch.bfloat16", "native"),
        PromptCacheKey("model", "w8a8", "torch.int8", "native"),
        PromptCacheKey("model", "w8a8", "torch.bfloat16", "torch"),
    ],
)
def test_another_models_entry_is_not_used(cache: PromptCache, tmp_path: Path, other: PromptCacheKey) -> None:
    cache.store(IDS, blocks(8))
    assert PromptCache(tmp_path / "prompts", other).load(IDS) is None


def test_another_formats_entry_is_not_used(cache: PromptCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(IDS, blocks(8))
    monkeypatch.setattr(prompt_cache, "_FORMAT", 1000)
    assert PromptCache(tmp_path / "prompts", KEY).load(IDS) is None


def test_a_collision_of_names_is_no_hit(cache: PromptCache, tmp_path: Path) -> None:
    """The file that has the right name but other tokens, or another model's, is refused."""
    cache.store(IDS, blocks(8))
    (right,) = files(tmp_path / "prompts")
    other_ids = [*IDS[:-1], 1000]
    cache.store(other_ids, blocks(8))
    (wrong,) = set(files(tmp_path / "prompts")) - {right}
    os.replace(right, wrong)
    assert cache.load(other_ids) is None
    (warning,) = cache.take_warnings()
    assert "another prompt or model" in warning and not files(tmp_path / "prompts")


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "header", "no checksum"])
def test_a_damaged_file_is_removed_with_a_warning(cache: PromptCache, tmp_path: Path, damage: str) -> None:
    cache.store(IDS, blocks(8))
    (path,) = files(tmp_path / "prompts")
    raw = bytearray(path.read_bytes())
    if damage == "no checksum":
        save_file(load_file(path), path)
    else:
        raw[{"bit": -5, "header": 3}.get(damage, 0)] ^= 4
        path.write_bytes({"cut": raw[: len(raw) // 2], "empty": b""}.get(damage, bytes(raw)))
    assert cache.load(IDS) is None
    (warning,) = cache.take_warnings()
    assert str(path) in warning and "computed anew" in warning
    assert not path.exists() and cache.take_warnings() == ()
    cache.store(IDS, blocks(8))
    assert cache.load(IDS) is not None


def _age(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s, time.time() - age_s))


def test_the_least_recently_used_goes_when_there_are_too_many(tmp_path: Path) -> None:
    cache = PromptCache(tmp_path, KEY, PromptCacheLimits(max_entries=3))
    for number in range(3):
        cache.store([number, *IDS[1:64]], blocks(4))
        _age(max(files(tmp_path), key=lambda path: path.stat().st_mtime), 100 - number)
    assert cache.load([0, *IDS[1:64]]) is not None  # used: now the second is the oldest
    cache.store([3, *IDS[1:64]], blocks(4))
    assert [number for number in range(4) if cache.has([number, *IDS[1:64]])] == [0, 2, 3]


def test_the_limit_of_bytes_holds(tmp_path: Path) -> None:
    PromptCache(tmp_path, KEY).store([0, *IDS[1:64]], blocks(4))
    size = files(tmp_path)[0].stat().st_size
    _age(files(tmp_path)[0], 100)
    cache = PromptCache(tmp_path, KEY, PromptCacheLimits(max_bytes=2 * size))
    cache.store([1, *IDS[1:64]], blocks(4))
    assert len(files(tmp_path)) == 2
    cache.store([2, *IDS[1:64]], blocks(4))
    assert [number for number in range(3) if cache.has([number, *IDS[1:64]])] == [1, 2]
    cache.store([*range(16 * 80)], blocks(80))  # alone larger than the limit
    assert len(files(tmp_path)) == 2 and cache.take_warnings() == ()


def test_what_a_killed_process_left_is_removed_in_time(tmp_path: Path) -> None:
    old, new = tmp_path / "a.safetensors.1.partial", tmp_path / "b.safetensors.2.partial"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    _age(old, 7200)
    PromptCache(tmp_path, KEY).store(IDS, blocks(8))
    assert not old.exists() and new.exists()


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("a file where the folder should be")
    cache = PromptCache(tmp_path / "prompts", KEY)
    cache.store(IDS, blocks(8))
    cache.store(IDS[:64], blocks(4))
    (warning,) = cache.take_warnings()
    assert "cannot be written" in warning
    assert cache.load(IDS) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    PromptCache(tmp_path, KEY).store(IDS, blocks(8))
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        cache = PromptCache(tmp_path, KEY)
        assert cache.load(IDS) is not None
        cache.store(IDS[:64], blocks(4))
        assert "cannot be written" in cache.take_warnings()[0]
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("num_tokens", [48, 70])
def test_only_whole_blocks_from_64_tokens_on_are_kept(cache: PromptCache, num_tokens: int) -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        cache.store(IDS[:num_tokens], blocks(num_tokens // 16))


CHURN = """
import sys
from pathlib import Path
from test_prompt_cache import IDS, KEY, blocks, equal
from mathlete.ryanstream.prompt_cache import PromptCache, PromptCacheLimits

cache = PromptCache(Path(sys.argv[1]), KEY, PromptCacheLimits(max_entries=3))
for turn in range(60):
    number = (turn * 7 + int(sys.argv[2])) % 6
    ids = [number, *IDS[1:64]]
    cache.store(ids, blocks(4, number))
    found = cache.load(ids)
    assert found is None or equal(found.tensors, blocks(4, number))
assert cache.take_warnings() == ()
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Each stores and loads in a folder that has room for three, while the other makes room for its own."""
    others = [
        subprocess.Popen(
            [sys.executable, "-c", CHURN, str(tmp_path), str(seed)], cwd=Path(__file__).parent, stderr=subprocess.PIPE
        )
        for seed in range(2)
    ]
    for process in others:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr.decode()
    assert 1 <= len(files(tmp_path)) <= 4 and all(path.suffix == ".safetensors" for path in files(tmp_path))


@pytest.mark.parametrize("field", ["max_bytes", "max_entries"])
def test_a_limit_of_nothing_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        PromptCacheLimits(**{field: 0})
