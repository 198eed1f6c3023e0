"""What sessions have to say, said in turns: a few of them in each turn of the loop.

When a commit is over, all exporters of a cluster are told at once; each costs a TLS record and a
system call, and what is read and written for others does not wait for thousands of these.
"""

import asyncio
import itertools
from typing import Protocol

AT_ONCE = 64  # sessions in one turn: some two milliseconds


class Answering(Protocol):
    """A session with something to say."""

    def send_answer(self) -> None:
        """Say the newest of it; does nothing where there is nothing."""


class Answers:
    """Whose turn it is to say something."""

    def __init__(self) -> None:
        self._waiting: dict[Answering, None] = {}
        self._next: asyncio.Handle | None = None

    def add(self, session: Answering) -> None:
        """Let a session say something soon."""
        self._waiting[session] = None
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)

    def discard(self, session: Answering) -> None:
        """Forget a session that is over."""
        self._waiting.pop(session, None)

    def _turn(self) -> None:
        self._next = None
        for session in list(itertools.islice(self._waiting, AT_ONCE)):
            del self._waiting[session]
            session.send_answer()
        if self._waiting and self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._turn)
