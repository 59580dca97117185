"""What became of an import of recorded attempts, in numbers and in sentences. Knows counts only."""

from __future__ import annotations

from dataclasses import dataclass, field

from mathlete.lab.bad_rows import BadRows


@dataclass
class ImportReport:
    """What became of an import; filled while the problems are read.

    Attributes:
        num_problems: handed out.
        num_attempts: of those.
        num_judged_unknown: attempts whose answer could be shown neither right nor wrong; they count as wrong.
        unknown: the first of them, as "answer, gold: why".
        num_too_few: problems left out because they have fewer attempts than asked for.
        num_without_gold: problems of runs left out because their label was never told.
        num_other_views: rows left out because they show the same attempts in another way (see `one_of`).
        num_unwanted: rows left out by the mapping's `where`.
        bad: rows that could not be used.
    """

    num_problems: int = 0
    num_attempts: int = 0
    num_judged_unknown: int = 0
    unknown: list[str] = field(default_factory=list)
    num_too_few: int = 0
    num_without_gold: int = 0
    num_other_views: int = 0
    num_unwanted: int = 0
    bad: BadRows = field(default_factory=BadRows)

    @property
    def notes(self) -> list[str]:
        """What a person should know, one sentence each."""
        told = []
        if self.num_judged_unknown:
            few = "; ".join(self.unknown[:2])
            told.append(
                f"{self.num_judged_unknown} answers could be shown neither right nor wrong, and count as wrong: {few}"
            )
        if self.num_too_few:
            told.append(f"{self.num_too_few} problems were left out because they have too few attempts")
        if self.num_without_gold:
            told.append(f"{self.num_without_gold} problems of runs were left out because they have no known answer")
        if self.num_other_views:
            told.append(
                f"{self.num_other_views} rows were left out because they show the same attempts by another filter"
            )
        if self.num_unwanted:
            told.append(f"{self.num_unwanted} rows were left out by [where]")
        return told
