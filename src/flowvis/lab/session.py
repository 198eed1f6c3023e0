"""One run of the lab, from an empty private world to the verdict."""

import asyncio
import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from random import Random

from flowvis.clickhouse.roller import Roller
from flowvis.clickhouse.rollup_tables import differences
from flowvis.clickhouse.schema.rollups import HOURS
from flowvis.clickhouse.schema.tables import FLOWS_COLUMNS
from flowvis.clickhouse.store import StoreSettings, open_store
from flowvis.errors import StoreError
from flowvis.lab import alerts, configuration, exposed, network, sums, traffic
from flowvis.lab.clickhouse import ClickHouse
from flowvis.lab.cluster import ControlPlane
from flowvis.lab.configuration import AGGREGATOR, PAUSE_S, ROOM, TRACKING, Asked, exporter_name
from flowvis.lab.faults import FAULTS
from flowvis.lab.faults.fault import Fault
from flowvis.lab.links import Links
from flowvis.lab.measured import TIMES, Row, Run
from flowvis.lab.namespaces import set_sysctls
from flowvis.lab.options import Options
from flowvis.lab.plan import NODES
from flowvis.lab.processes import FLOWCTL, DaemonProcess
from flowvis.lab.prometheus import Prometheus
from flowvis.lab.recovery import Recovery, on_the_way
from flowvis.lab.report import Report
from flowvis.lab.rules import read_refused, read_witness
from flowvis.lab.scenarios import choose
from flowvis.lab.verdict import connection, judge

ASK_S = 1.0  # between two looks at what the store has

QUIET_S = 0.5  # after the last exchange: the last FIN and its ACK are on their way
MAX_ROWS = 1_000_000

STORE_PORTS = configuration.SERVER_RELAY_PORT, configuration.SERVER_PORT

Say = Callable[[str], None]


class Lab:
    """The two nodes, their traffic and the daemons that watch it."""

    def __init__(self, options: Options, say: Say) -> None:
        self._options = options
        self._say = say
        self._faults = [FAULTS[name] for name in options.faults]
        self._deaf = any(fault.deafens for fault in self._faults)
        self._split = any(fault.splits for fault in self._faults)
        self._by_sums = any(fault.by_sums for fault in self._faults)
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
        self.random = Random(options.seed)  # noqa: S311  when daemons die is no secret
        """For moments and choices of faults."""
        self.unseen: dict[str, int] = {}
        """Connections that a node's exporter says it has not seen, where a fault is about that."""
        self.store = ClickHouse(ROOM / "clickhouse", configuration.SERVER_PORT)
        """Runs where a fault wants a server."""
        self._server = any(fault.server for fault in self._faults)
        self._store_url = configuration.SERVER if self._server else configuration.EMBEDDED
        self._prometheus: Prometheus | None = None
        if options.rules:
            self._prometheus = Prometheus(ROOM / "prometheus", options.rules)
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
        links = any(fault.links for fault in self._faults)
        configuration.write(
            Asked(
                events=self._options.events,
                token=token,
                short_sessions=not self._options.keep,
                store=configuration.RELAYED_SERVER if links and self._server else self._store_url,
                aggregator=[fault.aggregator for fault in self._faults],
                exporter=[fault.exporter for fault in self._faults],
            )
        )
        if self._server:
            self.store.install()
            await self.store.start()
        self.links = Links(STORE_PORTS if self._server else None)
        if links:
            await self.links.open()
        await self.cluster.start(datetime.now(UTC))
        for fault in self._faults:
            if fault.prepare is not None:
                fault.prepare(self)
        if self._prometheus is not None:
            await self._prometheus.spawn()
        self._say("Starting flow-aggregator, and flow-exporter on each node")
        await self.aggregator.start()
        self.cluster.mount()
        async with asyncio.TaskGroup() as group:
            for exporter in self.exporters:
                group.create_task(exporter.start())
        if self._prometheus is not None:
            self._say("Waiting until Prometheus has scraped them")
            await self._prometheus.ready()
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

    @property
    def daemons(self) -> list[DaemonProcess]:
        """The aggregator and all exporters."""
        return [self.aggregator, *self.exporters]

    async def sessions(self) -> set[str]:
        """Return the exporters' sessions that the aggregator has; OSError where it is away."""
        found = await asyncio.to_thread(
            subprocess.run, [*FLOWCTL, "status", "-o", "json"], capture_output=True, check=False
        )
        if found.returncode:
            raise ConnectionError(found.stderr.decode(errors="replace"))
        return {session["peer"] for session in json.loads(found.stdout)["sessions"]}

    def note(self, what: str) -> None:
        """Say what a fault has shown, at once and in the report."""
        self._say(what)
        self._report.notes.append(what)

    async def close(self) -> Report:
        """End the daemons, read the store, and judge."""
        if self._by_sums:
            await self._recover()
        if self._prometheus is not None:
            found = await self._prometheus.found()
            await self._prometheus.stop()
            self._report.prometheus = found
            self._report.problems += alerts.judge(self._options.faults, found, self._options.rules)
        self._say("Ending the daemons; each hands on all that it has")
        for exporter in self.exporters:
            await self._stop(exporter)
        if not self._faults:  # counters of a daemon that was replaced begin anew
            self._report.problems += await exposed.differences(self.aggregator)
        await self._stop(self.aggregator)
        await self.cluster.server.stop()
        await self.links.close()
        rows = await asyncio.to_thread(_stored, self._store_url)
        self._report.problems += await asyncio.to_thread(_rolled, self._store_url)
        await self.store.stop()
        self._judge(rows)
        return self._report

    async def _recover(self) -> None:
        """Wait until the store has what was sent, or nothing more comes."""
        self._say("Waiting until the store has what was sent")
        recovery = Recovery(time.monotonic())
        while recovery.look(await self._missing(), await self._waiting(), time.monotonic()):  # noqa: ASYNC110  it has to be asked
            await asyncio.sleep(ASK_S)
        if recovery.missing == 0:
            self._report.recovered_s = round(time.monotonic() - recovery.began_s, 1)
        else:
            self._report.waiting = dict(recovery.waiting)

    async def _missing(self) -> int | None:
        """Return how many connections' sums in the store are not the truth; None: unknown."""
        answer = await self.ask(sums.QUESTION)
        if answer is None:
            return None
        return sums.missing(self._scenarios, self._witnesses(), sums.answered(answer))

    async def _waiting(self) -> dict[str, int]:
        """Return what is on the way to the store, by daemon and stage."""
        found: dict[str, int] = {}
        for daemon in self.daemons:
            try:
                metrics = await daemon.metrics()
            except OSError:
                found[f"{daemon.name}, no answer"] = 1
                continue
            for what, count in on_the_way(metrics).items():
                found[f"{daemon.name}, {what}"] = count
        return found

    async def ask(self, sql: str) -> list[list[object]] | None:
        """Return the rows that the store answers; None where it does not."""
        done = await asyncio.to_thread(
            subprocess.run,
            [*FLOWCTL, "sql", "-o", "json", sql],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            return None
        return [list(json.loads(line).values()) for line in done.stdout.splitlines()]

    def _witnesses(self) -> sums.Witnesses:
        clients = {scenario.client.host for scenario in self._scenarios}
        counted = {host: read_witness(host) for host in clients}
        return sums.less_refused(counted, read_refused())

    async def kill(self, daemon: DaemonProcess) -> None:
        """End a daemon by SIGKILL, and do not start it again."""
        self._report.deaths += 1
        await daemon.kill()

    async def terminate(self, daemon: DaemonProcess) -> None:
        """End a daemon by SIGTERM, whether it is ready or not, and do not start it again."""
        self._report.deaths += 1
        await self._stop(daemon, f" before {self._report.deaths}")

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
        if code == -signal.SIGTERM and which:
            return  # it had not yet begun
        self._report.ledgers[daemon.name + which] = daemon.closing_books()
        if code:
            self._report.problems.append(daemon.complain(f"ended with {code}"))

    def _judge(self, rows: Sequence[Row]) -> None:
        report = self._report
        witnesses = self._witnesses()
        if self._by_sums:
            report.findings = sums.judge(self._scenarios, witnesses, rows)
        else:
            report.findings = judge(self._scenarios, witnesses, rows, self._run())
        for fault in self._faults:
            report.problems += fault.judge(self, rows) if fault.judge else []
        report.named = sums.losses(report.ledgers)
        report.records = len(rows)
        report.flows = len({connection(row) for row in rows})
        both = [row for row in rows if row["originalFlowsPresent"] == 2]
        report.correlated = len({connection(row) for row in both})

    def _run(self) -> Run:
        deaf = (min(self._restarts_s), max(self._restarts_s)) if self._deaf else None
        return Run(
            round(self._began_s),
            round(time.time()),
            split=self._split,
            deaf=deaf,
            pauses=tuple(self._pauses),
        )


def _rolled(url: str) -> list[str]:
    """Return in what the store's roll-ups are not the sums of all its records.

    What the last aggregator had no time for is rolled before, as the next one would.
    """
    store = open_store(StoreSettings(database_url=url))
    try:
        store.migrate()
        if store.rollups is None:  # an older server
            return []
        asyncio.run(Roller(store, "lab").look(everything=True))
        hours = 0, HOURS.start_s(int(time.time())) + HOURS.step_s
        return [f"roll-ups: {difference}" for difference in differences(store.rollups, *hours)]
    except StoreError as error:
        return [f"roll-ups cannot be compared: {error}"]
    finally:
        store.close()


def _stored(url: str) -> list[Row]:
    """Return all records of the store, once nobody else has it open; times as seconds."""
    store = open_store(StoreSettings(database_url=url))
    chosen = (f"toUInt32({name})" if name in TIMES else name for name in FLOWS_COLUMNS)
    try:
        result = store.query(f"SELECT {', '.join(chosen)} FROM flows", max_rows=MAX_ROWS)  # noqa: S608  constants
    finally:
        store.close()
    return [dict(zip(FLOWS_COLUMNS, row, strict=True)) for row in result.rows]
