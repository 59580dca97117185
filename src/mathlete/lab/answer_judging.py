"""Whether the answers of recorded attempts are right, where their file does not say.

Knows golds of every form: integers are compared as such, everything else by `verify.equivalence`, whose hard questions
go to a process that is killed when it takes too long. Does not know where answers come from. What stays open counts as
wrong, and is counted.
"""

from __future__ import annotations

from types import TracebackType

from mathlete.verify.algebra_process import AlgebraProcess
from mathlete.verify.equivalence import ExpressionJudge, equivalent
from mathlete.verify.integers import answers_equal


class AnswerJudge:
    """Compares answers with golds; each pair of one problem is compared once. For one thread, used as `with`.

    Attributes:
        num_unknown: attempts whose answer could be shown neither right nor wrong; they count as wrong.
        unknown: the first few of them, as "answer, gold is gold: why".
    """

    MAX_SHOWN = 5

    def __init__(self, algebra: ExpressionJudge | None = None) -> None:
        """Set up; a worker starts with the first question that needs one.

        Args:
            algebra: for what exact arithmetic cannot tell; a process of its own by default.
        """
        self.num_unknown = 0
        self.unknown: list[str] = []
        self._own = AlgebraProcess() if algebra is None else None
        self._algebra = algebra or self._own
        self._gold: str | None = None
        self._found: dict[str, bool | None] = {}

    def is_right(self, answer: str | None, gold: str) -> bool:
        """Whether an answer is shown to be the gold."""
        if answer is None:
            return False
        if answer == gold:
            return True
        if gold != self._gold:
            self._gold, self._found = gold, {}
        if answer not in self._found:
            self._found[answer] = self._compared(answer, gold)
        found = self._found[answer]
        self.num_unknown += found is None
        return found is True

    def __enter__(self) -> AnswerJudge:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the worker, if there is one."""
        if self._own is not None:
            self._own.close()

    def _compared(self, answer: str, gold: str) -> bool | None:
        """None for what stays open."""
        if answers_equal(answer, gold):
            return True
        if answers_equal(answer, answer) and answers_equal(gold, gold):
            return False
        found = equivalent(gold, answer, self._algebra)
        if found.verdict == "UNKNOWN":
            if len(self.unknown) < self.MAX_SHOWN:
                self.unknown.append(f"{answer[:60]!r}, gold {gold[:60]!r}: {found.reason}")
            return None
        return found.verdict == "SAME"
