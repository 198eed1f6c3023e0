"""Files of records in S3: in SeaweedFS, a real store, and read back by another door."""

import asyncio
import csv
import gzip
import io
import json
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from yarl import URL

from flowvis.aggregator.destinations import s3, s3_client
from flowvis.aggregator.destinations.file_lines import UPLOADED, WHOLE
from flowvis.aggregator.destinations.kind import Place, Surroundings
from flowvis.aggregator.destinations.loads import Undelivered
from flowvis.aggregator.destinations.s3_client import Bucket, Credentials, signature
from flowvis.aggregator.settings import AggregatorSettings
from flowvis.errors import SettingsError
from flowvis.runtime.ledger import Stage
from flowvis.runtime.settings import load
from flowvis.transport.certificates import issue_ca, issue_server
from waiting import PATIENCE_S, until

from .object_store import KEY, SECRET, ObjectStore
from .records import numbered, records
from .test_flow_log import ODD, SOME, STORED


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path_factory.mktemp("objects"))
    try:
        store.start()
        yield store
    finally:
        store.kill()


def chosen(store: ObjectStore, bucket: str, **options: Any) -> s3.S3Uploader:
    section = {
        "enable": True, "bucketName": bucket, "endpoint": store.endpoint,
        "accessKeyID": KEY, "secretAccessKey": SECRET, **options,
    }  # fmt: skip
    return load(AggregatorSettings, json.dumps({"s3Uploader": section}).encode(), {}).s3_uploader


def made(section: s3.S3Uploader, stage: Stage, max_bytes: int = 1 << 26) -> s3.S3Destination:
    return s3.make(section, Place(stage, max_bytes, Surroundings(20.0, 1 << 30, lambda: 7)), None)


async def uploaded(section: s3.S3Uploader, *batches: Any) -> s3.S3Destination:
    sink = made(section, Stage("s3"))
    await sink.start()
    for batch in batches:
        sink.put(batch)
    await sink.stop()
    stage = sink.queue.stage
    assert (stage.imbalance, stage.dropped) == (0, {})
    return sink


def ports(data: bytes) -> list[int]:
    rows = csv.reader(io.StringIO(data.decode(), newline=""), quotechar="'")
    place = [field.name if field else "" for field in UPLOADED].index("octetTotalCount")
    return [int(row[place]) for row in rows]


def test_a_signature_as_the_reference_of_the_api_has_it() -> None:
    moment = datetime(2013, 5, 24, tzinfo=UTC)
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-amz-date": "20130524T000000Z",
    }
    url = URL("https://examplebucket.s3.amazonaws.com/test.txt")
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    found = signature(("GET", url, headers), credentials, "us-east-1", moment)
    assert found.endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")
    assert "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date" in found


def test_where_a_bucket_is() -> None:
    def url(name: str, endpoint: str = "") -> str:
        bucket = Bucket(name, Credentials(), region="eu-north-1", endpoint=endpoint)
        return str(bucket._url("a b/x=1", {"uploads": ""}))

    assert url("flows") == "https://flows.s3.eu-north-1.amazonaws.com/a%20b/x%3D1?uploads="
    assert url("my.flows") == "https://s3.eu-north-1.amazonaws.com/my.flows/a%20b/x%3D1?uploads="
    assert url("flows", "https://minio:9000/") == "https://minio:9000/flows/a%20b/x%3D1?uploads="


async def test_a_compressed_csv_file_under_the_documented_name(store: ObjectStore) -> None:
    bucket = store.make_bucket("documented")
    months = [datetime.now(UTC).strftime("%Y-%m")]
    sink = await uploaded(
        chosen(store, bucket, bucketPrefix="flows", partition="day=%Y-%m-%d"),
        records(SOME, fields=STORED),
        records({"octetTotalCount": 5}, fields=STORED),
    )
    ((name, data),) = store.objects(bucket).items()
    months.append(datetime.now(UTC).strftime("%Y-%m"))  # it may be another by now
    assert name.startswith(tuple(f"flows/day={month}-" for month in months))
    assert pytest.approx(len("records-abcdefghijkl.csv.gz")) == len(name.rpartition("/")[2])
    assert name.endswith(".csv.gz")
    text = gzip.decompress(data).decode()
    rows = list(csv.reader(io.StringIO(text, newline=""), quotechar="'"))
    assert [len(row) for row in rows] == [53, 53]
    assert (rows[0][15 - 5 + 8], rows[0][18]) == (ODD, ODD)
    assert (sink.stats.delivered, sink.stats.delivered_bytes) == (1, len(data))


async def test_files_of_so_many_records(store: ObjectStore) -> None:
    bucket = store.make_bucket("rolled")
    await uploaded(
        chosen(store, bucket, maxRecordsPerFile=40, compress=False),
        *(numbered(n, 10) for n in range(0, 90, 10)),
    )
    found = sorted((ports(data) for data in store.objects(bucket).values()), key=min)
    assert found == [list(range(40)), list(range(40, 80)), list(range(80, 90))]


async def test_a_file_comes_before_the_queue_is_full(store: ObjectStore) -> None:
    bucket = store.make_bucket("crowded")
    section = chosen(store, bucket, maxPendingRecords=60, uploadInterval="1h", compress=False)
    sink = made(section, Stage("s3"))
    await sink.start()
    for number in range(3):
        for first in range(0, 30, 10):
            sink.put(numbered(30 * number + first, 10))
        await until(lambda: not sink.held())
    await sink.stop()
    assert sink.queue.stage.dropped == {}
    found = sorted((ports(data) for data in store.objects(bucket).values()), key=min)
    assert found == [list(range(first, first + 30)) for first in (0, 30, 60)]


async def test_a_large_file_goes_in_parts(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.make_bucket("parts")
    with monkeypatch.context() as patch:
        patch.setattr(s3, "PART_BYTES", 5 << 20)
        labels = {"sourcePodLabels": "x" * 16_000}
        batch = records(*(labels | {"octetTotalCount": n} for n in range(800)), fields=STORED)
        sink = await uploaded(chosen(store, bucket, compress=False), batch)
    ((_, data),) = store.objects(bucket).items()
    assert len(data) == sink.stats.delivered_bytes > 2 * (5 << 20)
    assert ports(data) == list(range(800))
    assert store.unfinished(bucket) == []


async def test_parts_of_an_upload_that_fails_are_deleted(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = store.make_bucket("aborted")
    stage = Stage("s3")
    sink = made(chosen(store, bucket, compress=False), stage)
    complete, lost = sink._bucket.complete, list[str]()

    async def cut(key: str, upload: str, tags: list[str]) -> None:
        if not lost:
            lost.append(upload)
            assert len(store.unfinished(bucket)) == 1
            raise Undelivered("no answer")
        await complete(key, upload, tags)

    sink._bucket.complete = cut  # type: ignore[method-assign]
    with monkeypatch.context() as patch:
        patch.setattr(s3, "PART_BYTES", 5 << 20)
        labels = {"sourcePodLabels": "x" * 16_000}
        await sink.start()
        sink.put(records(*(labels | {"octetTotalCount": n} for n in range(400)), fields=STORED))
        await sink.stop()
    assert (stage.sent, stage.imbalance, sink.stats.failures) == (400, 0, 1)
    ((_, data),) = store.objects(bucket).items()
    assert ports(data) == list(range(400))
    assert store.unfinished(bucket) == []


class Slow:
    """A store that begins its answers at once and ends them later, as Amazon's does."""

    def __init__(self, *completions: str) -> None:
        self.completions = list(completions)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        await request.read()
        if request.method == "PUT":
            return web.Response(headers={"ETag": "t"})
        if "uploads" in request.query:
            return await self._in_pieces(request, "<R><UploadId>a", "b</UploadId></R>")
        return await self._in_pieces(request, "<?xml version='1.0'?>\n", self.completions.pop(0))

    async def _in_pieces(self, request: web.Request, *pieces: str) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece.encode())
            await asyncio.sleep(0.1)
        await response.write_eof()
        return response


@asynccontextmanager
async def answering(
    store: Slow, tls: ssl.SSLContext | None = None, ca_file: Path | None = None
) -> AsyncIterator[Bucket]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", store.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        host, port = runner.addresses[0][:2]
        endpoint = f"{'https' if tls else 'http'}://{host}:{port}"
        bucket = Bucket("b", Credentials(), region="", endpoint=endpoint, ca_file=ca_file)
        try:
            yield bucket
        finally:
            await bucket.close()
    finally:
        await runner.cleanup()


async def test_an_upload_whose_answer_begins_well_and_ends_in_an_error() -> None:
    failed = "<Error><Code>InternalError</Code><Message>try again</Message></Error>"
    store = Slow(failed, "<CompleteMultipartUploadResult/>")
    async with answering(store) as bucket:
        assert await bucket.begin("k") == "ab"
        with pytest.raises(Undelivered, match="InternalError: try again"):
            await bucket.complete("k", "ab", ["t"])
        await bucket.complete("k", "ab", ["t"])


async def test_an_answer_is_bounded() -> None:
    async with answering(Slow("x" * 100_000)) as bucket:
        with pytest.raises(Undelivered, match="more than 65536 bytes"):
            await bucket.complete("k", "ab", ["t"])


@pytest.mark.parametrize(
    "credentials",
    [Credentials("key\n", "secret"), Credentials("key", "secret", "t\r\n")],
)
async def test_what_no_request_can_have_costs_no_records(credentials: Credentials) -> None:
    async with answering(Slow("")) as bucket:
        bucket._credentials = credentials
        with pytest.raises(Undelivered, match="bucket b cannot be asked"):
            await bucket.put("k", b"body")


async def test_a_bucket_that_no_host_can_be_named_after_costs_no_records() -> None:
    bucket = Bucket("b" * 300, Credentials(), region="r")
    with pytest.raises(Undelivered, match="cannot be asked"):
        await bucket.put("k", b"body")
    await bucket.close()


@pytest.mark.parametrize(
    "endpoint", ["https://", "http://h:99999", "http://h:0", "http://[::1", "http://h:x"]
)
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    section = {"enable": True, "bucketName": "b", "endpoint": endpoint}
    with pytest.raises(SettingsError, match=r"endpoint.*no URL"):
        load(AggregatorSettings, json.dumps({"s3Uploader": section}).encode(), {})


async def test_a_slow_way_gets_the_time_that_a_part_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reluctant(Slow):
        async def answer(self, request: web.Request) -> web.StreamResponse:
            await asyncio.sleep(0.5)
            return await super().answer(request)

    monkeypatch.setattr(s3_client, "ANSWERED_S", 0.1)
    async with answering(Reluctant()) as bucket:
        await bucket.put("k", bytes(1 << 20))
        with pytest.raises(Undelivered):
            await bucket.put("k", b"")


async def test_a_ca_that_comes_late_and_one_that_changes_are_read(tmp_path: Path) -> None:
    ca = issue_ca()
    certificate, key = issue_server(ca, ["127.0.0.1"]).write(tmp_path, "server")
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(certificate, key)
    file = tmp_path / "s3.crt"
    async with answering(Slow(), served, file) as bucket:
        with pytest.raises(Undelivered, match="no CA can be read: No such file"):
            await bucket.put("k", b"body")
        file.write_text("")
        with pytest.raises(Undelivered, match="no CA can be read"):
            await bucket.put("k", b"body")
        file.write_bytes(issue_ca().write(tmp_path, "other")[0].read_bytes())
        with pytest.raises(Undelivered, match="certificate verify failed"):
            await bucket.put("k", b"body")
        file.write_bytes(ca.write(tmp_path, "ca")[0].read_bytes())
        await bucket.put("k", b"body")


async def test_a_store_that_never_answers_delays_no_stop() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    section = s3.S3Uploader(
        enable=True,
        bucket_name="b",
        endpoint=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
    )
    stage = Stage("s3")
    sink = made(section, stage)
    sink._grace_s = 0.2
    await sink.start()
    sink.put(numbered(0, 5))
    await asyncio.wait_for(sink.stop(), PATIENCE_S)
    server.close()
    assert (stage.dropped, stage.imbalance) == ({"shutdown": 5}, 0)


async def test_parquet_has_every_stored_field(store: ObjectStore) -> None:
    bucket = store.make_bucket("parquet")
    await uploaded(
        chosen(store, bucket, recordFormat="parquet"),
        records(SOME, {"destinationIP": "10.0.0.9"}, fields=STORED),
        numbered(0, 3),
    )
    ((name, data),) = store.objects(bucket).items()
    assert name.endswith(".parquet")
    table = pq.read_table(io.BytesIO(data))
    assert table.column_names == [field.name for field in WHOLE]
    rows = table.to_pylist()
    assert len(rows) == 5
    assert rows[0]["flowStartSeconds"] == datetime(2024, 1, 31, 12, tzinfo=UTC)
    assert (rows[0]["sourcePodName"], rows[0]["octetTotalCount"]) == (ODD, 2**64 - 1)
    assert (rows[0]["destinationIP"], rows[1]["destinationIP"]) == ("fd00::2", "10.0.0.9")
    assert (rows[1]["sourceIP"], rows[4]["octetTotalCount"]) == ("", 2)
    assert rows[4]["sourceWorkloadName"] == ""


async def test_a_store_that_is_away_gets_each_record_once(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    section = chosen(store, "late", compress=False, uploadInterval="1s", maxPendingRecords=60)
    stage = Stage("s3")
    sink = made(section, stage)
    await sink.start()
    try:
        sink.put(numbered(0, 30))
        sink.hurry()
        await until(lambda: sink.problem)
        assert "127.0.0.1" in sink.problem
        sink.put(numbered(30, 60))
        assert stage.dropped == {"queue-full": 30}
        store.start()
        store.make_bucket("late")
        await until(lambda: stage.sent == 60)
        assert sink.problem == ""
        found = sorted(n for data in store.objects("late").values() for n in ports(data))
        assert found == [*range(30), *range(60, 90)]
    finally:
        await sink.stop()
        store.kill()
    assert stage.imbalance == 0


async def test_who_may_not_is_told_and_tries_again(store: ObjectStore) -> None:
    bucket = store.make_bucket("closed")
    stage = Stage("s3")
    sink = made(chosen(store, bucket, secretAccessKey="wrong", uploadInterval="1s"), stage)
    sink._grace_s = 0.1
    await sink.start()
    sink.put(numbered(0, 3))
    sink.hurry()
    await until(lambda: sink.problem)
    assert f"bucket {bucket}: SignatureDoesNotMatch" in sink.problem
    await until(lambda: sink.stats.failures > 1)
    await sink.stop()
    assert (stage.sent, stage.dropped, stage.imbalance) == (0, {"shutdown": 3}, 0)
    assert store.objects(bucket) == {}


async def test_another_attempt_has_the_same_name(store: ObjectStore) -> None:
    """The answer to a put is lost: the object is there, and the next attempt is the same one."""
    bucket = store.make_bucket("again")
    sink = made(chosen(store, bucket, compress=False), Stage("s3"))
    put = sink._bucket.put
    lost: list[str] = []

    async def forgetful(key: str, body: bytes) -> None:
        await put(key, body)
        if not lost:
            lost.append(key)
            raise Undelivered("no answer")

    sink._bucket.put = forgetful  # type: ignore[method-assign]
    await sink.start()
    sink.put(numbered(0, 5))
    await sink.stop()
    assert sink.stats.failures == 1
    ((name, data),) = store.objects(bucket).items()
    assert (name, ports(data)) == (lost[0], list(range(5)))


def test_parquet_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        section = s3.S3Uploader(True, "b", record_format=s3.UploadFormat.PARQUET)
        with pytest.raises(SettingsError, match=r"pip install 'flowvis\[parquet\]'"):
            made(section, Stage("s3"))
