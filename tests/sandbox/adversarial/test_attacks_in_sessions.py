"""The same attacks as cells of sessions: they cost their own cell, not their session, and never a neighbour's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from all_attacks import ATTACKS
from arena import Arena
from attack import Attack
from attacks_on_sessions import SESSIONS
from campaign import Campaign, selected_attacks
from sandbox_probe import need

from mathlete.sandbox.pool import SandboxPool


@pytest.fixture(scope="module")
def campaign(arena: Arena, request: pytest.FixtureRequest) -> Iterator[Campaign]:
    with SandboxPool(num_workers=3) as pool:
        need(pool, "gate", "pidns")  # or there are no snapshots
        yield Campaign(pool, arena, selected_attacks(request), in_sessions=True)


@pytest.mark.parametrize("attack", (*ATTACKS, *SESSIONS), ids=lambda attack: attack.name)
def test_attack_of_a_cell(attack: Attack, campaign: Campaign, arena: Arena) -> None:
    campaign.check(attack, arena)


def test_nothing_is_left_of_sessions(campaign: Campaign, arena: Arena) -> None:
    campaign.check_nothing_is_left(arena)
