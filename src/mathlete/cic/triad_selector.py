"""The learned rules: the class that a fitted model finds likeliest, with the chance that it is right. Pure.

`TriadSelector` is the product's own rule; its weights come with the package. `MemberVote` weighs the members of an
ensemble of unequal models; its weights have to be fitted on that ensemble. Neither knows where weights come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mathlete.cic.acceptance import is_accepted
from mathlete.cic.choice_model import ChoiceModel, shipped_model
from mathlete.cic.majority import fallback_selection, no_answer_reason
from mathlete.cic.pool_features import PoolFeatures, pool_features
from mathlete.core.attempt import Attempt
from mathlete.core.problem import Problem
from mathlete.core.selection import AnswerCluster, Selection

OF = ("", "next_")
"""Of the chosen answer and of the next: `Selection.terms` call what a feature adds `nats_<it>` and `next_nats_<it>`."""

_NUM_REASONS = 3
_MIN_REASON = 0.1  # nats; smaller differences are not worth a sentence


class TriadSelector:
    """The likeliest answer under the shipped model, or under one that was trained for another kind of pool.

    The confidence is the model's probability that the answer is right. It may be small: the rest is the
    other answers', and the chance that nobody found it (`terms["none_right"]`). `terms` also tell what
    each feature adds to the chosen answer and to the next (see `OF`). Answers that are equally likely stand in the
    plain vote's order.
    """

    name = "triad"

    def __init__(self, model: ChoiceModel | None = None) -> None:
        """Use `model`, or the weights that come with the package."""
        self.model = model or shipped_model()

    def select(self, problem: Problem, attempts: Sequence[Attempt]) -> Selection:
        """The answer of the likeliest class. With no answer in the pool, a `Selection` with rule "fallback"."""
        pool = pool_features(problem, attempts)
        if not pool.classes:
            return fallback_selection(problem, no_answer_reason(attempts))
        chances = self.model.probabilities(pool)
        order = sorted(range(len(chances)), key=lambda index: -chances[index])  # stable: the plain vote's order
        chosen = pool.classes[order[0]]
        weighed = [self.model.contributions(pool, index) for index in order[:2]]
        return Selection(
            answer=chosen.answer,
            rule=self.name,
            confidence=chances[order[0]],
            clusters=tuple(
                AnswerCluster(pool.classes[i].answer, chances[i], tuple(a.id for a in pool.classes[i].attempts))
                for i in order
            ),
            terms={
                "votes": float(len(chosen.attempts)),
                "vote_share": chosen.features["vote_share"],
                "runner_up": chances[order[1]] if len(order) > 1 else 0.0,
                "none_right": max(0.0, 1 - sum(chances)),
                **{
                    f"{of}nats_{name}": nats
                    for of, told in zip(OF, weighed, strict=False)
                    for name, nats in told.items()
                },
            },
            reasons=self._reasons(pool, chances, order, weighed),
            accepted=is_accepted(chosen.answer, attempts),
        )

    def _reasons(
        self, pool: PoolFeatures, chances: Sequence[float], order: Sequence[int], weighed: Sequence[Mapping[str, float]]
    ) -> tuple[str, ...]:
        chosen = pool.classes[order[0]]
        num_votes = sum(len(item.attempts) for item in pool.classes)
        reasons = [
            f"{chosen.answer} is right with probability {chances[order[0]]:.2f}, by the weights of the rule "
            f"{self.name!r}; {len(chosen.attempts)} of {num_votes} answers are this one."
        ]
        if len(order) > 1:
            reasons.append(self._comparison(pool, chances, order, weighed))
        reasons.append(f"That no answer of the pool is right has probability {max(0.0, 1 - sum(chances)):.2f}.")
        return tuple(reasons)

    def _comparison(
        self, pool: PoolFeatures, chances: Sequence[float], order: Sequence[int], weighed: Sequence[Mapping[str, float]]
    ) -> str:
        """What speaks for the chosen class and what against it, beside the next one."""
        first, second = weighed
        gains = {name: first.get(name, 0.0) - second.get(name, 0.0) for name in {**first, **second}}
        largest = sorted(gains.items(), key=lambda item: -abs(item[1]))[:_NUM_REASONS]
        told = [f"{name.replace('_', ' ')} {gain:+.1f}" for name, gain in largest if abs(gain) >= _MIN_REASON]
        runner_up = pool.classes[order[1]].answer
        why = f" Between the two: {', '.join(told)} (nats)." if told else ""
        return f"Next is {runner_up} with probability {chances[order[1]]:.2f}.{why}"


class MemberVote(TriadSelector):
    """`TriadSelector` under a model that knows the members of one ensemble by name (features `member:<model>`).

    Where members are unequal their weights close most of what a plain vote loses. They say nothing of
    other members: one that the model does not name adds to the votes only.
    """

    name = "member_vote"

    def __init__(self, model: ChoiceModel) -> None:
        """Use `model`, fitted on pools of the same ensemble."""
        super().__init__(model)
