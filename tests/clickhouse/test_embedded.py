"""The embedded engine where little can be written: a container's read-only root, one volume."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowvis.clickhouse.embedded_engine import CACHED_BYTES, MERGED_AT_ONCE, _reason, _scratch
from flowvis.clickhouse.schema.encode import BatchId
from flowvis.clickhouse.store import Store, StoreSettings, open_store
from flowvis.errors import SettingsError, StoreError

from .conftest import admin
from .samples import flows

READ_ONLY = """
mount -t tmpfs none "$VOLUME"
for place in / /tmp /var/tmp /run /var /home /root; do
  if mountpoint -q "$place"; then mount -o remount,bind,ro "$place" || exit 9; fi
done
touch /tmp/written 2>/dev/null && exit 8
exec "$@"
"""

SCRIPT = """
import sys
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import FlowvisError
try:
    store = open_store(StoreSettings(f"embedded://{sys.argv[1]}"))
    store.migrate()
    print(store.query("SELECT count() FROM flows").rows)
    store.close()
except FlowvisError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def in_a_container(
    volume: Path, store: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Open a store where only `volume` can be written."""
    variables = {key: value for key, value in os.environ.items() if key != "TMPDIR"}
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", sys.executable, "-c", SCRIPT, store],
        env=variables | {"VOLUME": str(volume), "PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
    )


@pytest.mark.kernel
@pytest.mark.parametrize("place", ["store", "."])
def test_a_volume_is_all_that_the_engine_needs(tmp_path: Path, place: str) -> None:
    done = in_a_container(tmp_path, tmp_path / place)
    assert (done.returncode, done.stdout) == (0, "[[0]]\n"), done.stderr


@pytest.mark.kernel
def test_without_a_volume_it_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    store = tmp_path / "elsewhere/store"
    done = in_a_container(tmp_path / "volume", store)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"SettingsError: clickHouse.databaseURL: embedded://{store}: the engine")
    assert "/tmp (Read-only file system)" in line
    assert line.endswith(f"mount a volume at {store}")


@pytest.mark.kernel
def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    done = in_a_container(
        tmp_path / "volume", tmp_path / "elsewhere", TMPDIR=str(tmp_path / "volume")
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"StoreError: {tmp_path}/elsewhere: ")
    assert "Read-only file system" in line


@pytest.mark.parametrize("before", [None, "/somewhere"])
def test_the_temporary_directory_is_of_the_import_only(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    if before is not None:
        monkeypatch.setenv("TMPDIR", before)
    with _scratch(tmp_path / "not/there/yet"):
        assert Path(os.environ["TMPDIR"]).parent == tmp_path
        (Path(os.environ["TMPDIR"]) / "left").touch()
    assert os.environ.get("TMPDIR") == before
    assert list(tmp_path.iterdir()) == []


def test_another_place_serves_where_the_volume_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with _scratch(Path("/proc/nowhere")):
        assert Path(os.environ["TMPDIR"]).parent == tmp_path


@pytest.mark.clickhouse
def test_the_engine_remembers_no_more_of_its_parts_than_it_may(embedded: Store) -> None:
    found = admin(embedded)("SELECT name, value FROM system.server_settings")
    settings = {name: int(value) for name, value in found if name in CACHED_BYTES}
    assert settings == CACHED_BYTES


@pytest.mark.clickhouse
def test_the_engine_merges_within_the_memory_that_it_may_take(embedded: Store) -> None:
    found = admin(embedded)("SELECT name, value FROM system.settings")
    assert {name: int(value) for name, value in found if name in MERGED_AT_ONCE} == MERGED_AT_ONCE


def test_the_engine_s_words_without_its_stack() -> None:
    text = "Failed:\n Code: 36. e.what() = no, Stack trace (when copying): 0. x (version 26)"
    assert _reason(RuntimeError(text)) == "Failed: Code: 36. e.what() = no"
    assert _reason(RuntimeError("Code: 62. Bad. (SYNTAX_ERROR) (version 26.1)")) == (
        "Code: 62. Bad. (SYNTAX_ERROR)"
    )


def test_what_the_engine_refuses_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = open_store(StoreSettings(f"embedded://{tmp_path}/file/store"))
    with pytest.raises((StoreError, SettingsError)) as caught:
        store.query("SELECT 1")
    assert "\n" not in str(caught.value)
    assert "Stack trace" not in str(caught.value)


MISSPELT = """
import sys
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import StoreError
store = open_store(StoreSettings(f"embedded://{sys.argv[1]}", database="default"))
store.migrate()
for name in ("flow_recrods", "flow_records"):
    try:
        print(store.query(f"SELECT count() FROM {name}").rows)
    except StoreError as error:
        print(error)
store.close()
"""


@pytest.mark.clickhouse
def test_a_table_that_is_not_there_is_no_lack_of_rights(tmp_path: Path) -> None:
    """In its database `default` the engine takes such a name for a file's."""
    done = subprocess.run(
        [sys.executable, "-c", MISSPELT, str(tmp_path / "store")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.endswith("takes a table that there is not for a file: SHOW TABLES has them")
    assert second == "[[0]]"


@pytest.mark.clickhouse
def test_what_the_engine_does_not_store_is_an_error(embedded: Store) -> None:
    """It says so many rows were written whatever came of them: here a condition is not met."""
    change = f"ALTER TABLE {embedded.name.rsplit('/', 1)[1]}.flow_records"
    first, second = BatchId("test", 1_790_000_000), BatchId("test", 1_790_000_000, 1)
    embedded.insert(flows(10), first)
    admin(embedded)(f"{change} ADD CONSTRAINT none CHECK octetDeltaCount > 1000000000")
    with pytest.raises(StoreError, match=r"test-1790000000-1 was not stored: .*[Cc]onstraint"):
        embedded.insert(flows(20), second)
    admin(embedded)(f"{change} DROP CONSTRAINT none")
    for batch_id, rows in ((first, 10), (second, 20), (second, 20)):
        embedded.insert(flows(rows), batch_id, again=True)
    assert embedded.query("SELECT count() FROM flows").rows == [[30]]


@pytest.mark.clickhouse
def test_a_repetition_that_the_engine_only_takes_for_one_is_stored(embedded: Store) -> None:
    """As where it was killed between noting a batch and giving its part a name."""
    first, batch_id = BatchId("test", 1_790_000_000), BatchId("test", 1_790_000_000, 1)
    embedded.insert(flows(10), first)
    embedded.insert(flows(20), batch_id)
    records = f"{embedded.name.rsplit('/', 1)[1]}.flow_records"
    admin(embedded)(f"DELETE FROM {records} WHERE batchNumber = 1")
    admin(embedded)(f"OPTIMIZE TABLE {records} FINAL")
    with pytest.raises(StoreError, match="test-1790000000-1 was not stored") as caught:
        embedded.insert(flows(20), batch_id, again=True)
    assert caught.value.retryable
    for _ in range(3):
        embedded.insert(flows(20), batch_id, again=True)
    assert embedded.query("SELECT count() FROM flows").rows == [[30]]
