"""Faults of what daemons stand on: clocks, room, and files."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flowvis.errors import SystemRefused
from flowvis.exporter.settings import StateSettings
from flowvis.lab.configuration import ROOM
from flowvis.lab.faults.fault import Fault, again_and_again, damage, pass_while_away
from flowvis.lab.processes import DaemonProcess

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

FAKETIME = "FAKETIME_LIBRARY"
"""The variable that says where libfaketime is, if not where Debian has it."""

LIBRARY = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"

DURING = (0.2, 0.8)
STEPS_S = (-90, 600)  # less than certificates are valid before they are issued
STEP_EVERY_S = (1.0, 3.0)
AHEAD_S = 20
AWAY_S = 1.0


def set_clocks(lab: "Lab") -> None:
    """Give each daemon a wall clock that can be set."""
    _set_clocks(lab.daemons)


def set_one_clock(lab: "Lab") -> None:
    """Give an exporter a wall clock that can be set; nobody else has one that is made up."""
    _set_clocks(lab.exporters[:1])


def _set_clocks(daemons: Sequence[DaemonProcess]) -> None:
    """Give these daemons wall clocks that can be set; steady time stays the kernel's."""
    library = Path(os.environ.get(FAKETIME, LIBRARY))
    if not library.exists():
        raise SystemRefused(f"{library} not found: apt-get install libfaketime")
    for daemon in daemons:
        clock = ROOM / f"{daemon.name}.clock"
        clock.write_text("+0\n")
        daemon.environment |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


async def step_clocks(lab: "Lab") -> None:
    """Set the clock of one daemon after the other, forth and back."""
    async for _ in again_and_again(lab, DURING, STEP_EVERY_S):
        daemon = lab.random.choice(lab.daemons)
        (ROOM / f"{daemon.name}.clock").write_text(f"{lab.random.randint(*STEPS_S):+d}\n")
    for daemon in lab.daemons:
        (ROOM / f"{daemon.name}.clock").write_text("+0\n")


async def skew(lab: "Lab") -> None:
    """Set the clock of one exporter ahead for a while."""
    clock = ROOM / f"{lab.exporters[0].name}.clock"
    clock.write_text(f"+{AHEAD_S}\n")
    await pass_while_away(lab)
    clock.write_text("+0\n")


async def corrupt(lab: "Lab") -> None:
    """Kill each exporter, damage a part of each of the files that it left, and start it again."""
    for exporter in lab.exporters:
        await lab.kill(exporter)
    for path in sorted(StateSettings().directory.rglob("*")):
        if path.is_file():
            damage(path, lab.random)
    await asyncio.sleep(AWAY_S)
    for exporter in lab.exporters:
        await exporter.start()


# A table reads best as one.
# fmt: off
FAULTS = {
    "clocks": Fault("the wall clocks of daemons are set back and forth", step_clocks, DURING[0],
                    by_sums=True, prepare=set_clocks),
    "clock-skew": Fault("the wall clock of one exporter is ahead for a quarter of the run", skew,
                        0.3, by_sums=True, prepare=set_one_clock),
    "corrupt-files": Fault("exporters are killed, and what they left on disk is damaged", corrupt,
                           deafens=True, by_sums=True),
    "small-tables": Fault("tables have room for fewer connections than there are", by_sums=True,
                          aggregator={"maxFlows": 60},
                          exporter={"flowExporter": {"maxConnections": 60}}),
    "small-memory": Fault("the aggregator has the least memory that it takes", by_sums=True,
                          aggregator={"memory": {"limit": "160Mi"}}),
}
# fmt: on
