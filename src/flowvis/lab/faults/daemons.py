"""Faults of the daemons themselves: they end, in order or by kill -9, or stand still."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from flowvis.lab.faults.fault import Action, Fault, pass_while_away
from flowvis.lab.processes import DaemonProcess

if TYPE_CHECKING:
    from flowvis.lab.session import Lab

Choose = Callable[["Lab"], Sequence[DaemonProcess]]

CALM_S = (0.5, 4.0)  # between two deaths of daemons: sessions, polls and commits take a second
AWAY_S = 1.5  # at most, until a kubelet starts it again
BEGIN, END = 0.1, 0.8  # of the run


async def restart_aggregator(lab: "Lab") -> None:
    """End the aggregator in order and start it again."""
    await lab.restart([lab.aggregator])


async def restart_exporters(lab: "Lab") -> None:
    """End all exporters in order and start them again."""
    await lab.restart(lab.exporters)


def killing(
    choose: Choose,
) -> Action:
    """Return a fault: kill -9 of one of these daemons after the other, at random moments."""

    async def run(lab: "Lab") -> None:
        await _at_random(lab, choose(lab), lab.kill)

    return run


def terminating(
    choose: Choose,
) -> Action:
    """Return a fault: SIGTERM instead, as a rollout sends it."""

    async def run(lab: "Lab") -> None:
        await _at_random(lab, choose(lab), lab.terminate)

    return run


def freezing(
    choose: Choose,
) -> Action:
    """Return a fault: these daemons stand still for a part of the run, as under CPU throttling."""

    async def run(lab: "Lab") -> None:
        daemons = choose(lab)
        for daemon in daemons:
            daemon.send(signal.SIGSTOP)
        try:
            await pass_while_away(lab)
        finally:
            for daemon in daemons:
                daemon.send(signal.SIGCONT)

    return run


async def _at_random(
    lab: "Lab", daemons: Sequence[DaemonProcess], end: Callable[[DaemonProcess], Awaitable[None]]
) -> None:
    """End one after the other until the run is nearly over; some before they are ready again."""
    random, loop = lab.random, asyncio.get_running_loop()
    over = loop.time() + (END - BEGIN) * lab.duration_s
    while True:
        await asyncio.sleep(random.uniform(*CALM_S))
        if loop.time() > over:
            break
        daemon = random.choice(daemons)
        await end(daemon)
        await asyncio.sleep(random.uniform(0, AWAY_S))
        daemon.spawn()
        if random.random() < 0.75:
            await daemon.ready()
    for daemon in daemons:
        await daemon.ready()


def _all(lab: "Lab") -> Sequence[DaemonProcess]:
    return lab.daemons


def _aggregator(lab: "Lab") -> Sequence[DaemonProcess]:
    return [lab.aggregator]


def _exporters(lab: "Lab") -> Sequence[DaemonProcess]:
    return lab.exporters


# A table reads best as one.
# fmt: off
FAULTS = {
    "kill-aggregator": Fault("kill -9 of the aggregator at random moments, again and again",
                             killing(_aggregator), BEGIN, splits=True, by_sums=True),
    "kill-exporter": Fault("kill -9 of exporters at random moments, again and again",
                           killing(_exporters), BEGIN, deafens=True, by_sums=True),
    "kill-any": Fault("kill -9 of any daemon at random moments, again and again",
                      killing(_all), BEGIN, splits=True, deafens=True, by_sums=True),
    "terminate-any": Fault("SIGTERM to any daemon at random moments, again and again",
                           terminating(_all), BEGIN, splits=True, deafens=True, by_sums=True),
    "frozen-aggregator": Fault("SIGSTOP of the aggregator for a quarter of the run",
                               freezing(_aggregator), 0.3, by_sums=True),
    "frozen-exporters": Fault("SIGSTOP of all exporters for a quarter of the run",
                              freezing(_exporters), 0.3, deafens=True, by_sums=True),
}
# fmt: on
