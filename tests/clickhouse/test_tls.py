"""tls:// to a real server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import StoreError
from flowvis.transport.certificates import issue_ca, issue_server

from .samples import flows
from .server import Server


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreSettings]:
    directory = tmp_path_factory.mktemp("secure")
    ca = issue_ca()
    ca_cert, _ = ca.write(directory, "ca")
    server = Server(
        directory / "server",
        issue_server(ca, ["localhost"]).write(directory, "server"),
    )
    server.start()
    yield StoreSettings(f"tls://localhost:{server.secure_port}", ca_cert=ca_cert, ttl_s=0)
    server.kill()


@pytest.mark.clickhouse
def test_records_travel_over_tls(secure: StoreSettings) -> None:
    store = open_store(secure)
    store.migrate()
    store.insert(flows(5000), BatchId("tls", 1_790_000_100))
    assert store.query("SELECT count() FROM flows").rows == [[5000]]
    store.close()


@pytest.mark.clickhouse
def test_a_server_that_the_ca_did_not_sign_is_refused(
    secure: StoreSettings, tmp_path: Path
) -> None:
    other, _ = issue_ca("other").write(tmp_path, "other")
    store = open_store(replace(secure, ca_cert=other))
    with pytest.raises(StoreError, match="certificate verify failed"):
        store.migrate()
    store.close()


@pytest.mark.clickhouse
def test_the_server_s_name_is_checked(secure: StoreSettings) -> None:
    by_address = secure.database_url.replace("localhost", "127.0.0.1")
    store = open_store(replace(secure, database_url=by_address))
    with pytest.raises(StoreError, match="certificate verify failed"):
        store.migrate()
    store.close()
    trusting = open_store(
        replace(secure, database_url=by_address, ca_cert=None, insecure_skip_verify=True)
    )
    assert trusting.query("SELECT 1").rows == [[1]]
    trusting.close()
