"""The one suite of all generators tells what was compared, as test files do."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "ryanstream"))  # the tiny model is made there

pytest.register_assert_rewrite("conformance")
