"""The slow twin of `bracket_tracker.py`: a recursive descent over a whole text, with every reading tried.

It looks ahead and back as it likes. Each function takes a place and gives all places (with what was taken literally
so far) where the thing that begins there can have ended.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MATHEMATICAL = re.compile(
    rb"(equation|align|gather|multline|flalign|alignat|eqnarray|math|displaymath|aligned|gathered|split|d?cases|rcases|"
    rb"array|[pbBvV]?matrix|smallmatrix|subarray)\*?"
)
TEXT = re.compile(rb"text(bf|it|rm|sf|tt|normal|sc|up)?|[mh]box|intertext")
WORD = re.compile(rb"[A-Za-z]+")
DOLLAR_BIT = 8
Ends = set[tuple[int, int]]


@dataclass(frozen=True)
class Inside:
    """What surrounds a place: what closes it, whether it is text, the nearest kind of dollars, how deep it is."""

    closer: str
    text: bool = False
    dollars: int = 0
    depth: int = 0
    name: bytes = b""


class Reference:
    def __init__(self, text: bytes, max_depth: int) -> None:
        self.text = text
        self.max_depth = max_depth

    def is_valid(self) -> bool:
        return any(end == len(self.text) for end, _ in self.prose(0, 0, Inside("end of text"), False))

    def at(self, i: int) -> bytes:
        return self.text[i : i + 1]

    def begins_line(self, i: int) -> bool:
        return not self.text[self.text.rfind(b"\n", 0, i) + 1 : i].strip(b" \t\r")

    def run(self, i: int) -> int:
        return len(self.text) - i - len(self.text[i:].lstrip(b"`"))

    # Prose

    def prose(self, start: int, literal: int, inside: Inside, argument: bool) -> Ends:
        ends: Ends = set()
        todo, seen = [(start, literal, argument)], set()
        while todo:
            place = todo.pop()
            if place in seen:
                continue
            seen.add(place)
            i, literal, argument = place
            if i == len(self.text):
                if inside.closer == "end of text":
                    ends.add((i, literal))
                continue
            for end, after, wants in self.prose_item(i, literal, inside, argument, ends):
                todo.append((end, after, wants))
        return ends

    def prose_item(
        self, i: int, literal: int, inside: Inside, argument: bool, ends: Ends
    ) -> list[tuple[int, int, bool]]:
        c = self.at(i)
        if c == b"\\":
            return self.prose_command(i, literal, inside, ends)
        if c == b"{" and argument:
            return [(end, after, True) for end, after in self.opened(i + 1, literal, inside, "}", text=True)]
        if c == b"$":
            return [] if literal & DOLLAR_BIT else self.prose_dollar(i, literal, inside)
        if c == b"`":
            return self.prose_ticks(i, literal, inside)
        if c == b"<" and inside.closer == "end of text" and self.text.startswith(b"<think>", i):
            end = self.text.find(b"</think>", i + 7)
            return [(end + 8, literal, False)] if end >= 0 else []
        if c == b"\n" and self.begins_line(i):
            return [] if inside.dollars == 1 else [(i + 1, 0, False)]
        return [(i + 1, literal, False)]

    def prose_command(self, i: int, literal: int, inside: Inside, ends: Ends) -> list[tuple[int, int, bool]]:
        name = WORD.match(self.text, i + 1)
        c = self.at(i + 1)
        if name is None:
            if c in (b"(", b"["):
                return [(*end, False) for end in self.opened(i + 2, literal, inside, ")" if c == b"(" else "]")]
            if c in (b")", b"]"):
                return []
            return [(i + 1 + (c not in (b"", b"\n")), literal, False)]
        if literal & DOLLAR_BIT:
            return []
        word, end = name.group(), name.end()
        if word == b"end" and inside.name:
            closing = re.compile(rb"[ \t\r]*\{" + re.escape(inside.name) + rb"\}").match(self.text, end)
            ends.update({(closing.end(), literal)} if closing else set())
        if word in (b"end", b"right"):
            return []
        if word in (b"begin", b"left"):
            return [(*stop, False) for stop in self.begun(word, end, literal, inside)]
        if word in (b"boxed", b"fbox") or TEXT.fullmatch(word):
            found = self.skip(end, literal, inside, prose=True)
            if found is None or self.at(found[0]) != b"{":
                return [(*found, False)] if found else []
            return [(*stop, True) for stop in self.opened(found[0] + 1, found[1], inside, "}", text=True)]
        return [(end, literal, True)]

    def prose_dollar(self, i: int, literal: int, inside: Inside) -> list[tuple[int, int, bool]]:
        c = self.at(i + 1)
        if c == b"$":
            return [(*end, False) for end in self.opened(i + 2, literal, inside, "$$", dollars=2)]
        found = [(*end, False) for end in self.opened(i + 1, literal, inside, "$", dollars=1)]
        if c and c in b"\\{([|":
            return found
        if c.isalpha() and c.isascii():
            word = re.compile(rb"[^ \t\r\n`]*").match(self.text, i + 1)
            assert word is not None
            if not re.search(rb"[\^_\\{}$]", word.group()):
                found.append((word.end(), literal | DOLLAR_BIT, False))
        elif c.isdigit():
            number = re.compile(rb"[0-9.,]*").match(self.text, i + 1)
            assert number is not None
            if self.at(number.end()) not in (b"^", b"_", b"\\"):
                found.append((number.end(), literal, False))
        else:
            found.append((i + 1, literal, False))
        return found

    def prose_ticks(self, i: int, literal: int, inside: Inside) -> list[tuple[int, int, bool]]:
        num, size = self.run(i), min(self.run(i), 3)
        if num >= 3 and self.begins_line(i):
            line_end = self.text.find(b"\n", i)
            info = self.text[i + num :] if line_end < 0 else self.text[i + num : line_end]
            if b"`" in info:
                return self.code(i + num, size, literal)
            if line_end < 0 or inside.depth >= self.max_depth:
                return []
            closing = re.compile(rb"(?m:^)[ \t\r]*`{%d,}[ \t\r]*(\n|\Z)" % num).search(self.text, line_end + 1)
            return [(closing.end(), 0, False)] if closing else []
        if literal & 1 << (size - 1):
            return []
        return [(i + num, literal | 1 << (size - 1), False), *self.code(i + num, size, literal)]

    def code(self, i: int, size: int, literal: int) -> list[tuple[int, int, bool]]:
        while i < len(self.text):
            if self.at(i) == b"\n" and self.begins_line(i):
                return []
            num = self.run(i)
            if min(num, 3) == size:
                return [(i + num, literal, False)]
            i += max(num, 1)
        return []

    # Everything else

    def opened(
        self, i: int, literal: int, outside: Inside, closer: str, *, text: bool = False, dollars: int = 0,
        name: bytes = b"",
    ) -> Ends:  # fmt: skip
        if outside.depth >= self.max_depth:
            return set()
        inside = Inside(closer, text, dollars or outside.dollars, outside.depth + 1, name)
        ends: Ends = set()
        todo = {(i, literal)}
        while todo:
            place = todo.pop()
            if place[0] < len(self.text):
                todo |= self.item(*place, inside, ends)
        return ends

    def item(self, i: int, literal: int, inside: Inside, ends: Ends) -> Ends:
        c = self.at(i)
        further, closed = {(i + 1, literal)}, {(i + 1, literal)}
        if c == b"\\":
            return self.command(i, literal, inside, ends)
        if c == b"{":
            return self.opened(i + 1, literal, inside, "}", text=inside.text)
        if c == b"}":
            ends |= closed if inside.closer == "}" else set()
            return set()
        if c == b"$" and inside.closer == "$":
            ends |= closed
            return set()
        if c == b"$" and inside.closer == "$$":
            ends |= {(i + 2, literal)} if self.at(i + 1) == b"$" else set()
            return set()
        if c == b"$":
            return set() if inside.dollars and not inside.text else further
        if c == b"`":
            num = self.run(i)
            return set() if num >= 3 or literal & 1 << (num - 1) else {(i + num, literal)}
        if c == b"\n" and inside.dollars == 1 and self.begins_line(i):
            return set()
        return further

    def command(self, i: int, literal: int, inside: Inside, ends: Ends) -> Ends:
        name = WORD.match(self.text, i + 1)
        c = self.at(i + 1)
        if name is None:
            if c in (b")", b"]") and inside.closer == c.decode():
                ends.add((i + 2, literal))
                return set()
            if c in (b"(", b"[", b")", b"]") and not inside.text:
                return set()
            return {(i + 1 + (c not in (b"", b"\n")), literal)}
        word, end = name.group(), name.end()
        if word == b"end" and inside.name:
            closing = re.compile(rb"[ \t\r]*\{" + re.escape(inside.name) + rb"\}").match(self.text, end)
            ends |= {(closing.end(), literal)} if closing else set()
        if word == b"right" and inside.closer == "right":
            ends.add((end, literal))
        if word in (b"end", b"right"):
            return set()
        if word in (b"begin", b"left"):
            return self.begun(word, end, literal, inside)
        if word in (b"boxed", b"fbox") or TEXT.fullmatch(word):
            found = self.skip(end, literal, inside, prose=False)
            if found is None or self.at(found[0]) != b"{":
                return {found} if found else set()
            text = bool(TEXT.fullmatch(word)) or inside.text
            return self.opened(found[0] + 1, found[1], inside, "}", text=text)
        return {(end, literal)}

    def begun(self, word: bytes, end: int, literal: int, outside: Inside) -> Ends:
        prose = outside.closer in ("end of text", "end of prose")
        if word == b"left":
            stops: Ends = set()
            bracket = Inside("right", False, outside.dollars, outside.depth + 1)
            for start in self.delimiter(end, literal, bracket, prose=False):
                for stop in self.opened(*start, outside, "right"):
                    stops |= self.delimiter(*stop, outside, prose=prose)
            return stops
        announced = re.compile(rb"[ \t\r]*\{([A-Za-z0-9*]+)\}").match(self.text, end)
        if announced is None:
            return set()
        name, start = announced[1], announced.end()
        if (prose or outside.text) and not MATHEMATICAL.fullmatch(name):
            if outside.depth >= self.max_depth:
                return set()
            inside = Inside("end of prose", True, outside.dollars, outside.depth + 1, name)
            return self.prose(start, literal, inside, True)
        return self.opened(start, literal, outside, "end", name=name)

    def delimiter(self, i: int, literal: int, inside: Inside, prose: bool) -> Ends:
        found = self.skip(i, literal, inside, prose)
        if found is None:
            return set()
        i, literal = found
        c = self.at(i)
        if c == b"\\":
            name = WORD.match(self.text, i + 1)
            if name is None:
                return {(i + 2, literal)} if self.at(i + 1) in (b"{", b"}", b"|") else set()
            return set() if name.group() in (b"begin", b"end", b"left", b"right") else {(name.end(), literal)}
        return set() if c in (b"", b"{", b"}", b"$") else {(i + 1, literal)}

    def skip(self, i: int, literal: int, inside: Inside, prose: bool) -> tuple[int, int] | None:
        """Over white space; None where a blank line is not allowed."""
        while self.at(i) in (b" ", b"\t", b"\r", b"\n"):
            if self.at(i) == b"\n" and self.begins_line(i):
                if inside.dollars == 1:
                    return None
                literal = 0 if prose else literal
            i += 1
        return i, literal


def is_valid(text: bytes, max_depth: int = 32) -> bool:
    """Whether some reading of the whole text is right."""
    return Reference(text, max_depth).is_valid()
