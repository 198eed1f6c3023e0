"""Records as a Parquet file, made piece by piece."""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from flowvis.aggregator.destinations.file_lines import WHOLE
from flowvis.aggregator.destinations.texts import each, split_by_text
from flowvis.batch import Batch, address_text, whole_rows
from flowvis.fields import Field, Kind
from flowvis.runtime.extras import extra

GROUP_BYTES = 32 << 20
"""Of texts in a row group."""
_NUMBERS = {Kind.U8: "uint8", Kind.U16: "uint16", Kind.U32: "uint32", Kind.U64: "uint64"}
_UNITS = {Kind.SECONDS: "s", Kind.MILLISECONDS: "ms"}


class Parquet:
    """Makes files with a column for each stored field; needs the extra `parquet`.

    Times are timestamps (UTC), addresses and texts strings. SettingsError without pyarrow.
    """

    def __init__(self, what: str, *, compress: bool, fields: Sequence[Field] = WHOLE) -> None:
        with extra("parquet", what):
            import pyarrow as arrow
            from pyarrow import parquet
        self._arrow: ModuleType = arrow
        self._parquet: ModuleType = parquet
        self._compression = "zstd" if compress else "none"
        self._fields = tuple(fields)
        self._schema = arrow.schema([(field.name, self._type(field)) for field in self._fields])

    def pieces(self, batches: Sequence[Batch]) -> Iterator[bytes]:
        """Go through the file in pieces: about a row group each, and what is around them."""
        sink = _Sink()
        file = self._arrow.PythonFile(sink, mode="w")
        writer = self._parquet.ParquetWriter(file, self._schema, compression=self._compression)
        for batch in batches:
            for part in split_by_text(batch, GROUP_BYTES):
                writer.write_batch(self._record_batch(part))
                yield sink.drained()
        writer.close()
        yield sink.drained()

    def _record_batch(self, batch: Batch) -> Any:
        columns = [self._column(batch, field) for field in self._fields]
        return self._arrow.record_batch(columns, schema=self._schema)

    def _column(self, batch: Batch, field: Field) -> Any:
        kind, arrow = self._type(field), self._arrow
        if field.name not in batch:
            absent = "" if field.kind in {Kind.TEXT, Kind.ADDRESS} else 0
            return arrow.array([absent] * len(batch)).cast(kind)
        column = batch[field.name]
        if field.kind is Kind.TEXT:
            return arrow.array(each(column, batch.strings.texts), kind)
        if field.kind is Kind.ADDRESS:
            texts = each(whole_rows(column), lambda rows: (address_text(r.tobytes()) for r in rows))
            return arrow.array(texts, kind)
        if field.kind in _UNITS:
            return arrow.array(column.astype("int64")).cast(kind)
        return arrow.array(column, kind)

    def _type(self, field: Field) -> Any:
        if field.kind in _UNITS:
            return self._arrow.timestamp(_UNITS[field.kind], "UTC")
        return getattr(self._arrow, _NUMBERS.get(field.kind, "string"))()


class _Sink:
    """What pyarrow writes to, as a file object of which nothing is kept."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._place = 0

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._place += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._place

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def drained(self) -> bytes:
        """Return what was written since the last time."""
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data
