"""Sessions of browsers: a cookie that stands for a token, which stays here.

A cookie goes to every port of a host, so the token itself is not in it.
"""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

IDLE_S = 12 * 3600.0
MAX_SESSIONS = 1000
MAX_OF_ONE = 32  # browsers of one caller


@dataclass
class _Session:
    owner: str
    token: str
    used_s: float


class Sessions:
    """The sessions that there are, the least recently used first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def begin(self, owner: str, token: str) -> str:
        """Return the key of a new session; the owner's oldest ends where there are too many."""
        own = [key for key, session in self._sessions.items() if session.owner == owner]
        for key in own[: max(len(own) - MAX_OF_ONE + 1, 0)]:
            self.end(key)
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        key = secrets.token_urlsafe(32)
        self._sessions[key] = _Session(owner, token, self._clock())
        return key

    def token(self, key: str) -> str | None:
        """Return the token that a session stands for, None where there is no such session."""
        session = self._sessions.get(key)
        now_s = self._clock()
        if session is None or now_s - session.used_s > IDLE_S:
            self.end(key)
            return None
        session.used_s = now_s
        self._sessions.move_to_end(key)
        return session.token

    def end(self, key: str) -> None:
        """Forget a session, if it is one."""
        self._sessions.pop(key, None)
