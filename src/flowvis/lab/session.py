"""One run of the lab, from an empty private world to the verdict."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.lab import configuration, network, traffic
from flowvis.lab.configuration import AGGREGATOR, TRACKING, exporter_name
from flowvis.lab.namespaces import set_sysctls
from flowvis.lab.options import Options
from flowvis.lab.plan import NODES
from flowvis.lab.processes import Daemon
from flowvis.lab.report import Report
from flowvis.lab.rules import read_witness
from flowvis.lab.scenarios import choose
from flowvis.lab.verdict import COLUMNS, Row, connection, judge

QUIET_S = 0.5  # after the last exchange: the last FIN and its ACK are on their way
MAX_ROWS = 1_000_000

Say = Callable[[str], None]


class Lab:
    """The two nodes, their traffic and the daemons that watch it."""

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self._scenarios = choose(options.scenarios)
        self._report = Report()
        self.aggregator = Daemon(AGGREGATOR, "flowvis.cli.aggregator", "")
        self.exporters = [
            Daemon(exporter_name(node), "flowvis.cli.exporter", node.name) for node in NODES
        ]

    async def open(self) -> None:
        """Build the network and start the daemons."""
        self._say("Building two nodes with Pods, Services and a host outside")
        await asyncio.to_thread(network.build)  # pyroute2 wants an event loop of its own
        if self._options.events and self._options.restart != "exporter":
            # Nobody hears the events while an exporter is away: what it misses must stay listed.
            for node in NODES:
                set_sysctls(node.name, TRACKING)
        configuration.write(datetime.now(UTC), events=self._options.events)
        self._say("Starting flow-aggregator, and flow-exporter on each node")
        async with asyncio.TaskGroup() as group:
            for daemon in (self.aggregator, *self.exporters):
                group.create_task(daemon.start())
        names = ", ".join(scenario.name for scenario in self._scenarios)
        self._say(f"Traffic for {self._options.duration_s:g} s: {names}")

    async def have_traffic(self) -> None:
        """Run the scenarios, with a restart in the middle if one is wanted."""
        duration_s = self._options.duration_s
        async with traffic.servers(), asyncio.TaskGroup() as group:
            group.create_task(traffic.run(self._scenarios, duration_s))
            if self._options.restart:
                await asyncio.sleep(duration_s / 2)
                await self._restart()
        await asyncio.sleep(QUIET_S)

    async def close(self) -> Report:
        """End the daemons, read the store, and judge."""
        self._say("Ending the daemons; each hands on all that it has")
        for exporter in self.exporters:
            await self._stop(exporter)
        await self._stop(self.aggregator)
        rows = await asyncio.to_thread(_stored)
        self._judge(rows)
        return self._report

    async def _restart(self) -> None:
        chosen = [self.aggregator] if self._options.restart == "aggregator" else self.exporters
        self._say(f"Restarting {' and '.join(daemon.name for daemon in chosen)}")
        async with asyncio.TaskGroup() as group:
            for daemon in chosen:
                group.create_task(self._replace(daemon))

    async def _replace(self, daemon: Daemon) -> None:
        await self._stop(daemon, " before")
        await daemon.start()

    async def _stop(self, daemon: Daemon, which: str = "") -> None:
        code = await daemon.stop()
        self._report.ledgers[daemon.name + which] = daemon.closing_books()
        if code:
            self._report.problems.append(daemon.complain(f"ended with {code}"))

    def _judge(self, rows: Sequence[Row]) -> None:
        report = self._report
        clients = {scenario.client.host for scenario in self._scenarios}
        witnesses = {host: read_witness(host) for host in clients}
        report.findings = judge(
            self._scenarios, witnesses, rows, split=self._options.restart == "aggregator"
        )
        report.records = len(rows)
        report.flows = len({connection(row) for row in rows})
        both = [row for row in rows if row["originalFlowsPresent"] == 2]
        report.correlated = len({connection(row) for row in both})


def _stored() -> list[Row]:
    """Return all records of the store, once nobody else has it open."""
    store = open_store(StoreSettings(database_url=configuration.STORE))
    try:
        result = store.query(f"SELECT {', '.join(COLUMNS)} FROM flows", max_rows=MAX_ROWS)  # noqa: S608  constants
    finally:
        store.close()
    return [dict(zip(result.names, row, strict=True)) for row in result.rows]
