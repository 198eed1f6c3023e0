"""One run of the lab, from an empty private world to the verdict."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flowvis.clickhouse.schema.tables import FLOWS_COLUMNS
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.lab import configuration, network, traffic
from flowvis.lab.cluster import ControlPlane
from flowvis.lab.configuration import AGGREGATOR, PAUSE_S, TRACKING, exporter_name
from flowvis.lab.faults import FAULTS, Fault
from flowvis.lab.measured import TIMES, Row, Run
from flowvis.lab.namespaces import set_sysctls
from flowvis.lab.options import Options
from flowvis.lab.plan import NODES
from flowvis.lab.processes import FLOWCTL, DaemonProcess
from flowvis.lab.report import Report
from flowvis.lab.rules import read_witness
from flowvis.lab.scenarios import choose
from flowvis.lab.verdict import connection, judge

QUIET_S = 0.5  # after the last exchange: the last FIN and its ACK are on their way
MAX_ROWS = 1_000_000

Say = Callable[[str], None]


class Lab:
    """The two nodes, their traffic and the daemons that watch it."""

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self._faults = [FAULTS[name] for name in options.faults]
        self._deaf = any(fault.deafens for fault in self._faults)
        self._split = any(fault.splits for fault in self._faults)
        # A refusal ends what the kernel has just begun: only an event reports it, in one record of
        # each node, which must meet in one aggregator.
        brief = options.events and not self._split
        self._scenarios = choose(options.scenarios, options.faults, deaf=self._deaf, brief=brief)
        self._report = Report()
        self._began_s = 0.0
        self._restarts_s: list[float] = []
        """When daemons were ended, and when they were there again."""
        self._pauses: list[tuple[float, float]] = []
        self.duration_s = options.duration_s
        self.cluster = ControlPlane()
        self.aggregator = DaemonProcess(AGGREGATOR, "flowvis.cli.aggregator", "")
        self.exporters = [
            DaemonProcess(exporter_name(node), "flowvis.cli.exporter", node.name) for node in NODES
        ]

    async def open(self, token: str = "") -> None:
        """Build the network and start the daemons; whoever has the token may ask them."""
        self._say("Building two nodes with Pods, Services and a host outside")
        await asyncio.to_thread(network.build)  # pyroute2 wants an event loop of its own
        if self._options.events and not self._deaf:
            # Nobody hears the events while an exporter is away: what it misses must stay listed.
            for node in NODES:
                set_sysctls(node.name, TRACKING)
        configuration.write(events=self._options.events, token=token)
        await self.cluster.start(datetime.now(UTC))
        self._say("Starting flow-aggregator, and flow-exporter on each node")
        await self.aggregator.start()
        self.cluster.mount()
        async with asyncio.TaskGroup() as group:
            for exporter in self.exporters:
                group.create_task(exporter.start())
        names = ", ".join(scenario.name for scenario in self._scenarios)
        self._say(f"Traffic for {self.duration_s:g} s: {names}")

    async def have_traffic(self) -> None:
        """Run the scenarios, and what is to go wrong meanwhile."""
        self._began_s = self._began_s or time.time()
        self.cluster.seat(heirs=False)
        async with traffic.servers(), asyncio.TaskGroup() as group:
            group.create_task(self._rounds())
            group.create_task(self._bring_in_heirs())
            for name, fault in zip(self._options.faults, self._faults, strict=True):
                if fault.run is not None:
                    group.create_task(self._go_wrong(f"{name}: {fault.about}", fault))
        await asyncio.sleep(QUIET_S)

    async def _rounds(self) -> None:
        await traffic.run(self._scenarios, self.duration_s)
        again = [scenario for scenario in self._scenarios if scenario.goes_on]
        for number in range(2, self._options.rounds + 1):
            began_s = time.time()
            await asyncio.sleep(PAUSE_S)
            self._pauses.append((began_s, time.time()))
            self._say(f"Round {number}: " + ", ".join(scenario.name for scenario in again))
            await traffic.run(again, self.duration_s)

    async def _bring_in_heirs(self) -> None:
        """Give addresses of Pods to others, after the calls to the one and before the other's."""
        await asyncio.sleep(self.duration_s / 2)
        self.cluster.seat(heirs=True)

    async def _go_wrong(self, what: str, fault: Fault) -> None:
        await asyncio.sleep(fault.begin * self.duration_s)
        self._say(what)
        if fault.run is not None:
            await fault.run(self)

    async def sessions(self) -> set[str]:
        """Return the exporters' sessions that the aggregator has."""
        found = await asyncio.to_thread(
            subprocess.run, [*FLOWCTL, "status", "-o", "json"], capture_output=True, check=False
        )
        return {session["peer"] for session in json.loads(found.stdout)["sessions"]}

    async def close(self) -> Report:
        """End the daemons, read the store, and judge."""
        self._say("Ending the daemons; each hands on all that it has")
        for exporter in self.exporters:
            await self._stop(exporter)
        await self._stop(self.aggregator)
        await self.cluster.server.stop()
        rows = await asyncio.to_thread(_stored)
        self._judge(rows)
        return self._report

    async def restart(self, daemons: Sequence[DaemonProcess]) -> None:
        """End daemons by SIGTERM and start them again."""
        self._restarts_s.append(time.time())
        async with asyncio.TaskGroup() as group:
            for daemon in daemons:
                group.create_task(self._replace(daemon))
        self._restarts_s.append(time.time())

    async def _replace(self, daemon: DaemonProcess) -> None:
        await self._stop(daemon, " before")
        await daemon.start()

    async def _stop(self, daemon: DaemonProcess, which: str = "") -> None:
        code = await daemon.stop()
        self._report.ledgers[daemon.name + which] = daemon.closing_books()
        if code:
            self._report.problems.append(daemon.complain(f"ended with {code}"))

    def _judge(self, rows: Sequence[Row]) -> None:
        report = self._report
        clients = {scenario.client.host for scenario in self._scenarios}
        witnesses = {host: read_witness(host) for host in clients}
        deaf = (min(self._restarts_s), max(self._restarts_s)) if self._deaf else None
        run = Run(
            round(self._began_s),
            round(time.time()),
            split=self._split,
            deaf=deaf,
            pauses=tuple(self._pauses),
        )
        report.findings = judge(self._scenarios, witnesses, rows, run)
        report.records = len(rows)
        report.flows = len({connection(row) for row in rows})
        both = [row for row in rows if row["originalFlowsPresent"] == 2]
        report.correlated = len({connection(row) for row in both})


def _stored() -> list[Row]:
    """Return all records of the store, once nobody else has it open; times as seconds."""
    store = open_store(StoreSettings(database_url=configuration.STORE))
    chosen = (f"toUInt32({name})" if name in TIMES else name for name in FLOWS_COLUMNS)
    try:
        result = store.query(f"SELECT {', '.join(chosen)} FROM flows", max_rows=MAX_ROWS)  # noqa: S608  constants
    finally:
        store.close()
    return [dict(zip(FLOWS_COLUMNS, row, strict=True)) for row in result.rows]
