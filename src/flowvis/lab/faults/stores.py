"""Faults of the store, a ClickHouse server: it goes away, stands still, refuses, or is full."""

import asyncio
import signal
from typing import TYPE_CHECKING

from clickhouse_driver import Client

from flowvis import checkpoint
from flowvis.clickhouse.schema.tables import (
    PLAIN_CHECKPOINTS,
    RESIDUAL_CHECKPOINTS,
    TABLE,
    VERSIONS,
)
from flowvis.errors import SystemRefused
from flowvis.lab.faults.fault import Action, Fault, again_and_again, pass_while_away
from flowvis.lab.relay import PLAIN, Behaviour

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

DURING = (0.2, 0.7)  # of the run, of what comes and goes
CUT_BYTES = (500, 60_000)  # within the first statement, or an INSERT's block
CUT_S = (0.3, 1.5)
TAKEN_UP_S = 2.5  # it looks at its files every two seconds


def ending(how: signal.Signals) -> Action:
    """Return a fault: the server is ended so, and is back after a while."""

    async def run(lab: "Lab") -> None:
        await lab.store.stop(how)
        await pass_while_away(lab)
        await lab.store.start()

    return run


async def freeze(lab: "Lab") -> None:
    """Let it stand still, with its connections."""
    lab.store.send(signal.SIGSTOP)
    try:
        await pass_while_away(lab)
    finally:
        lab.store.send(signal.SIGCONT)


def limiting(limits: str) -> Action:
    """Return a fault: for a while its users may do no more than this.

    A connection keeps what its user was allowed when it began, so that there has to be another one.
    """

    async def run(lab: "Lab") -> None:
        lab.store.limit(limits)
        await _anew(lab)
        await pass_while_away(lab)
        lab.store.limit()
        await _anew(lab)

    return run


async def _anew(lab: "Lab") -> None:
    """Wait until the server has taken up its users, and have connections begin anew."""
    await asyncio.sleep(TAKEN_UP_S)
    if lab.links.store is not None:
        lab.links.store.cut()


async def fill(lab: "Lab") -> None:
    """Let there be no room on its disk."""
    lab.store.fill()
    await pass_while_away(lab)
    lab.store.empty()


async def slow(lab: "Lab") -> None:
    """Let each answer take longer than a commit's interval."""
    _relay(lab, Behaviour(delay_s=0.7))
    await pass_while_away(lab)
    _relay(lab, PLAIN)


async def reset(lab: "Lab") -> None:
    """Reset connections in the middle of what is inserted, again and again."""
    async for _ in again_and_again(lab, DURING, CUT_S):
        _relay(lab, Behaviour(cut_after=lab.random.randint(*CUT_BYTES)))
    _relay(lab, PLAIN)


async def flap(lab: "Lab") -> None:
    """Reset connections while the server works: whether it has done it is unknown."""
    _relay(lab, Behaviour(delay_s=0.2))
    async for _ in again_and_again(lab, DURING, CUT_S):
        if lab.links.store is not None:
            lab.links.store.cut()
    _relay(lab, PLAIN)


async def make_older(lab: "Lab") -> None:
    """Stop it, and start it with tables that lack what the last releases brought.

    As from a backup of such a one. Only who is beside it can reach it meanwhile.
    """
    _relay(lab, Behaviour(refuses=True))
    if lab.links.store is not None:
        lab.links.store.cut()
    await lab.store.stop()
    await lab.store.start()
    await asyncio.to_thread(_take_away, lab.store.port)
    await pass_while_away(lab)
    _relay(lab, PLAIN)


def _take_away(port: int) -> None:
    """Take from the table what makes a record a checkpoint, and what the database knows of it."""
    with Client("127.0.0.1", port) as client:
        present = client.execute(
            "SELECT name FROM system.columns WHERE database = 'default' AND table = %(table)s",
            {"table": TABLE},
        )
        newer = {*RESIDUAL_CHECKPOINTS.values(), *PLAIN_CHECKPOINTS, checkpoint.BASES}
        found = [name for (name,) in present if name in newer]
        if not found:
            raise SystemRefused(f"{TABLE} has none of the columns that make a checkpoint")
        for name in found:
            client.execute(f"ALTER TABLE {TABLE} DROP COLUMN {name}")
        client.execute(f"TRUNCATE TABLE {VERSIONS}")


def _relay(lab: "Lab", behaviour: Behaviour) -> None:
    if lab.links.store is not None:
        lab.links.store.behaviour = behaviour


def _fault(about: str, run: Action, begin: float = 0.3) -> Fault:
    return Fault(about, run, begin, by_sums=True, links=True, server=True)


# A table reads best as one.
# fmt: off
FAULTS = {
    "store-stops": _fault("ClickHouse is stopped, and started again", ending(signal.SIGTERM)),
    "store-killed": _fault("ClickHouse is killed, and started again", ending(signal.SIGKILL)),
    "store-frozen": _fault("ClickHouse stands still for a quarter of the run", freeze),
    "store-slow": _fault("each answer of ClickHouse takes more than a second", slow),
    "store-resets": _fault("connections to ClickHouse are reset in an INSERT", reset, DURING[0]),
    "store-flaps": _fault("connections to ClickHouse are reset while it works", flap, DURING[0]),
    "store-read-only": _fault("ClickHouse takes nothing for a quarter of the run",
                              limiting("<readonly>1</readonly>")),
    "store-errors": _fault("ClickHouse fails half-way through what it is asked",
                           limiting("<max_memory_usage>100000</max_memory_usage>")),
    "store-older": _fault("ClickHouse comes back with the tables of an older release", make_older),
    "store-full": _fault("the disk of ClickHouse is full for a quarter of the run", fill),
}
# fmt: on
