"""The names of the ways to guess, and what each needs. Imports nothing heavy: the command line reads it too."""

from __future__ import annotations

from typing import Literal

Method = Literal["off", "ngram", "suffix", "draft", "early_exit", "eagle"]

RUN_A_MODEL: tuple[Method, ...] = ("draft", "early_exit", "eagle")  # may be given one, grow trees, draw their guesses
NEED_A_DRAFT_MODEL: dict[Method, str] = {
    "draft": "a smaller model with the same tokenizer",
    "eagle": "the folder of an EAGLE head",
}  # what must be given
