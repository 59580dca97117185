"""A Lean 4 theorem that is to be proved, taken apart: imports, preamble, name, and what it says.

Knows where these parts begin and end, which is all it takes to keep a statement apart from its proof; what Lean makes
of them is Lean's business. Statements are ours (a file of problems), yet they are read strictly: one theorem, whose
proof is `sorry`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mathlete.core.errors import InputError

MAX_STATEMENT_CHARS = 20_000
ANSWER_MARK = "{answer}"
"""Where a statement of a problem speaks of its answer."""

_THEOREM = re.compile(r"^(?:theorem|lemma)\s+(?P<name>[^\s({\[:⦃]+)", re.MULTILINE)
_SORRY = re.compile(r":=\s*(?:by\s+)?sorry\s*\Z")
_IMPORT = re.compile(r"^\s*import\s+[^\n]+$", re.MULTILINE)
_COMMENT = re.compile("--|/-|-/")
_INTEGER = re.compile(r"-?[0-9]{1,1000}")
_NAME = re.compile(r"[^\W\d][\w'!?₀-₉.]*")


@dataclass(frozen=True, slots=True)
class Statement:
    """A theorem without its proof.

    Attributes:
        imports: the import commands, one a line; maybe none.
        preamble: commands between the imports and the theorem (`open`, `set_option`); maybe none.
        name: of the theorem.
        signature: everything between the name and ":=": binders, a colon, and the proposition.
    """

    imports: str
    preamble: str
    name: str
    signature: str

    def theorem(self, name: str, proof: str) -> str:
        """The whole command under another name, with a proof."""
        return f"theorem {name} {self.signature} :=\n{proof}"

    @property
    def text(self) -> str:
        """All of it, without comments, as `parse_statement` reads it."""
        parts = (self.imports, self.preamble, f"theorem {self.name} {self.signature} := by sorry")
        return "\n\n".join(part for part in parts if part)


def parse_statement(text: str) -> Statement:
    """Take a file apart that holds imports, a preamble, and one theorem with `sorry` for a proof.

    Raises:
        InputError: it is not such a file; the message says what is missing.
    """
    if len(text) > MAX_STATEMENT_CHARS:
        raise InputError(f"the Lean statement has {len(text)} characters; at most {MAX_STATEMENT_CHARS} are read")
    bare = without_comments(text)
    theorems = list(_THEOREM.finditer(bare))
    if len(theorems) != 1:
        raise InputError(f"the Lean statement must hold one theorem at the start of a line, not {len(theorems)}")
    end = _SORRY.search(bare)
    name = theorems[0]["name"]
    if end is None or end.start() <= theorems[0].end() or _NAME.fullmatch(name) is None:
        raise InputError(f"the Lean theorem {name!r} must have a plain name and end with ':= by sorry'")
    head = bare[: theorems[0].start()]
    imports = "\n".join(match.group().strip() for match in _IMPORT.finditer(head))
    preamble = _IMPORT.sub("", head).strip()
    signature = bare[theorems[0].end() : end.start()].strip()
    if ":" not in signature:
        raise InputError(f"the Lean theorem {name!r} has no proposition")
    return Statement(imports, preamble, name, signature)


def names_answer(text: str) -> bool:
    """Whether a statement has places for the answer; what stands in comments is none.

    Raises:
        InputError: its comments are broken.
    """
    return ANSWER_MARK in without_comments(text)


def statement_about(text: str, answer: str | None) -> Statement:
    """A statement of a problem with a candidate in the places for the answer, a negative one in parentheses.

    Args:
        text: as `parse_statement` takes it, maybe with `ANSWER_MARK` in it.
        answer: an integer as text; None for a statement that has no such places.

    Raises:
        InputError: it is no statement, or has places for an answer and `answer` is None, or the other way round.
        ValueError: `answer` is no integer. It comes from a model, and anything else could change what is stated.
    """
    if names_answer(text) != (answer is not None):
        raise InputError(f"the Lean statement has {'no' if answer is not None else 'a'} place for an answer")
    if answer is None:
        return parse_statement(text)
    if _INTEGER.fullmatch(answer) is None:
        raise ValueError(f"only an integer can stand in a Lean statement, not {answer!r:.60}")
    return parse_statement(text.replace(ANSWER_MARK, f"({answer})" if answer.startswith("-") else answer))


def without_comments(text: str) -> str:
    """Without `-- ...` and nested `/- ... -/`; each leaves a space, and a line comment its line's end.

    Raises:
        InputError: a comment is never closed, or closed without having been opened.
    """
    pieces: list[str] = []
    position = 0
    while (match := _COMMENT.search(text, position)) is not None:
        pieces.append(text[position : match.start()])
        if match.group() == "-/":
            raise InputError("the Lean text closes a comment that it never opened")
        if match.group() == "--":
            end = text.find("\n", match.end())
            position = end if end >= 0 else len(text)
        else:
            position = _comment_end(text, match.end())
        pieces.append(" ")
    pieces.append(text[position:])
    return "".join(pieces)


def _comment_end(text: str, start: int) -> int:
    """Where the block comment ends whose inside begins at `start`."""
    depth = 1
    for match in re.compile("/-|-/").finditer(text, start):
        depth += 1 if match.group() == "/-" else -1
        if depth == 0:
            return match.end()
    raise InputError("the Lean text opens a comment that it never closes")
