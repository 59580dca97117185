"""One pool for all tests that do not break it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mathlete.sandbox.pool import SandboxPool


@pytest.fixture(scope="session")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(num_workers=2) as shared:
        yield shared
