"""By what an engine knows a repeated INSERT, and what to do when it is wrong.

The engine notes a token, and then gives the part its name. Where it is killed in between, or that
fails, it takes every repetition for one, acknowledges it, and stores nothing. So who repeats looks
whether the rows are there, and repeats under another token if they are not.
"""

from flowvis.clickhouse.schema.encode import BatchId


class Tokens:
    """The tokens of batches that are being inserted."""

    def __init__(self) -> None:
        self._spent: dict[BatchId, int] = {}

    def of(self, batch_id: BatchId) -> str:
        """Return the token of the next attempt: the batch's id, unless that is spent."""
        spent = self._spent.get(batch_id, 0)
        return f"{batch_id}-{spent}" if spent else str(batch_id)

    def spend(self, batch_id: BatchId) -> None:
        """The engine has acknowledged an attempt, and has no rows of it."""
        self._spent[batch_id] = self._spent.get(batch_id, 0) + 1

    def forget(self, batch_id: BatchId) -> None:
        """The engine has the batch."""
        self._spent.pop(batch_id, None)
