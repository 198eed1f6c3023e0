"""Faults of files: configuration that is not valid, and no room for what exporters keep."""

import signal
import subprocess
from typing import TYPE_CHECKING

from flowvis.exporter.settings import StateSettings
from flowvis.lab.configuration import ROOM
from flowvis.lab.faults.fault import Fault, pass_while_away

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

STATE = StateSettings().directory
NOT_VALID = "status: {port: many}\n"


async def refuse(lab: "Lab") -> None:
    """Write what is not valid into the file of each daemon, and take it back."""
    before = {daemon: ROOM / f"{daemon.name}.yaml" for daemon in lab.daemons}
    texts = {path: path.read_text() for path in before.values()}
    for daemon, path in before.items():
        path.write_text(NOT_VALID)
        daemon.send(signal.SIGHUP)
    await pass_while_away(lab)
    for daemon, path in before.items():
        path.write_text(texts[path])
        daemon.send(signal.SIGHUP)


def make_no_room(_: "Lab") -> None:
    """Have a file system without a free inode below what exporters keep."""
    STATE.mkdir(mode=0o700)
    options = "nr_inodes=1,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "flowvis-lab", str(STATE)], check=True)


# A table reads best as one.
# fmt: off
FAULTS = {
    "bad-configuration": Fault("every daemon's file has what is not valid, for a while", refuse,
                               0.3),
    "state-full": Fault("the disk under what exporters keep is full", prepare=make_no_room),
}
# fmt: on
