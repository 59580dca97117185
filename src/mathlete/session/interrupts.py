"""Ctrl-C, SIGTERM and a lost terminal: once ends a run in order, twice at once.

Knows signals; does not know what a run is. Handlers only set things: a signal may arrive in the middle of a write.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handles the signals that ask for an end, as a context manager. In another thread than the main one: nothing.

    Attributes:
        stop: asks the work in hand to end soon. While it is None there is nothing to end in order, and a signal
            raises `KeyboardInterrupt` at once.
        requested: whether a signal, or a call of `request`, has come.
    """

    def __init__(self) -> None:
        """Not yet in force."""
        self.stop: Callable[[], None] | None = None
        self.requested = False
        self._before: dict[signal.Signals, signal.Handlers | Callable[[int, FrameType | None], object] | int | None]
        self._before = {}

    def __enter__(self) -> Interrupts:
        """Take over the signals, except those that whoever started us wants ignored (`nohup`)."""
        if threading.current_thread() is not threading.main_thread():
            return self  # Python lets only the main thread handle signals
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def request(self) -> None:
        """Ask for an end in order, from any thread; where there is nothing to end yet, once there is."""
        self.requested = True
        if self.stop is not None:
            self.stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop is None or self.requested:
            raise KeyboardInterrupt
        self.requested = True
        self.stop()
