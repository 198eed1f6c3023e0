"""The control socket: a UNIX socket that only its owner may open."""

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from flowvis.errors import SystemRefused

NAME = "flow-aggregator.sock"
SYSTEM_DIRECTORY = Path("/run/flowvis")


def control_path(configured: Path | None, env: Mapping[str, str]) -> Path:
    """Return where the socket is: as configured, else in $XDG_RUNTIME_DIR, else in /run/flowvis."""
    if configured is not None:
        return configured
    runtime = env.get("XDG_RUNTIME_DIR")
    return (Path(runtime) if runtime else SYSTEM_DIRECTORY) / NAME


def bind(path: Path) -> socket.socket:
    """Bind the socket with mode 0600; one that a dead aggregator left behind is replaced.

    SystemRefused where something else is in the way: a living aggregator, another user's socket,
    a file that is no socket, or a directory that others may write to.
    """
    _prepare_directory(path.parent)
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise SystemRefused(f"cannot make the control socket {path}: {error.strerror}") from error
    finally:
        os.umask(mask)
    listener.setblocking(False)
    return listener


def check_owner(path: Path) -> None:
    """Raise SystemRefused unless `path` is a socket of this user or of root."""
    status = path.lstat()
    if not stat.S_ISSOCK(status.st_mode):
        raise SystemRefused(f"{path} is not a socket: name another with --socket")
    if status.st_uid not in {0, os.geteuid()}:
        raise SystemRefused(f"{path} belongs to user {status.st_uid}: run as that user")


def _prepare_directory(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise SystemRefused(
            f"cannot make the directory {directory} of the control socket: {error.strerror}; "
            "make it, or set controlSocket"
        ) from error
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise SystemRefused(
            f"anybody may write to {directory}: set controlSocket to a path in a safe directory"
        )


def _clear(path: Path) -> None:
    """Remove a dead socket of our own; raise where anything else is in the way."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:  # the directory is somebody else's
        raise SystemRefused(
            f"cannot look at the control socket {path}: {error.strerror}; set controlSocket"
        ) from error
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != os.geteuid():
        raise SystemRefused(
            f"{path} is in the way of the control socket and is not ours: "
            "remove it, or set controlSocket"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:
            raise SystemRefused(f"cannot tell who has {path}: {error.strerror}") from error
    raise SystemRefused(f"another flow-aggregator listens at {path}: set controlSocket")
