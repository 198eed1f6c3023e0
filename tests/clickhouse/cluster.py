"""A cluster of real servers on loopback: shards with replicas, and what coordinates them."""

import itertools
import logging
import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path

from clickhouse_driver import Client
from clickhouse_driver.errors import Error

from ports import free_port
from waiting import block_until

from .server import Server

logger = logging.getLogger(__name__)

NAME = "flows-cluster"
ATTEMPTS = 5
OBEYING_S = 60  # of which 18.16 takes half: time to do what the cluster is asked to
LIBRARY = Path("/usr/share/java/zookeeper.jar")  # its manifest names what else it needs
COORDINATOR = """tickTime=500
dataDir={path}
clientPortAddress=127.0.0.1
clientPort={port}
admin.enableServer=false
"""

REPLICATED = """<macros><shard>{shard}</shard><replica>{replica}</replica></macros>
<interserver_http_port>{interserver}</interserver_http_port>
<interserver_http_host>127.0.0.1</interserver_http_host>
<zookeeper><node><host>127.0.0.1</host><port>{coordinator}</port></node>
<session_timeout_ms>10000</session_timeout_ms></zookeeper>
<distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
<remote_servers><{name}>{shards}</{name}></remote_servers>
<merge_tree>{merge_tree}</merge_tree>"""

# A part that was a repetition stays on the disk for some minutes: after a crash it is not known to
# the coordinator, and so much of a small table that the server would ask people what to do.
SANITY = "<replicated_max_ratio_of_wrong_parts>1</replicated_max_ratio_of_wrong_parts>"

# What tables do not set themselves: newer servers forget which blocks they have after an hour.
FORGETFUL = (
    "<replicated_deduplication_window_seconds>1</replicated_deduplication_window_seconds>"
    "<cleanup_delay_period>1</cleanup_delay_period>"
    "<cleanup_delay_period_random_add>0</cleanup_delay_period_random_add>"
)

# Statements ON CLUSTER are executed with the settings of the server's own profile.
PROFILE = "<allow_experimental_low_cardinality_type>1</allow_experimental_low_cardinality_type>"


class Coordinator:
    """ZooKeeper, of which ClickHouse Keeper speaks the protocol."""

    def __init__(self, path: Path) -> None:
        self.port = free_port()
        self._path = path
        path.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert shutil.which("java"), "these tests need Java: apt install default-jre-headless"
        assert LIBRARY.exists(), "these tests need ZooKeeper: apt install libzookeeper-java"
        configuration = self._path / "zoo.cfg"
        configuration.write_text(COORDINATOR.format(path=self._path / "data", port=self.port))
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        with (self._path / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "java",
                    "-Xmx256m",
                    "-Dzookeeper.forceSync=no",
                    "-cp",
                    LIBRARY,
                    main,
                    configuration,
                ],
                stdout=log,
                stderr=log,
                cwd=self._path,
            )
        block_until(self._answers, self._log, despite=(OSError,))

    def _log(self) -> str:
        return (self._path / "log").read_text()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        with socket.create_connection(("127.0.0.1", self.port), 2) as probe:
            probe.sendall(b"srvr")  # which it only answers in full once it serves
            return b"Mode: " in b"".join(iter(lambda: probe.recv(4096), b""))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Cluster:
    """Servers by (shard, replica), both counted from 0."""

    def __init__(self, path: Path, coordinator: Coordinator, shards: int, replicas: int) -> None:
        self._asked = itertools.count()
        self.servers = {
            (shard, replica): Server(path / f"{shard}-{replica}")
            for shard in range(shards)
            for replica in range(replicas)
        }
        layout = "".join(
            "<shard><internal_replication>true</internal_replication>"
            + "".join(
                f"<replica><host>127.0.0.1</host><port>{self.servers[shard, replica].port}</port>"
                "</replica>"
                for replica in range(replicas)
            )
            + "</shard>"
            for shard in range(shards)
        )
        for (shard, replica), server in self.servers.items():
            server.configure(
                REPLICATED.format(
                    shard=shard,
                    replica=replica,
                    interserver=free_port(),
                    coordinator=coordinator.port,
                    name=NAME,
                    shards=layout,
                    merge_tree=SANITY + FORGETFUL,
                ),
                PROFILE,
            )

    def start(self) -> None:
        for server in self.servers.values():
            server.launch()
        for server in self.servers.values():
            server.wait()
        for server in self.servers.values():
            self._begin(server)

    def _begin(self, server: Server) -> None:
        """Have a server's first statement for the cluster behind it: 18.16 may crash over it.

        It has no session with ZooKeeper yet, and at load takes it for one.
        """
        for _ in range(ATTEMPTS):
            try:
                _ask_all(server, "beginning")
            except (Error, EOFError, OSError):
                server.revive()
            else:
                return

    def mend(self) -> None:
        """Start servers anew that do not what the cluster is asked to any more.

        Where its session with ZooKeeper expires, what executes such statements in 18.16 may end or
        hang for good; the server answers as ever.
        """
        name = f"asked{next(self._asked)}"
        try:
            _ask_all(self.servers[0, 0], name, OBEYING_S)
        except Error as error:
            logger.warning("not all servers have %s: %s", name, str(error).partition("Stack")[0])
        for server in self.servers.values():
            if not _has(server, name):
                logger.warning("%s is started anew", server.path)
                server.kill()
                server.start()
                block_until(partial(_has, server, name), despite=(Error,))

    def sync(self, database: str) -> None:
        """Wait until every replica has what its shard has."""
        for server in self.servers.values():
            with Client("127.0.0.1", server.port) as client:
                client.execute(f"SYSTEM SYNC REPLICA {database}.flow_records_local")

    def kill(self) -> None:
        for server in self.servers.values():
            server.kill()


def _ask_all(server: Server, name: str, patience_s: int = 0) -> None:
    """Have all servers of the cluster make a database; 0: as long as the server waits."""
    settings = {"distributed_ddl_task_timeout": patience_s} if patience_s else {}
    with Client("127.0.0.1", server.port) as client:
        sql = f"CREATE DATABASE IF NOT EXISTS {name} ON CLUSTER '{NAME}'"
        client.execute(sql, settings=settings)


def _has(server: Server, name: str) -> bool:
    with Client("127.0.0.1", server.port) as client:
        return bool(client.execute(f"SELECT 1 FROM system.databases WHERE name = '{name}'"))
