"""A private world for the lab, and no way for anything in it to outlive the command.

The lab runs as init of its own PID namespace, with mount and network namespaces (and, where the
caller is not root, a user namespace) of its own. Whatever ends the command, SIGKILL included, ends
that init, and the kernel then ends every process in it and takes back links, rules and mounts.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flowvis.errors import SystemRefused

RUN = Path("/run")
"""A tmpfs of the lab's own hides the host's: network namespaces, files and sockets go there."""

GRACE_S = 10.0
"""How long the lab may take to end by itself; it needs well under a second."""

LOOK_S = 0.2
INSISTENT = 4
"""Signals that end the lab by force: a shell and a supervisor make two of one request."""

TOOLS = ("unshare", "setpriv", "mount", "nft")


def wrap(arguments: Sequence[str], *, user: bool) -> list[str]:
    """Return the command line that runs `arguments` as init of a private world.

    `user` adds a user namespace in which the caller is root. Both links of the chain die with what
    started them: setpriv by the parent death signal, unshare's child by --kill-child.
    """
    mapping = ["--user", "--map-root-user"] if user else []
    namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["setpriv", "--pdeathsig", "KILL", "--", "unshare", *mapping, *namespaces, *arguments]


def probe() -> bool:
    """Return whether a user namespace is needed; SystemRefused says what to do where none helps."""
    path = environment()["PATH"]
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if missing:
        packages = sorted({"nft": "nftables"}.get(tool, "util-linux") for tool in missing)
        raise SystemRefused(f"{', '.join(missing)} not found: apt-get install {' '.join(packages)}")
    for user in (False, True) if os.geteuid() == 0 else (True,):
        # Listing tables fails where namespaces are allowed but power over them is not (AppArmor).
        attempt = subprocess.run(
            wrap(["nft", "list", "tables"], user=user),
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if attempt.returncode == 0:
            return user
    if os.geteuid() == 0:
        reason = attempt.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SystemRefused(f"no network namespaces here ({' '.join(reason)}): run it on a host")
    raise SystemRefused("this kernel keeps namespaces to root: run it with sudo")


def enter(arguments: Sequence[str], *, inherits: Sequence[int] = ()) -> int:
    """Run `python -m flowvis.lab ARGUMENTS` in a private world and return its exit code.

    `inherits`: file descriptors that stay open in there. The lab reads its standard input only to
    learn that this process is gone or wants it to end.
    """
    command = wrap([sys.executable, "-m", "flowvis.lab", *arguments], user=probe())
    with (
        subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=inherits,
        ) as lab,
        _end_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as ended,
    ):
        while not ended and lab.poll() is None:
            _wait(lab, LOOK_S)
        lab.stdin.close()  # type: ignore[union-attr]  # a pipe, as asked for above
        deadline_s = time.monotonic() + GRACE_S
        while not _wait(lab, LOOK_S):
            if time.monotonic() > deadline_s or len(ended) >= INSISTENT:
                lab.kill()
        code = lab.wait()
    if ended:
        return 128 + ended[0]
    if code < 0 or code > 128:  # unshare ends as its child did, or says so as a shell does
        number = -code if code < 0 else code - 128
        raise SystemRefused(
            f"the lab was killed by {_signal(number)}, and not by this command: "
            "was memory short (dmesg), or did a program crash?"
        )
    return code


def settle() -> None:
    """Inside: hide the host's /run behind an empty one that dies with the lab."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "flowvis-lab", str(RUN)], check=True)


def environment() -> dict[str, str]:
    """Return the environment with the system's own tools on the path, as a user's may lack them."""
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": os.pathsep.join((path, "/usr/sbin", "/sbin"))}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True


@contextmanager
def _end_on(*signals: signal.Signals) -> Iterator[list[int]]:
    """Collect these signals instead of dying of them."""
    seen: list[int] = []
    before = {number: signal.signal(number, lambda got, _: seen.append(got)) for number in signals}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
