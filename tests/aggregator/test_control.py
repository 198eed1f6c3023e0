import os
import socket
import stat
from pathlib import Path

import pytest

from flowvis.aggregator.api.control import bind, check_owner, control_path
from flowvis.errors import SystemRefused


def test_where_it_is() -> None:
    assert control_path(Path("/a/b"), {"XDG_RUNTIME_DIR": "/x"}) == Path("/a/b")
    assert control_path(None, {"XDG_RUNTIME_DIR": "/x"}) == Path("/x/flow-aggregator.sock")
    assert control_path(None, {}) == Path("/run/flowvis/flow-aggregator.sock")


def test_only_its_owner_may_open_it(tmp_path: Path) -> None:
    path = tmp_path / "private" / "control.sock"
    with bind(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        check_owner(path)


def test_a_dead_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    bind(path).close()
    assert path.exists()
    with bind(path) as listener:
        listener.listen()
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))


def test_a_living_one_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with bind(path) as listener:
        listener.listen()
        with pytest.raises(SystemRefused, match="another flow-aggregator listens at"):
            bind(path)


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(SystemRefused, match="in the way"):
        bind(path)
    assert path.read_text() == "precious"
    with pytest.raises(SystemRefused, match="not a socket"):
        check_owner(path)


def test_another_users_socket_is_neither_replaced_nor_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "control.sock"
    bind(path).close()
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)  # root's sockets may be opened by anybody who can
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SystemRefused, match="not ours"):
        bind(path)
    with pytest.raises(SystemRefused, match="belongs to user"):
        check_owner(path)


def test_a_directory_that_anybody_may_write_to_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(SystemRefused, match="anybody may write"):
        bind(directory / "control.sock")


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match="missing/there"):
        bind(tmp_path / "missing" / "there" / "control.sock")


def test_what_cannot_be_looked_at_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemRefused, match=r"cannot look at the control socket .*too long"):
        bind(tmp_path / ("long" * 100))
