"""What vLLM's workers learn from Mathlete, in processes of their own: Ctrl-C is not for them.

vLLM mixes the class into its own (`worker_extension_cls`). Imports nothing of vLLM.
"""

from __future__ import annotations

import signal


class LeavesInterruptsAlone:
    """A worker that ends when it is told to, not when a terminal interrupts the program that owns it."""

    def leave_interrupts_alone(self) -> None:
        """Called once in the main thread of each worker."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
