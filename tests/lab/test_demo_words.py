"""What a demo that stays says."""

import shlex

from flowvis.lab import demo

API = "http://127.0.0.1:40123"


def test_commands_need_nothing_where_there_is_a_control_socket() -> None:
    assert "FLOWVIS" not in demo.kept("", API, "t0ken")


def test_without_a_control_socket_commands_ask_the_api() -> None:
    text = demo.kept("cannot make the directory /run/x: Permission denied", API, "t0ken")
    (line,) = (line for line in text.splitlines() if "export" in line)
    given = dict(word.split("=", 1) for word in shlex.split(line)[1:])
    assert given == {"FLOWVIS_SERVER": API, "FLOWVIS_TOKEN": "t0ken"}
    assert "/run/x: Permission denied" in text
