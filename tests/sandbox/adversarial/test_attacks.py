"""No attack has an effect: each is run as a program of its own, beside others and beside neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from all_attacks import ATTACKS
from arena import Arena
from attack import Attack
from campaign import Campaign, selected_attacks

from mathlete.sandbox.pool import SandboxPool


def test_there_are_enough_attacks_and_each_says_what_it_tries() -> None:
    assert len(ATTACKS) >= 60
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack.tries and attack.code for attack in ATTACKS)


@pytest.fixture(scope="module")
def campaign(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    with SandboxPool(num_workers=3) as pool:
        yield Campaign(pool, arena, selected_attacks(request))


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, campaign: Campaign, arena: Arena) -> None:
    campaign.check(attack, arena)


def test_nothing_is_left(campaign: Campaign, arena: Arena) -> None:
    campaign.check_nothing_is_left(arena)
