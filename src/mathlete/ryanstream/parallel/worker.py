"""The program of one rank above 0: loads its part of the model, then does whatever rank 0 does, as it is told to.

It never samples and never decides. Started by `worker_process.py` only.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection

import torch

from mathlete.core.errors import MathleteError
from mathlete.ryanstream.block_tensors import copy_blocks, export_blocks, import_blocks, move_slots
from mathlete.ryanstream.model.layer_cache import LayerCache, allocate_cache
from mathlete.ryanstream.model.transformer import Transformer
from mathlete.ryanstream.parallel.collectives import CollectiveFailed, connect, join
from mathlete.ryanstream.parallel.messages import (
    Assignment,
    CacheSize,
    CopyBlocks,
    ExportBlocks,
    Exported,
    Failed,
    ImportBlocks,
    Loaded,
    MoveSlots,
    Started,
    Step,
    receive_message,
    send_message,
)
from mathlete.ryanstream.rank_loading import RankTask, load_rank

# Rank 0 watches the clock. A worker whose rank 0 is stopped (Ctrl-Z, a debugger) has nothing better to do than wait.
_PATIENCE_S = 7 * 24 * 3600.0


def main(connection_fd: int, lifeline_fd: int) -> int:
    """Serve until rank 0 closes the connection. Returns the exit status."""
    threading.Thread(target=_end_with_rank_0, args=(lifeline_fd,), daemon=True).start()
    connection = Connection(connection_fd)
    try:
        _serve(connection)
    except EOFError:  # rank 0 has closed the connection
        return 0
    except CollectiveFailed:  # another rank is gone, and rank 0 knows
        return 1
    except MathleteError as error:
        send_message(connection, Failed(str(error)))
    except BaseException as error:
        traceback.print_exc()
        send_message(connection, Failed(f"{type(error).__name__}: {error}"))
    return 1


def _serve(connection: Connection) -> None:
    assignment = receive_message(connection)
    assert isinstance(assignment, Assignment) and isinstance(assignment.task, RankTask)
    send_message(connection, Started())
    store = join(assignment.port, assignment.join_timeout_s)
    group = connect(store, assignment.shard, assignment.device, _PATIENCE_S, assignment.in_order)
    rank = load_rank(assignment.task, group, lambda what, done, total: None)
    send_message(connection, Loaded())
    size = receive_message(connection)
    assert isinstance(size, CacheSize)
    cache = allocate_cache(rank.shape, size.num_blocks, rank.kv_dtype, assignment.device)
    model = Transformer(rank.shape, rank.weights, rank.ops)
    while True:
        _do(receive_message(connection), connection, model, cache, assignment.device)


def _do(
    message: object, connection: Connection, model: Transformer, cache: Sequence[LayerCache], device: torch.device
) -> None:
    match message:
        case Step():
            model.forward(message.unpack(device), cache)
        case CopyBlocks(copies):
            copy_blocks(cache, copies)
        case MoveSlots(moves):
            move_slots(cache, moves)
        case ExportBlocks(block_ids):
            send_message(connection, Exported(export_blocks(cache, block_ids)))
        case ImportBlocks(block_ids, tensors):
            import_blocks(cache, block_ids, tensors)
        case _:
            raise AssertionError(f"rank 0 said {message}")


def _end_with_rank_0(lifeline_fd: int) -> None:
    """End this process, whatever it is doing, when rank 0's has ended in any way: the other side of the line closes.

    A thread and not PR_SET_PDEATHSIG, because that signal comes when the *thread* that started us ends.
    """
    os.read(lifeline_fd, 1)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
