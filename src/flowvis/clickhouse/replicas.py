"""Which replicas of a cluster answer: those that have all that was stored."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from clickhouse_driver import errors

# What a replica lacks would count twice: one that is behind is not asked, if another one may catch
# up soon.
FRESH: dict[str, int | str] = {"max_replica_delay_for_distributed_queries": 2}  # s; else 300
ONLY_FRESH: dict[str, int | str] = {"fallback_to_stale_replicas_for_distributed_queries": 0}
# What is asked one after the other is answered by the same replicas.
SAME_REPLICAS: dict[str, int | str] = {"load_balancing": "in_order"}
STALE_S = 60.0
_EPISODE_S = 120.0  # without an answer that all are behind
_STALE = 369  # ALL_REPLICAS_ARE_STALE


class Behind:
    """Whether all replicas are behind, and for how long."""

    def __init__(self) -> None:
        self._since_s: float | None = None
        self._last_s = 0.0

    @property
    def for_long(self) -> bool:
        """Whether none has had all that was asked for, for so long that less has to do."""
        now_s = time.monotonic()
        since_s = self._since_s
        return since_s is not None and since_s <= now_s - STALE_S and not self._is_past(now_s)

    def over(self) -> None:
        """There was an answer."""
        self._since_s = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note when the server says that they are."""
        try:
            yield
        except errors.ServerException as error:
            now_s = time.monotonic()
            if error.code == _STALE:
                if self._since_s is None or self._is_past(now_s):
                    self._since_s = now_s
                self._last_s = now_s
            raise

    def _is_past(self, now_s: float) -> bool:
        return now_s - self._last_s > _EPISODE_S
