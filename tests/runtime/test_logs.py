import io
import json
import logging
from collections.abc import Iterator

import pytest

from flowvis.runtime import logs
from flowvis.runtime.logs import LimitedLog, configure
from waiting import until

FAULT = "ValueError: invalid literal for int() with base 10: 'wrong'"


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(form: str, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure(form, level, stream)
    return stream


def test_text_lines() -> None:
    stream = lines("text")
    log = logging.getLogger("flowvis.test")
    log.info("plain")
    log.warning('with "quotes" %s', "and\nlines", extra={"peer": "a b", "count": 3, "empty": ""})
    log.debug("not shown")
    first, second = (line.split(" ", 1)[1] for line in stream.getvalue().splitlines())
    assert first == "level=info logger=flowvis.test msg=plain"
    assert second == (
        r'level=warning logger=flowvis.test msg="with \"quotes\" and\nlines" peer="a b" '
        'count=3 empty=""'
    )
    assert stream.getvalue().startswith("time=20")


def test_json_lines_with_a_traceback() -> None:
    stream = lines("json", "debug")
    try:
        int("wrong")
    except ValueError:
        logging.getLogger("flowvis.test").exception("failed", extra={"path": b"x"})
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert record.pop("time").endswith("Z")
    assert record.pop("traceback").endswith(FAULT)
    assert record == {
        "level": "error",
        "logger": "flowvis.test",
        "msg": "failed",
        "path": "b'x'",
    }


def test_text_has_the_traceback_below() -> None:
    stream = lines("text")
    try:
        int("wrong")
    except ValueError:
        logging.getLogger("flowvis.test").exception("failed")
    assert stream.getvalue().splitlines()[1] == "  Traceback (most recent call last):"
    assert stream.getvalue().endswith("  " + FAULT + "\n")


HOSTILE = "a\r\ntime=1 level=info msg=forged \x1b[2J\x9b2J\0\u202egnp\u2028\u200b\ud800"


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_text_of_a_peer_s_is_a_line_or_moves_a_terminal(form: str) -> None:
    stream = lines(form)
    log = logging.getLogger("flowvis.test")
    log.warning("%s", HOSTILE, extra={"peer": HOSTILE})
    for bare in ("\u202e", "\x85", "\u2028", "\u2066", "\ufeff", "\x7f", "\N{NO-BREAK SPACE}"):
        log.warning("bare", extra={"peer": f"a{bare}b"})
    log.error("failed", exc_info=ValueError(HOSTILE))
    written = stream.getvalue().split("\n")
    assert all(line.isprintable() for line in written)
    assert not any(line.startswith("time=1 ") for line in written)
    entries = [line for line in written if line and not line.startswith("  ")]
    assert len(entries) == 9
    if form == "json":
        assert json.loads(entries[0])["peer"] == HOSTILE
        assert HOSTILE in json.loads(entries[-1])["traceback"]


def test_a_peer_is_an_address_whatever_its_port(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    limited = LimitedLog(logging.getLogger("t"), burst=2, interval_s=10, clock=lambda: now[0])
    texts = ("10.0.0.1:{}", "[fd00::1]:{}", "node-1@[fd00::1]:{}", "tcp://db:{}", "[fd00::2]:{}")
    for peer in texts:
        for port in range(1, 50):
            limited.log(logging.WARNING, peer.format(port * 1000), "bad")
    assert len(caplog.records) == 5 * 2
    assert caplog.records[0].peer == "10.0.0.1:1000"  # type: ignore[attr-defined]
    assert len(limited._windows) == 5
    for address in ("fd00::1", "fd00::2"):
        limited.log(logging.WARNING, address, "bad")
    assert len(limited._windows) == 7


def test_all_peers_together_have_a_share(caplog: pytest.LogCaptureFixture) -> None:
    """One who has a whole network of addresses is many peers, but one log."""
    now = [0.0]
    limited = LimitedLog(logging.getLogger("t"), burst=2, interval_s=10, clock=lambda: now[0])
    for number in range(3000):
        limited.log(logging.WARNING, f"[fd00::{number:x}]:1", "bad")
    assert len(caplog.records) == logs.ALL_PEERS
    limited.log(logging.WARNING, "[fd00::1]:1", "bad in another way")
    assert len(caplog.records) == logs.ALL_PEERS + 1
    limited.report(everything=True)
    last = caplog.records[-1]
    assert last.getMessage() == "more of the same kind: bad"
    assert last.suppressed == 3000 - logs.ALL_PEERS  # type: ignore[attr-defined]


async def test_what_was_suppressed_is_reported_where_no_line_follows(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "REPORT_S", 0.01)
    limited = LimitedLog(logging.getLogger("t"), burst=1, interval_s=0.1)
    component = logs.SuppressedLines()
    await component.start()
    for _ in range(5):
        limited.log(logging.WARNING, "a", "bad")

    def ours() -> list[int]:
        """Of this log: what others suppressed is reported as well."""
        return [getattr(r, "suppressed", 0) for r in caplog.records if r.name == "t"]

    await until(lambda: ours() == [0, 4])
    for _ in range(3):
        limited.log(logging.WARNING, "b", "worse")
    await component.stop()
    assert ours() == [0, 4, 0, 2]


def test_configuring_again_replaces() -> None:
    first, second = lines("text"), lines("json")
    logging.getLogger("flowvis.test").info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_each_peer_and_message_has_its_own_share(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    limited = LimitedLog(logging.getLogger("t"), burst=2, interval_s=10, clock=lambda: now[0])

    def say(peer: str, number: int) -> None:
        limited.log(logging.WARNING, peer, "bad %d", number, where="x")

    for number in range(5):
        say("a", number)
    say("b", 9)
    now[0] = 10.0
    say("a", 5)
    now[0] = 25.0
    say("a", 6)
    said = [
        (record.peer, record.getMessage(), getattr(record, "suppressed", 0))  # type: ignore[attr-defined]
        for record in caplog.records
    ]
    assert said == [
        ("a", "bad 0", 0),
        ("a", "bad 1", 0),
        ("b", "bad 9", 0),
        ("a", "bad 5", 3),
        ("a", "bad 6", 0),
    ]
    assert caplog.records[0].filename == "test_logs.py"


def test_peers_cannot_make_it_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LIMITED", 10)
    limited = LimitedLog(logging.getLogger("t"))
    for number in range(100):
        limited.log(logging.WARNING, str(number), "hello")
    assert len(limited._windows) == 10


def test_what_is_not_logged_anyway_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "t")
    limited = LimitedLog(logging.getLogger("t"), burst=1)
    for _ in range(5):
        limited.log(logging.DEBUG, "peer", "hello")
    limited.report(everything=True)
    assert caplog.records == []


def test_many_peers_together_have_a_limit_as_well(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    limited = LimitedLog(
        logging.getLogger("t"), burst=2, overall=5, interval_s=10, clock=lambda: now[0]
    )
    for number in range(100):
        limited.log(logging.WARNING, f"192.0.2.{number}", "refused")
    limited.log(logging.WARNING, "192.0.2.1", "something else")
    now[0] = 10.0
    limited.log(logging.WARNING, "192.0.2.200", "refused")
    said = ["refused"] * 5 + ["something else", "refused"]
    assert [each.getMessage() for each in caplog.records] == said
    limited.report()
    assert caplog.records[-1].suppressed == 95  # type: ignore[attr-defined]


def test_an_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    limited = LimitedLog(logging.getLogger("t"))
    limited.log(logging.ERROR, "192.0.2.1", "a defect", error=ValueError("odd"))
    assert "ValueError: odd" in caplog.text
