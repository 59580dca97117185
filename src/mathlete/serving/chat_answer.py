r"""What `/v1/chat/completions` answers: OpenAI's objects, made from a problem's end.

Pure. An answer reads `\boxed{42}`, then a line on how sure it is; the object `mathlete` beside it says the same as
data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mathlete.core.record import ProblemRecord
from mathlete.core.selection import FALLBACK, Selection
from mathlete.session.live import standing_word
from mathlete.verify.integers import answers_equal

_FINGERPRINT = "mathlete"


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a problem cost: tokens of all its attempts and checks together.

    Attributes:
        prompt: given, summed over all turns.
        cached: of these, not computed anew.
        completion: written.
    """

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """A problem that has ended.

    Attributes:
        record: what became of it.
        selection: the answer.
        run_id: the run's folder among this server's runs.
        tokens: what it cost.
        was_stopped: whether it was ended by the server's end, and not by itself.
    """

    record: ProblemRecord
    selection: Selection
    run_id: str
    tokens: Tokens
    was_stopped: bool = False

    @property
    def num_attempts(self) -> int:
        """Attempts that have ended; checks are none."""
        return sum(not attempt.is_check for attempt in self.record.attempts)

    @property
    def num_votes(self) -> int:
        """Those of them that gave the answer."""
        return sum(
            attempt.answer is not None and answers_equal(attempt.answer, self.selection.answer)
            for attempt in self.record.attempts
            if not attempt.is_check
        )


def answer_text(answered: Answered) -> str:
    """What the model says."""
    return f"\\boxed{{{answered.selection.answer}}}\n\n{how_sure(answered)}"


def how_sure(answered: Answered) -> str:
    """One line for a person."""
    chosen = answered.selection
    if chosen.rule == FALLBACK:
        return f"no attempt of {answered.num_attempts} had an answer: this one is a guess"
    standing = "" if chosen.accepted is None else f"{standing_word(chosen.accepted)}, "
    attempts = f"{answered.num_votes} of {answered.num_attempts} attempts"
    return f"{standing}chance {chosen.confidence:.2f}; {attempts}"


def extension(answered: Answered) -> dict[str, Any]:
    """The object `mathlete`, for programs."""
    chosen = answered.selection
    return {
        "answer": int(chosen.answer),
        "confidence": chosen.confidence,
        "accepted": chosen.accepted,
        "rule": chosen.rule,
        "votes": {cluster.answer: len(cluster.attempt_ids) for cluster in chosen.clusters},
        "num_attempts": answered.num_attempts,
        "num_checks": len(answered.record.attempts) - answered.num_attempts,
        "reason": answered.record.stop_reason,
        "run": answered.run_id,
    }


def usage(tokens: Tokens) -> dict[str, Any]:
    """OpenAI's count of tokens."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached},
    }


@dataclass(frozen=True, slots=True)
class Envelope:
    """What all objects of one answer share.

    Attributes:
        id: of the answer.
        created: seconds since the epoch.
        model: name of the model.
    """

    id: str
    created: int
    model: str

    def completion(self, answered: Answered, reasoning: str) -> dict[str, Any]:
        """The whole answer at once."""
        message = {"role": "assistant", "content": answer_text(answered), "reasoning_content": reasoning}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(answered.tokens),
            "mathlete": extension(answered),
        }

    def chunk(self, delta: Mapping[str, Any], answered: Answered | None = None) -> dict[str, Any]:
        """A piece of a stream; the last one tells of `answered`."""
        reason = None if answered is None else "stop"
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": reason}
        more = {} if answered is None else {"mathlete": extension(answered)}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **more}

    def usage_chunk(self, tokens: Tokens) -> dict[str, Any]:
        """The piece behind the last that counts tokens (`stream_options.include_usage`)."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(tokens)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": _FINGERPRINT,
        }


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
