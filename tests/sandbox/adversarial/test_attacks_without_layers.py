"""Where a machine permits fewer layers, the others hold; and without any, the attacks have their effect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from all_attacks import ATTACKS
from arena import Arena
from attack import Attack
from attacks_on_files import READING, WRITING
from attacks_on_kernel import KERNEL
from attacks_on_network import NETWORK
from attacks_on_processes import PROCESSES
from campaign import Campaign, selected_attacks
from sandbox_probe import NAMESPACES, run

from mathlete.sandbox.isolation import LAYERS
from mathlete.sandbox.pool import SandboxPool

QUICK = (*READING, *WRITING, *NETWORK, *PROCESSES, *KERNEL)
# Attacks that would harm nobody but the arena: these are let go to see that they are real.
HARMLESS = """
read_absolute read_dotdot read_symlink read_hard_link read_proc_root read_proc_processes read_secret_by_c look_outside
watch_folder write_absolute write_by_link write_attributes lock_outside tcp udp unix_path unix_abstract datagram_pair
netlink
""".split()


MOUNTS = {"readonly", "tmpfs", "newroot"}
WITHOUT_NAMESPACES = [attack for attack in QUICK if attack.is_held_off_by({*LAYERS} - NAMESPACES - MOUNTS)]
WITHOUT_LANDLOCK = [attack for attack in QUICK if attack.is_held_off_by({*LAYERS} - {"landlock"})]


@pytest.fixture(scope="module")
def without_namespaces(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    attacks = [attack for attack in selected_attacks(request) if attack in WITHOUT_NAMESPACES]
    with SandboxPool(num_workers=3, without=NAMESPACES) as pool:
        yield Campaign(pool, arena, attacks, with_neighbours=False)


@pytest.fixture(scope="module")
def without_landlock(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    attacks = [attack for attack in selected_attacks(request) if attack in WITHOUT_LANDLOCK]
    with SandboxPool(num_workers=3, without={"landlock"}) as pool:
        yield Campaign(pool, arena, attacks, with_neighbours=False)


@pytest.mark.parametrize("attack", WITHOUT_NAMESPACES, ids=lambda attack: attack.name)
def test_attack_without_namespaces(attack: Attack, without_namespaces: Campaign, arena: Arena) -> None:
    without_namespaces.check(attack, arena)


def test_nothing_is_left_without_namespaces(without_namespaces: Campaign, arena: Arena) -> None:
    without_namespaces.check_nothing_is_left(arena)


@pytest.mark.parametrize("attack", WITHOUT_LANDLOCK, ids=lambda attack: attack.name)
def test_attack_without_landlock(attack: Attack, without_landlock: Campaign, arena: Arena) -> None:
    without_landlock.check(attack, arena)


def test_nothing_is_left_without_landlock(without_landlock: Campaign, arena: Arena) -> None:
    without_landlock.check_nothing_is_left(arena)


@pytest.fixture(scope="module")
def bare_pool() -> Iterator[SandboxPool]:
    with SandboxPool(num_workers=1, without={*NAMESPACES, "landlock", "seccomp"}) as pool:
        yield pool


@pytest.mark.parametrize("name", HARMLESS)
def test_the_attack_works_where_nothing_holds_it_off(
    name: str, bare_pool: SandboxPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (attack,) = (attack for attack in ATTACKS if attack.name == name)
    arena = Arena(tmp_path)
    try:
        monkeypatch.setenv("MATHLETE_TEST_TOKEN", arena.secret)
        names = {**arena.names, "ZYGOTE": 0, "FATAL": 0}
        result = run(bare_pool, attack.program(names), attack.limits)
        with pytest.raises(AssertionError, match=name):
            attack.check(result, arena.secret)
        assert "DONE" in result.stdout
    finally:
        arena.close()
