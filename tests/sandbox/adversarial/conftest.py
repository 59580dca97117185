"""One arena for all attacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from arena import Arena


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with pytest.MonkeyPatch.context() as patch:
        made = Arena(tmp_path_factory.mktemp("arena"))
        patch.setenv("MATHLETE_TEST_TOKEN", made.secret)
        try:
            yield made
        finally:
            made.close()
