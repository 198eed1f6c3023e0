import io
import json
import logging
from collections.abc import Iterator

import pytest

from flowvis.runtime import logs
from flowvis.runtime.logs import LimitedLog, configure

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
    assert stream.getvalue().splitlines()[1] == "Traceback (most recent call last):"
    assert stream.getvalue().endswith(FAULT + "\n")


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
        limited.log(logging.DEBUG, str(number), "hello")
    assert len(limited._windows) == 10


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
    lines = [(each.getMessage(), getattr(each, "suppressed", 0)) for each in caplog.records]
    assert lines == [*[("refused", 0)] * 5, ("something else", 0), ("refused", 95)]


def test_an_error_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    limited = LimitedLog(logging.getLogger("t"))
    limited.log(logging.ERROR, "192.0.2.1", "a defect", error=ValueError("odd"))
    assert "ValueError: odd" in caplog.text
