"""Who may have a session when not all can.

Limits are for what costs us: sessions, and handshakes under way. No address can have all of
either, and who has shown nothing makes room: handshakes of the address with most of them, then
sessions that brought no record, the oldest first. An address that records came from has places of
its own for handshakes, which strangers cannot take, so exporters come back whatever happens.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from flowvis.runtime.places import Places
from flowvis.transport.session import SessionLimits

MAX_KNOWN = 16_384  # addresses that records came from: three for each node of a large cluster
PATIENCE_S = 1.0  # in which a handshake is not ended for another of its own address


class Guest(Protocol):
    """A session."""

    last_observed: float

    @property
    def address(self) -> str:
        """The peer's address."""

    def give_way(self, limit: str) -> None:
        """End, for one that comes when a limit is reached."""


Session = TypeVar("Session", bound=Guest)


class Admission(Generic[Session]):
    """Keeps count of the sessions of one server, and makes room for new ones."""

    def __init__(self, limits: SessionLimits, closed: Callable[[Session], None]) -> None:
        self.limits = limits
        self._closed = closed
        self._count = 0
        self._sessions: Counter[str] = Counter()
        self._strangers: Places[Session] = Places(limits.handshakes)
        self._returning: Places[Session] = Places(limits.handshakes)
        self._silent: Places[Session] = Places(limits.sessions)
        self._known: OrderedDict[str, None] = OrderedDict()

    @property
    def handshakes(self) -> int:
        """How many are under way."""
        return len(self._strangers) + len(self._returning)

    def knows(self, address: str) -> bool:
        """Whether records came from an address."""
        return address in self._known

    def refusal(self, address: str, now: float) -> str | None:
        """Make room for one more session of an address; the limit that it passes if that fails."""
        limits = self.limits
        if self._sessions[address] >= limits.share and not self._room_of(address):
            return "sessions-per-address"
        if self._count >= limits.sessions and not self._room(address):
            return "sessions"
        handshakes = self._handshakes_of(address)
        if not handshakes.full:
            return None
        session = handshakes.to_give_way(address)
        if session.address == address and now - session.last_observed < PATIENCE_S:
            return "handshakes"
        session.give_way("handshakes")
        return None

    def entered(self, session: Session) -> None:
        """Count a new session, whose handshake begins."""
        self._count += 1
        self._sessions[session.address] += 1
        self._handshakes_of(session.address).add(session.address, session)

    def established(self, session: Session) -> None:
        """Note that a handshake is through."""
        self._leave(session)
        self._silent.add(session.address, session)

    def proven(self, session: Session) -> None:
        """Note that records came: the session gives way to nobody, its address is preferred."""
        self._silent.discard(session)
        self._known[session.address] = None
        self._known.move_to_end(session.address)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)

    def closed(self, session: Session) -> None:
        """Note that a session is over."""
        self._leave(session)
        self._silent.discard(session)
        self._count -= 1
        self._sessions[session.address] -= 1
        if not self._sessions[session.address]:
            del self._sessions[session.address]
        self._closed(session)

    def _handshakes_of(self, address: str) -> Places[Session]:
        return self._returning if self.knows(address) else self._strangers

    def _leave(self, session: Session) -> None:
        self._strangers.discard(session)
        self._returning.discard(session)

    def _room_of(self, address: str) -> bool:
        """Let the oldest session of an address that has shown nothing give way."""
        for places in (self._strangers, self._returning, self._silent):
            if places.of(address):
                places.first_of(address).give_way("sessions-per-address")
                return True
        return False

    def _room(self, address: str) -> bool:
        """Let the oldest session that has shown nothing give way, of the address with most."""
        for places in (self._strangers, self._silent, self._returning):
            if len(places):
                places.to_give_way(address).give_way("sessions")
                return True
        return False
