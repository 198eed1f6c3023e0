"""Records that no message can hold, made to fit: their longest texts are shortened."""

from collections.abc import Iterable, Sequence

from flowvis.batch import Batch
from flowvis.strings import Strings, shortened

LONG = 3  # bytes of a long text's length (RFC 7011 section 7)


def fitted(batch: Batch, text: Sequence[str], rows: Iterable[int], room: int) -> Batch:
    """Return the batch with the `text` columns of some rows in at most `room` bytes.

    A room below what empty texts take leaves them empty.
    """
    strings: Strings = type(batch.strings)()
    batch = batch.on(strings, text)
    for name in text:
        batch[name] = batch[name].copy()
    for row in rows:
        values = [strings.value(int(batch[name][row])) for name in text]
        limit = common_limit([len(value) for value in values], room - LONG * len(values))
        for name, value in zip(text, values, strict=True):
            batch[name][row] = strings.intern(shortened(value, limit))
    return batch


def common_limit(lengths: Iterable[int], room: int) -> int:
    """Return the largest limit to which all can be cut so that together they fit; at least 0."""
    left = sorted(lengths)
    for place, length in enumerate(left):
        share = max(room, 0) // (len(left) - place)
        if length > share:
            return share
        room -= length
    return max(left, default=0)
