"""Speculative sampling's accept rule, the definition in torch (Leviathan et al. 2023; Chen et al. 2023).

Knows distributions; knows nothing of logits, trees or requests. The native kernel is `mlt_sample`.

Words: the *target* p is what a row draws from without speculation: after temperature, mask and filters. A *draft* is
a token x that was drawn from a distribution q. It is taken with probability min(1, p(x) / q(x)); else a token is
drawn from the *residual*, max(p - q, 0) divided by its sum. What comes out is distributed as p, whatever q is:
min(p, q) + (1 - sum of min(p, q)) * residual = p.

This holds only if

- q is the whole distribution that x was drawn from, by noise that neither the rule nor the target's draws use; and
- **every x that was drawn is judged.** To drop one for what it is (masked, or thought unlikely) and to draw from p
  instead gives too much to the others. Nothing needs to be computed for it: judging takes its parent's row only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mathlete.ryanstream.speculative.draft_tree import DrawnFrom


class DrawnRows(NamedTuple):
    """Rows whose token was guessed by drawing it.

    Attributes:
        rows: int64 [C], which rows of the logits; none twice.
        token: int32 [C], the draft x.
        ids: int32 [C, Q], the tokens of q, x among them, padded with -1.
        probs: float32 [C, Q], theirs, 0 where padded. They are divided by their sum, which rounding left beside 1.
        accept_uniform: float64 [C] in [0, 1), independent of what x was drawn with and of the row's `uniform`.
    """

    rows: Tensor
    token: Tensor
    ids: Tensor
    probs: Tensor
    accept_uniform: Tensor

    def at(self, index: Tensor) -> DrawnRows:
        """Those that `index`, int64 or bool [C], names."""
        return DrawnRows(*(part[index] for part in self))

    def to(self, device: torch.device) -> DrawnRows:
        """The same on `device`."""
        return DrawnRows(*(part.to(device) for part in self))


def drawn_rows(
    rows: Sequence[int], token_ids: Sequence[int], drawn_from: Sequence[DrawnFrom], accept_uniforms: Sequence[float]
) -> DrawnRows:
    """As tensors: row, draft, the draft's q and `sampling.accept_uniform_at` of its place, for each.

    Raises:
        ValueError: for a draft that its q does not name: it cannot have been drawn from it.
    """
    for token, q in zip(token_ids, drawn_from, strict=True):
        if not any(named == token and prob > 0 for named, prob in zip(*q, strict=True)):
            raise ValueError(f"token {token} is said to be drawn from a distribution that does not have it")
    width = max((len(q.token_ids) for q in drawn_from), default=0)
    ids = [[*q.token_ids, *[-1] * (width - len(q.token_ids))] for q in drawn_from]
    probs = [[*q.probs, *[0.0] * (width - len(q.probs))] for q in drawn_from]
    return DrawnRows(
        rows=torch.tensor(rows, dtype=torch.int64),
        token=torch.tensor(token_ids, dtype=torch.int32),
        ids=torch.tensor(ids, dtype=torch.int32).view(len(ids), width),
        probs=torch.tensor(probs, dtype=torch.float32).view(len(ids), width),
        accept_uniform=torch.tensor(accept_uniforms, dtype=torch.float64),
    )


def accept_or_redraw(target: Tensor, order: Tensor, uniform: Tensor, drawn: DrawnRows) -> Tensor:
    """The tokens int64 [C] of C rows.

    Args:
        target: p float64 [C, V] in order of rank, each row summing to 1.
        order: int64 [C, V], whose they are.
        uniform: float64 [C] in [0, 1), where a draw from the residual inverts its cumulative distribution.
        drawn: of these rows, in this order; its `rows` are not looked at.
    """
    masses = torch.where(drawn.ids >= 0, drawn.probs, 0.0).double()
    q = torch.zeros_like(target).scatter_add_(1, drawn.ids.clamp_min(0).long(), masses)
    q = (q / q.sum(-1, keepdim=True)).gather(1, order)
    is_draft = order == drawn.token[:, None]
    p_draft, q_draft = (torch.where(is_draft, part, 0.0).sum(-1) for part in (target, q))
    accepted = drawn.accept_uniform * q_draft < p_draft  # never where p is 0
    residual = (target - q).clamp_min(0.0)
    some = residual.sum(-1, keepdim=True) > 0  # p = q but for rounding: then p itself
    redrawn = order.gather(1, rank_at(torch.where(some, residual, target), uniform)[:, None]).squeeze(1)
    return torch.where(accepted, drawn.token.long(), redrawn)


def rank_at(masses: Tensor, uniform: Tensor) -> Tensor:
    """Where the cumulative distribution reaches `uniform` float64 [R]: int64 [R].

    `masses` float64 [R, V] need not sum to 1. A place whose mass is 0 is never given, unless all are.
    """
    cumulative = masses.cumsum(-1)
    place = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(-1)
    last = masses.shape[1] - 1 - (masses > 0).flip(-1).int().argmax(-1)
    return torch.minimum(place, last)
