"""What an answer says when there is none: a status, a fixed code, and a sentence for people.

{"error": {"code": "bad-filter", "message": "...", "position": 7, ...}}
"""

from typing import Any

from flowvis.errors import FlowvisError, StoreError
from flowvis.filters import FilterError

STATUS = {
    "bad-request": 400,
    "bad-filter": 400,
    "bad-range": 400,
    "bad-query": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "not-found": 404,
    "not-allowed": 405,
    "no-store": 409,
    "too-large": 413,
    "too-costly": 422,
    "too-many": 429,
    "failed": 500,
    "unavailable": 503,
}
"""The codes, and the HTTP status of each."""

_CODES = {status: code for code, status in reversed(STATUS.items())}


class Problem(FlowvisError):
    """A request that is answered with an error."""

    def __init__(self, code: str, message: str, **details: Any) -> None:
        """`code` is one of STATUS; `details` go into the answer, except those that are None."""
        super().__init__(message)
        self.code = code
        self.status = STATUS[code]
        self.details = {name: value for name, value in details.items() if value is not None}
        self.headers: dict[str, str] = {}

    def document(self) -> dict[str, Any]:
        """Return the answer."""
        return {"error": {"code": self.code, "message": str(self), **self.details}}


def of_status(status: int, message: str) -> Problem:
    """Return the problem that HTTP alone has a word for."""
    return Problem(_CODES.get(status, "bad-request" if status < 500 else "failed"), message)


def of_filter(error: FilterError) -> Problem:
    """Return the problem of a text that is no filter."""
    return Problem(
        "bad-filter",
        error.message,
        position=error.position,
        length=error.length,
        expected=list(error.expected),
        suggestion=error.suggestion,
    )


def of_store_away(error: StoreError) -> Problem:
    """Return the problem of a store that may answer the same in a while."""
    return Problem("unavailable", f"the store cannot answer now: {error}")
