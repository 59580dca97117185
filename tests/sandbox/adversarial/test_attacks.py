"""No attack has an effect: each is run as a program of its own, beside others and beside neighbours."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from all_attacks import ATTACKS
from arena import Arena
from attack import Attack
from campaign import UNDISTURBED, Campaign
from sandbox_probe import children_of, need

from mathlete.sandbox.pool import SandboxPool


def test_there_are_enough_attacks_and_each_says_what_it_tries() -> None:
    assert len(ATTACKS) >= 60
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.tries and attack.code for attack in ATTACKS)


@pytest.fixture(scope="module")
def own_pool(arena: Arena) -> Iterator[SandboxPool]:
    with SandboxPool(num_workers=3) as pool:
        yield pool


@pytest.fixture(scope="module")
def campaign(own_pool: SandboxPool, arena: Arena, request: pytest.FixtureRequest) -> Campaign:
    """Only what was selected is run."""
    chosen = [item.callspec.params.get("attack") for item in request.session.items if hasattr(item, "callspec")
              and item.module is request.module]  # fmt: skip
    return Campaign(own_pool, arena, [attack for attack in chosen if attack is not None])


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, campaign: Campaign, own_pool: SandboxPool, arena: Arena) -> None:
    need(own_pool, *attack.needs)
    attack.check(campaign.result(attack.name), arena.secret)
    beside = campaign.result(f"beside {attack.name}")
    assert (beside.status, beside.stdout) == ("ok", UNDISTURBED), beside
    arena.check()


def test_nothing_is_left(campaign: Campaign, own_pool: SandboxPool, arena: Arena) -> None:
    campaign.finish()
    arena.check()
    arena.check_no_process()
    assert os.listdir(own_pool._room.name) == []
    assert own_pool._zygote is not None and own_pool._zygote.pid == campaign.zygote_pid, "the zygote was killed"
    assert children_of(campaign.zygote_pid) == []
