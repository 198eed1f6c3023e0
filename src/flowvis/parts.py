"""Work on columns of which some rows may make it fail: the others must not pay for them."""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

ATTEMPTS = 64  # for one whole: what is left then is given up as it is


class Rows(Protocol):
    """What has rows: a batch, entries, tuples."""

    def __len__(self) -> int:
        """How many there are."""

    def take(self, which: slice) -> Self:
        """Some of them."""


R = TypeVar("R", bound=Rows)


def each_part(whole: R, work: Callable[[R], Any], give_up: Callable[[Exception, R], None]) -> None:
    """Work on a whole, where that fails on its halves; give up what fails alone, or too often.

    All parts come in their order, so that what `work` or `give_up` collect is in order as well.
    """
    parts = deque([whole])
    for _ in range(ATTEMPTS):
        if not parts:
            return
        part = parts.popleft()
        try:
            work(part)
        except Exception as error:  # noqa: BLE001  whatever it is, it must not cost the others
            last = error
            if len(part) > 1:
                half = len(part) // 2
                parts.extendleft((part.take(slice(half, None)), part.take(slice(half))))
            else:
                give_up(error, part)
    for part in parts:
        give_up(last, part)
