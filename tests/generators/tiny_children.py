"""The embedded engine with a small random model, for processes of their own; needs tests/ryanstream on the path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from driving import load

from mathlete.compose import LoadedGenerator
from mathlete.generators.ryanstream import RyanStreamGenerator


def load_tiny(folder: str, cache: str, report: Callable[[str, int, int], None]) -> LoadedGenerator:
    loaded = load(Path(folder), Path(cache), num_blocks=640, precision="fp32", max_model_len=512, max_running=32)
    generator = RyanStreamGenerator(loaded)
    return LoadedGenerator(
        generator,
        generator.description,
        take_warnings=generator.take_warnings,
        vocabulary=generator.token_bytes,
        eos_token_ids=generator.eos_token_ids,
    )
