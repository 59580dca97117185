"""A batch as one batch a row: the batch-invariant mode for where the arithmetic depends on the number of rows.

Libraries choose blocking and order of sums by the shape of a product, so the last bits of a row's result depend on how
many rows there are. Rows computed one at a time always have the same shape. The native kernels do not need it: there
every row is summed in the same order in any company.
"""

from __future__ import annotations

from collections.abc import Iterator

from mathlete.ryanstream.model.ops import ForwardBatch


def single_rows(batch: ForwardBatch) -> Iterator[ForwardBatch]:
    """Each row alone, in order: a row finds the keys and values of those before it in the cache."""
    wanted = set(batch.logit_rows.tolist())
    hidden = set() if batch.hidden_rows is None else set(batch.hidden_rows.tolist())
    for row in range(len(batch.token_ids)):
        seq = int(batch.row_seq[row])
        here = slice(row, row + 1)
        yield ForwardBatch(
            token_ids=batch.token_ids[here],
            positions=batch.positions[here],
            slots=batch.slots[here],
            row_seq=batch.row_seq.new_zeros(1),
            lengths=batch.lengths[here],
            tables=batch.tables[seq : seq + 1],
            logit_rows=batch.logit_rows.new_zeros(int(row in wanted)),
            hidden_rows=batch.logit_rows.new_zeros(1) if row in hidden else None,
            paths=None if batch.paths is None else batch.paths[here],
        )
