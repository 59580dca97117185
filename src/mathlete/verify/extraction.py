r"""Where the answer of an attempt stands: in a box, in a sentence, or in what its program printed.

Knows text and positions. What counts as an integer is decided in `integers.py`. Every search is one pass
over its text, so a hostile text costs time in proportion to its length. Nothing is guessed: no first box
instead of the last, no loose digits from a sentence, no number picked from a line of several.
"""

from __future__ import annotations

import re
from dataclasses import replace

from mathlete.core.problem import AnswerKind
from mathlete.verify.arithmetic import RefusalReason
from mathlete.verify.ceilings import MAX_ANSWER_CHARS
from mathlete.verify.integers import Extraction, parse_integer

_GOES_ON = r"[0-9,.A-Za-z]|[ \t]{0,4}(?:[\^_!/*+{-]|\\[A-Za-z])"  # the number is part of something larger
_BOX_OR_BRACE = re.compile(
    rf"\\(?:boxed|fbox)(?![A-Za-z])[ \t]{{0,8}}(?P<bare>[-+]?[0-9][0-9,.]*(?!{_GOES_ON}))?|\\.|[{{}}]", re.DOTALL
)
_ANSWER_IS = re.compile(
    r"\banswer(?: to (?:the|this) (?:problem|question))?[*_]{0,2}[ \t]{0,4}(?:is|=|:)[ \t]{0,4}[:*_]{0,3}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s)|\n")

_DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.0*)?"
_PRINTED = re.compile(
    rf"(?:(?P<wrap>[\[({{]\s*)?(?P<number>(?<![0-9A-Za-z_.,])[-+]?{_DIGITS})(?P<close>\s*[\])}}])?)"
    r"(?P<unit>\s*[%°]|(?:\s[A-Za-z][A-Za-z-]*)*)\.?$"
)
_REPR = re.compile(
    r"(?:(?:np|numpy|sympy|gmpy2)\.)?(?:u?int[0-9]{0,3}|float[0-9]{0,3}|Integer|Float|mpz|mpf|Decimal)"
    r"\(\s*['\"]?([^()'\"]*)['\"]?\s*\)"
)
_LABEL = re.compile(r"(?:(?<![!<>~=≠])==?|[A-Za-z)\]}*'\"]\s*:|[0-9]:\s|[-=]>|\b(?:is|are|equals))\s*$", re.IGNORECASE)
_SEVERAL = re.compile(r"[0-9]\s*(?:[,;](?![0-9]{3}(?![0-9]))|\b(?:and|or)\b)", re.IGNORECASE)
_NOT_A_RESULT = re.compile(r"error|exception|traceback", re.IGNORECASE)
_CLOSING = {"": "", "(": ")", "[": "]", "{": "}"}


def extract_answer(final_text: str, last_stdout: str | None, kind: AnswerKind, *, complete: bool = True) -> Extraction:
    r"""The answer of an attempt, with its `source`, or why there is none.

    The first of these that is there decides, and is refused rather than passed over when it is no
    admissible integer: the last `\boxed{...}` of `final_text`; its last "the answer is ...", if a number
    stands there; the last line that the program printed.

    Args:
        final_text: what the model wrote after its last program ran, or all of it when none ran.
        last_stdout: what that program printed, or None unless it ran and ended well.
        kind: the admissible interval.
        complete: False when the text was cut (token limit, abort): what stands at its very end may then be
            half a number, and does not count.
    """
    boxed = extract_boxed(final_text if complete else final_text.rstrip("0123456789,."))
    if boxed is not None and boxed.strip():
        return replace(parse_integer(boxed, kind), source="boxed")
    stated = stated_integer(final_text, kind, complete=complete)
    if stated.problem in (None, "out_of_range", "not_an_integer"):
        return replace(stated, source="text")
    if last_stdout is not None:
        return replace(last_printed_integer(last_stdout, kind), source="stdout")
    return Extraction(None, "", "missing")


def extract_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{...}`, `\boxed 5` or `\fbox{...}`, or None.

    Braces may be nested or escaped; a box that is never closed does not count.
    """
    content: str | None = None
    opened: list[int] = []  # for each open brace: where the content of its box starts, or -1
    box_end = -1  # where a box command ended, if nothing came since
    for match in _BOX_OR_BRACE.finditer(text):
        token = match.group()
        if match["bare"] is not None:
            content = match["bare"].rstrip(",.")
        elif token == "{":
            opened.append(match.end() if match.start() == box_end else -1)
        elif token == "}" and opened:
            start = opened.pop()
            content = text[start : match.start()] if start >= 0 else content
        box_end = match.end() if token.startswith((r"\boxed", r"\fbox")) else -1
    return content


def stated_integer(text: str, kind: AnswerKind, *, complete: bool = True) -> Extraction:
    """The integer of the last "the answer is ..." of a text; its sentence must say nothing else.

    In a text that is not `complete`, the sentence must have ended.
    """
    start = None
    for match in _ANSWER_IS.finditer(text):
        start = match.end()
    if start is None:
        return Extraction(None, "", "missing")
    statement = text[start : start + MAX_ANSWER_CHARS + 1].lstrip()
    end = _SENTENCE_END.search(statement)
    if end is None and not complete:
        return _refuse(statement, "missing")
    sentence = statement[: end.start()] if end is not None else statement
    if statement[len(sentence) : len(sentence) + 1] == "!" or sentence.rstrip().endswith("!"):
        return _refuse(sentence, "ambiguous")  # a factorial, or joy?
    return parse_integer(sentence.replace("**", ""), kind)


def last_printed_integer(stdout: str, kind: AnswerKind) -> Extraction:
    """The integer on the last line that is not blank: alone ("42", "42.0", "[42]") or after a label.

    A line with several numbers and no label before the last, a fraction, or text is refused; earlier lines
    are never looked at.
    """
    line = stdout.rstrip()
    line = line[line.rfind("\n") + 1 :].strip()
    if not line:
        return Extraction(None, "", "missing")
    if len(line) > MAX_ANSWER_CHARS:
        return _refuse(line, "too_large")
    line = _REPR.sub(r"\1", line).strip("*`$ ")
    match = _PRINTED.search(line)
    if match is None:
        return _refuse(line, "unparsable" if not re.search("[0-9]", line) else "ambiguous")
    head = line[: match.start()]
    if _NOT_A_RESULT.search(head):
        return _refuse(line, "unparsable")
    if (head.strip() and not _LABEL.search(head)) or _SEVERAL.search(head):
        return _refuse(line, "ambiguous")
    if _CLOSING.get((match["wrap"] or "").strip()) != (match["close"] or "").strip():
        return _refuse(line, "unparsable")
    unit = match["unit"].strip()
    return replace(parse_integer(f"{match['number']}{' ' if unit else ''}{unit}", kind), raw=line)


def _refuse(raw: str, reason: RefusalReason) -> Extraction:
    return Extraction(None, raw[:MAX_ANSWER_CHARS], reason)
