import logging
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from exporter.kernel_entries import SECOND, Connection
from exporter.test_connections import T0, ended, event, poll, reported, rows, table
from flowvis.conntrack.entries import NEW
from flowvis.exporter.state import StateFile, load, save
from flowvis.exporter.tables.connections import ConnectionTable

ONE = Connection(counters=(1, 100, 0, 0))
TWO = Connection(id=2, source_port=2, counters=(2, 200, 0, 0), tcp_state="TIME_WAIT")


async def successor(first: ConnectionTable, tmp_path: Path) -> ConnectionTable:
    await StateFile(tmp_path, "node/1", first).stop()
    second = table()
    await StateFile(tmp_path, "node/1", second).start()
    return second


async def predecessor(*connections: Connection) -> ConnectionTable:
    first = table()
    poll(first, T0, *connections)
    assert len(first.flush()) == len(connections)
    return first


async def test_a_restart_repeats_nothing(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE, TWO), tmp_path)
    poll(second, T0 + 5000, ONE, TWO)
    assert not len(second.due(T0 + 90_000))
    assert second.entries.dropped == {"reported-before": 2}
    assert StateFile(tmp_path, "node/1", second).path == tmp_path / "node%2F1.npz"


async def test_what_grew_meanwhile_is_reported(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE, TWO), tmp_path)
    poll(second, T0 + 5000, ONE.at(3, 350, 0, 0), TWO)
    assert reported(second.due(T0 + 90_000)) == [(1, 250, 350)]
    third = await successor(second, tmp_path)
    poll(third, T0 + 95_000, ONE.at(4, 360, 0, 0), TWO)
    assert reported(third.due(T0 + 190_000)) == [(1, 10, 360)]


async def test_the_end_is_reported_even_if_nothing_was_counted(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE), tmp_path)
    event(second, T0 + 9000, ended(ONE, 1, 100, 0, 0))
    batch = second.due(T0 + 9000)
    assert reported(batch) == [(3, 0, 100)]
    assert rows(batch, "flowStartMilliseconds", "flowEndMilliseconds") == [(T0, T0 + 9000)]


async def test_another_connection_with_the_same_key_is_reported_whole(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE), tmp_path)
    poll(second, T0 + 5000, ONE.at(5, 500, 0, 0, start_ns=1_004 * SECOND))
    assert reported(second.due(T0 + 90_000)) == [(1, 500, 500)]


async def test_counters_below_what_was_reported_are_anothers(tmp_path: Path) -> None:
    first = await predecessor(ONE.at(start_ns=0))
    second = await successor(first, tmp_path)
    event(second, T0 + 5000, ONE.at(0, 0, 0, 0, start_ns=0, event=NEW))
    poll(second, T0 + 5000, ONE.at(1, 60, 0, 0, start_ns=0))
    assert reported(second.due(T0 + 90_000)) == [(1, 60, 60)]


async def test_what_the_kernel_lists_no_more_is_forgotten(tmp_path: Path) -> None:
    second = await successor(await predecessor(ONE, TWO), tmp_path)
    for at in (5000, 10_000, 15_000):
        poll(second, T0 + at, TWO)
    assert len(second.reported()) == 1


async def test_without_a_predecessor(tmp_path: Path) -> None:
    first = table()
    await StateFile(tmp_path, "node", first).start()
    assert len(first.reported()) == 0


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"nonsense"])
def test_a_bad_file_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "state.npz"
    path.write_bytes(content)
    assert load(path, table().reported()) is None
    assert "reported again" in caplog.text


def test_columns_of_another_form_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state.npz"
    like = table().reported()
    np.savez(path, keys=like.keys)
    assert load(path, like) is None
    columns = {field.name: getattr(like, field.name) for field in fields(like)}
    np.savez(path, **{**columns, "reasons": np.zeros(1, dtype=np.uint8)})
    assert load(path, like) is None
    assert "reasons is uint8(1,)" in caplog.text


def test_where_nothing_can_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert not save(tmp_path / "file" / "state.npz", table().reported())
    assert "not written" in caplog.text
