"""Normalised compression distance between traces, and the cohesion Phi of a set of them. Pure.

NCD(x, y) = (C(xy) - min(C(x), C(y))) / max(C(x), C(y)), C the compressed length (Li et al. 2004, "The similarity
metric"). Here C is the length of a raw LZMA stream, less the 10 bytes that a stream of nothing takes, and the value is
clamped to [0, 1]. Texts are compared in one fixed order, so that NCD(x, y) = NCD(y, x).

**Short strings.** NCD is meant for long texts. Mean NCD of two *unrelated* strings of random digits, which should be
near 1 (20 pairs each):

    digits                         1     2     5    16    64   256  1024  4096
    .xz files, as published     0.00  0.00  0.06  0.22  0.39  0.52  0.79  0.93
    raw stream, all its bytes   0.09  0.17  0.33  0.52  0.74  0.77  0.84  0.92
    raw stream, less 10 bytes   1.00  1.00  1.00  0.85  0.88  0.81  0.86  0.93

Container and headers are most of a short file, so that any two short answers look alike: among .xz files 17 and 93
have distance 0. That is why Phi is taken over *traces*, never over answers, and why the empty stream's bytes are taken
off. A bias of up to 0.2 stays at 16 to 1,000 characters, where a model of digits learnt from x helps with any y.
Traces of 600 characters at one problem: 0.71 when they came to the same answer, 0.76 when not, and 0.76 between
problems. So Phi is a weak signal on short traces.

Cost: one call takes about 0.3 ms for two texts of 4 kB, the 2,016 pairs of 64 traces about 0.7 s. Both are remembered,
so one more trace costs its own 64 pairs (20 ms). zlib would take a third of that; that was not worth a second
definition. Rules that choose from a large pool therefore take `estimated_cohesion`, the mean over 66 of the pairs: up
to 12 texts it is Phi itself, of more its standard error is that of 66 distances (0.006 where they scatter by 0.05).
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import islice

from mathlete.core.attempt import Attempt

MAX_TRACE_BYTES = 4096  # the end of a longer trace counts: that is where the answer is derived

# A dictionary for two traces, and a fast match finder: 4 times faster than the default preset, and as good here.
_FILTERS = [{"id": lzma.FILTER_LZMA1, "preset": 1, "dict_size": 4 * MAX_TRACE_BYTES}]
MAX_PAIRS = 66  # of `estimated_cohesion`: all pairs of 12 texts
_REMEMBERED_TRACES = 1 << 11
_REMEMBERED_PAIRS = 1 << 15


def trace_of(attempt: Attempt) -> bytes:
    """What the model wrote in an attempt: the last `MAX_TRACE_BYTES` bytes. Program output is not part of it."""
    text = "\n".join(turn.text for turn in attempt.turns if turn.text)
    return _encode(text[-MAX_TRACE_BYTES:])


@lru_cache(maxsize=_REMEMBERED_TRACES)
def compressed_length(text: bytes) -> int:
    """C(text) in bytes: 0 for the empty text."""
    return _stream_length(text) - _EMPTY_STREAM


def ncd(x: bytes, y: bytes) -> float:
    """The distance of two texts, in [0, 1]; 0 for two empty ones. Symmetric. Remembered."""
    return _ordered_ncd(x, y) if x <= y else _ordered_ncd(y, x)


def cohesion(traces: Sequence[bytes]) -> float | None:
    """Phi = 1 - mean NCD over all pairs, in [0, 1]; None when fewer than two of the traces have any text."""
    texts = [trace for trace in traces if trace]
    if len(texts) < 2:
        return None
    distances = [ncd(x, y) for index, x in enumerate(texts) for y in texts[:index]]
    return 1 - math.fsum(distances) / len(distances)


def estimated_cohesion(traces: Sequence[bytes]) -> float | None:
    """Phi over at most `MAX_PAIRS` pairs: first each text with the one before it, then with the one before that, ...

    For up to 12 texts the same as `cohesion`. So each text counts alike, and the pairs are the same every time.
    """
    texts = [trace for trace in traces if trace]
    if len(texts) < 2:
        return None
    pairs = ((texts[i], texts[i - back]) for back in range(1, len(texts)) for i in range(back, len(texts)))
    distances = [ncd(x, y) for x, y in islice(pairs, MAX_PAIRS)]
    return 1 - math.fsum(distances) / len(distances)


@lru_cache(maxsize=_REMEMBERED_TRACES)
def _encode(text: str) -> bytes:
    """The same object for the same text, so that remembered pairs share their texts."""
    return text.encode("utf-8", "replace")[-MAX_TRACE_BYTES:]


@lru_cache(maxsize=_REMEMBERED_PAIRS)
def _ordered_ncd(x: bytes, y: bytes) -> float:
    shorter, longer = sorted((compressed_length(x), compressed_length(y)))
    if longer == 0:
        return 0.0
    together = _stream_length(x + y) - _EMPTY_STREAM
    return min(1.0, max(0.0, (together - shorter) / longer))


def _stream_length(text: bytes) -> int:
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=_FILTERS))


_EMPTY_STREAM = _stream_length(b"")
