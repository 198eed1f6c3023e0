"""The errors of flowvis, by whose fault they are.

    FlowvisError
    +-- PeerError             the other side sent something that the standard or a limit forbids
    |   +-- MalformedMessage  framing is lost: the session must end
    |   +-- MalformedSet      one set is unusable: the rest of the message and the session go on
    |   +-- LimitExceeded     well-formed, but over a named limit
    +-- SystemRefused         the kernel or the operating system said no; names the remedy
    +-- SettingsError         a configuration value, named by its path, is not allowed
    +-- ApiError              the Kubernetes API cannot be reached, or refuses
    +-- StoreError            a store (ClickHouse) cannot be reached or rejects what we wrote

Misuse of our own functions raises ValueError or TypeError as usual.
"""

from dataclasses import dataclass


class FlowvisError(Exception):
    """Base of all expected errors; its text can be shown to an operator as it is."""


@dataclass(frozen=True)
class Where:
    """The place of a fault in what a peer sent; offsets are bytes from the start of the message."""

    session: str = ""
    domain: int | None = None
    set_id: int | None = None
    offset: int | None = None

    def __str__(self) -> str:
        parts = {
            "session": self.session or None,
            "domain": self.domain,
            "set": self.set_id,
            "offset": self.offset,
        }
        return " ".join(f"{name}={value}" for name, value in parts.items() if value is not None)


class PeerError(FlowvisError):
    """The peer's fault; `reason` is a fixed short word for metrics, `where` the place."""

    def __init__(self, reason: str, detail: str, where: Where | None = None) -> None:
        super().__init__(f"{detail} ({where})" if where is not None else detail)
        self.reason = reason
        self.detail = detail
        self.where = where or Where()


class MalformedMessage(PeerError):
    """Framing is lost; nothing after this byte can be trusted."""


class MalformedSet(PeerError):
    """One set cannot be used; its length is known, so the next one can."""


class LimitExceeded(PeerError):
    """A named limit was passed; `reason` is the name of the limit."""


class SystemRefused(FlowvisError):
    """The operating system refused; the text names the thing and the remedy."""


class SettingsError(FlowvisError):
    """One or more configuration values are wrong; `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ApiError(FlowvisError):
    """The Kubernetes API failed; `status` is HTTP's, 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class StoreError(FlowvisError):
    """The store failed; `retryable` tells whether the same batch may be offered again.

    `code` is ClickHouse's number of the error, 0 where it has none.
    """

    def __init__(self, message: str, *, retryable: bool, code: int = 0) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.code = code
