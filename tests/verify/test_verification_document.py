import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sympy")
TEXT = (Path(__file__).parents[2] / "docs" / "verification.md").read_text()


def test_its_python_says_what_the_text_says() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/verification.md", "exec"), names)
    assert [names[name].verdict for name in ("same", "line", "unread")] == ["SAME", "DIFFERENT", "UNKNOWN"]
    assert names["unread"].failure == "unparsable"
