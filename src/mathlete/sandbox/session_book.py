"""Which sessions live, which have lost their state without anybody knowing, and which must make room. Pure."""

from __future__ import annotations

from mathlete.sandbox.session import Session

SESSIONS_BYTES = 4 << 30
IDLE_SESSION_BYTES = 12 << 20  # what two processes hold beyond what they share with the zygote, as measured


class SessionBook:
    """The named sessions of a pool.

    Attributes:
        living: by their names.
        bereft: names of those whose loss has not been told.
    """

    def __init__(self, sessions_bytes: int) -> None:
        """`sessions_bytes` is the memory that they may hold together."""
        self.living: dict[str, Session] = {}
        self.bereft: set[str] = set()
        self._sessions_bytes = sessions_bytes

    def strike(self, name: str) -> Session | None:
        """Forget a session for good, by its user's wish; returns it if it lives."""
        self.bereft.discard(name)
        return self.living.pop(name, None)

    def note_loss(self, name: str) -> None:
        """Something that was defined under a name is lost: its next program will be told."""
        self.bereft.add(name)

    def note_told(self, name: str) -> None:
        """The result that goes out says whatever there was to say."""
        self.bereft.discard(name)

    def note_gone(self, session: Session) -> None:
        """A session has ended, by itself or as it was asked to."""
        if session.name is not None and self.living.get(session.name) is session:
            del self.living[session.name]
            if session.has_state:
                self.note_loss(session.name)

    def close_idle(self) -> list[Session]:
        """Those that are to end, idle longest first, since all together hold too much memory; they live no more."""
        by_idleness = sorted(self.living.values(), key=lambda session: session.idle_since_s)
        held = sum(session.memory_bytes + IDLE_SESSION_BYTES for session in by_idleness)
        closing = []
        for session in by_idleness:
            if held <= self._sessions_bytes:
                break
            if session.run is None and not session.leaving:
                held -= session.memory_bytes + IDLE_SESSION_BYTES
                self.note_gone(session)
                closing.append(session)
        return closing
