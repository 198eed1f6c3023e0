"""Objects in S3, or in a store that speaks like it: records as files, made as they are uploaded."""

import asyncio
import secrets
import string
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowvis.addresses import may_be_resolved
from flowvis.aggregator.destinations.file_lines import csv_upload
from flowvis.aggregator.destinations.kind import Kind, Place, Problems
from flowvis.aggregator.destinations.loads import Load, LoadDestination, LoadStats, Undelivered
from flowvis.aggregator.destinations.parquet import Parquet
from flowvis.aggregator.destinations.s3_client import Bucket, Credentials
from flowvis.aggregator.destinations.texts import split_by_text
from flowvis.batch import Batch
from flowvis.delivery.destination import Destination
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import Duration, option

PART_BYTES = 8 << 20
"""Of what a large object is uploaded; less than 5 MiB no store takes. 10,000 of them are 80 GB."""
ABORT_S = 2.0
AT_ONCE = 1000  # records made into lines in one go
LETTERS = string.ascii_lowercase + string.digits

Pieces = Callable[[Sequence[Batch]], Iterator[bytes]]
"""What makes a file of batches, piece by piece."""


class UploadFormat(Enum):
    """What the files are."""

    CSV = "CSV"
    PARQUET = "Parquet"


def _partition(pattern: str) -> str:
    """Check how objects are sorted by time."""
    try:
        datetime(2001, 1, 1, tzinfo=UTC).strftime(pattern)
    except ValueError as error:
        raise ValueError(f"is no pattern of strftime: {error}") from error
    return pattern


@dataclass(frozen=True)
class S3Uploader:
    """Files of records in a bucket."""

    enable: bool = option(False, doc="Whether records are uploaded to a bucket")
    bucket_name: str = option("", doc="The bucket; needed")
    bucket_prefix: str = option("", doc="What the names of objects begin with; a `/` follows")
    partition: str = option(
        "",
        parse=_partition,
        takes="a pattern of strftime",
        doc="What of the time (UTC) comes next in their names, as "
        "`year=%Y/month=%m/day=%d/hour=%H`, by which queries find what they need; empty: nothing",
    )
    region: str = option(
        "us-west-2", doc="The bucket's region; where it is in another one of Amazon's, it tells"
    )
    endpoint: str = option(
        "",
        doc="`https://host:port` of a store that speaks like S3; empty: Amazon's. The bucket is "
        "then in the path",
    )
    ca_file: Path | None = option(
        None, doc="The CA of the store's certificate (PEM); by default the system's CAs"
    )
    access_key_id: str = option("", doc="Who asks; empty: nobody", env="AWS_ACCESS_KEY_ID")
    secret_access_key: str = option("", doc="Its key", env="AWS_SECRET_ACCESS_KEY", secret=True)
    session_token: str = option(
        "", doc="The token of temporary credentials", env="AWS_SESSION_TOKEN", secret=True
    )
    record_format: UploadFormat = option(
        UploadFormat.CSV,
        doc="CSV: Antrea's 53 columns, without heading, with single quotes around labels and where "
        "a text needs them; Parquet: all fields (needs the extra `parquet`)",
    )
    compress: bool = option(True, doc="Whether files are compressed: CSV by gzip, Parquet by zstd")
    max_records_per_file: int = option(
        1_000_000,
        doc="Records after which a file is uploaded; fewer where memory is short, and half of "
        "maxPendingRecords at the most",
        minimum=1,
    )
    upload_interval: Duration = option(
        60.0, doc="After how long it is, with what there is", minimum=1
    )
    max_pending_records: int = option(
        2_000_000,
        doc="Records that wait, and are in the file that is uploaded, as far as memory has room; "
        "then the oldest are dropped",
        minimum=1,
    )
    required: bool = option(
        False, doc="Whether exporters keep their records until they are in the bucket"
    )

    def check(self) -> Problems:
        """Yield what is missing, or does not go together."""
        if self.enable and not self.bucket_name:
            yield "bucketName", "is needed when s3Uploader.enable is true"
        if "/" in self.bucket_name:
            yield "bucketName", f"{self.bucket_name!r} has a /: use bucketPrefix"
        if self.endpoint and (problem := _endpoint_problem(self.endpoint)):
            yield "endpoint", f"{self.endpoint!r}: {problem}"
        if bool(self.access_key_id) != bool(self.secret_access_key):
            yield "accessKeyID", "goes with secretAccessKey: give both, or none"


def _endpoint_problem(endpoint: str) -> str:
    """Say what is wrong with where a store is; "" if nothing."""
    if not endpoint.startswith(("http://", "https://")):
        return "begin it with https:// or http://"
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError as error:
        return f"no URL: {error}"
    if not parts.hostname or port == 0 or not may_be_resolved(parts.hostname):
        return "no URL: its host is no name or address, or its port is 0"
    return ""


class S3Destination(LoadDestination):
    """Uploads a file for each load, under one name in all attempts: none is ever there twice."""

    def __init__(
        self,
        bucket: Bucket,
        pieces: Pieces,
        stage: Stage,
        *,
        naming: Callable[[datetime], str],
        **options: Any,
    ) -> None:
        super().__init__(f"S3 bucket {bucket.name}", stage, **options)
        self._bucket = bucket
        self._pieces = pieces
        self._naming = naming
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s3")

    async def deliver(self, load: Load) -> int:
        """Upload a load: at once where it is small, else in parts as they are made."""
        load.name = load.name or self._naming(datetime.fromtimestamp(self._clock(), UTC))
        parts = _parts(self._pieces(load.batches))
        first = await self._next_part(parts) or b""
        if len(first) < PART_BYTES:
            await self._bucket.put(load.name, first)
            return len(first)
        upload = await self._bucket.begin(load.name)
        try:
            return await self._upload(load.name, upload, first, parts)
        except BaseException:
            # A rule of the bucket may delete what is left.
            with suppress(Undelivered, TimeoutError):
                async with asyncio.timeout(ABORT_S):  # who stops must not wait for a store
                    await self._bucket.abort(load.name, upload)
            raise

    async def _upload(self, name: str, upload: str, first: bytes, parts: Iterator[bytes]) -> int:
        tags: list[str] = []
        part: bytes | None = first
        size = 0
        while part:
            tags.append(await self._bucket.put_part(name, upload, len(tags) + 1, part))
            size += len(part)
            part = await self._next_part(parts)
        await self._bucket.complete(name, upload, tags)
        return size

    async def close(self) -> None:
        """End the connections."""
        self._thread.shutdown(wait=False)
        await self._bucket.close()

    async def _next_part(self, parts: Iterator[bytes]) -> bytes | None:
        return await asyncio.get_running_loop().run_in_executor(self._thread, next, parts, None)


def _parts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join the pieces of a file to parts; all but the last have PART_BYTES or more."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= PART_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def csv_pieces(batches: Sequence[Batch], made_s: Callable[[], int]) -> Iterator[bytes]:
    """Go through a CSV file."""
    moment = made_s()
    for batch in batches:
        for first in range(0, len(batch), AT_ONCE):
            part = batch.take(slice(first, first + AT_ONCE))
            for few in split_by_text(part, PART_BYTES):
                yield csv_upload(few, moment)


def gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Compress the pieces of a file, as one gzip file (RFC 1952)."""
    made = zlib.compressobj(6, zlib.DEFLATED, 31)
    for piece in pieces:
        yield made.compress(piece)
    yield made.flush()


def name_of(prefix: str, partition: str, suffix: str, moment: datetime) -> str:
    """Return a new name for an object."""
    drawn = "".join(secrets.choice(LETTERS) for _ in range(12))
    parts = (prefix.strip("/"), moment.strftime(partition).strip("/"), f"records-{drawn}.{suffix}")
    return "/".join(part for part in parts if part)


def make(chosen: S3Uploader, place: Place, before: Destination | None) -> S3Destination:
    """Return what uploads; SettingsError where a package is missing."""
    bucket = Bucket(
        chosen.bucket_name,
        Credentials(chosen.access_key_id, chosen.secret_access_key, chosen.session_token),
        region=chosen.region,
        endpoint=chosen.endpoint,
        ca_file=chosen.ca_file,
    )
    pieces, suffix = _format(chosen)
    return S3Destination(
        bucket,
        pieces,
        place.stage,
        naming=partial(name_of, chosen.bucket_prefix, chosen.partition, suffix),
        capacity=chosen.max_pending_records,
        max_bytes=place.max_bytes,
        grace_s=place.surroundings.grace_s,
        required=chosen.required,
        load_records=chosen.max_records_per_file,
        interval_s=chosen.upload_interval,
        stats=before.stats if before is not None and isinstance(before.stats, LoadStats) else None,
    )


def _format(chosen: S3Uploader) -> tuple[Pieces, str]:
    """Return what makes the files, and what their names end with."""
    if chosen.record_format is UploadFormat.PARQUET:
        made = Parquet("s3Uploader.recordFormat", compress=chosen.compress)
        return made.pieces, "parquet"
    lines = partial(csv_pieces, made_s=lambda: int(datetime.now(UTC).timestamp()))
    if chosen.compress:
        return lambda batches: gzipped(lines(batches)), "csv.gz"
    return lines, "csv"


KIND = Kind("s3_uploader", "s3", make)
