"""OpenSearch as a process of ours: one node on loopback."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from ports import free_port
from waiting import PATIENCE_S, block_until

JARS = Path(sys.prefix) / "opensearch"

SETTINGS = """\
discovery.type: single-node
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
path.data: {directory}/data
path.logs: {directory}/logs
cluster.routing.allocation.disk.threshold_enabled: false
node.store.allow_mmap: false
"""

LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %p %c %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""

MODULE = """\
name=transport-netty4
description=HTTP and the way between nodes
version={version}
opensearch.version={version}
java.version=11
classname=org.opensearch.transport.Netty4Plugin
has.native.controller=false
"""
"""Of a release; the jar by itself has none."""

SOCKETS = """\
grant codeBase "${codebase.netty-common}" {
  permission java.net.SocketPermission "*", "accept,connect,resolve";
};
grant codeBase "${codebase.netty-transport}" {
  permission java.net.SocketPermission "*", "accept,connect,resolve";
};
"""

MEMORY = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC")
QUICKLY = (
    "-XX:TieredStopAtLevel=1",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
)

WITHOUT_NATIVES = ("-Djna.nounpack=true", "-Djna.nosys=true")
"""By these it would see that we are root, who may not run it."""


class OpenSearch:
    """Runs in little memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._http = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Lay it out as a release is, start it, and wait until it answers."""
        assert JARS.is_dir(), f"no OpenSearch: run packages/jars opensearch {JARS}"
        module = self.directory / "modules" / "transport-netty4"
        module.mkdir(parents=True)
        (self.directory / "config").mkdir()
        here = {"http": self._http, "transport": free_port(), "directory": self.directory}
        (self.directory / "config" / "opensearch.yml").write_text(SETTINGS.format(**here))
        (self.directory / "config" / "log4j2.properties").write_text(LOGGING)
        ours = []
        for jar in JARS.glob("*.jar"):
            if jar.name.startswith(("netty-", "transport-netty4-")):
                # No link: it may read what is in its directory only, and what is under /tmp.
                shutil.copy(jar, module)
            else:
                ours.append(str(jar))
        (version,) = (each.removeprefix("opensearch-") for each in _versions())
        (module / "plugin-descriptor.properties").write_text(MODULE.format(version=version))
        (module / "plugin-security.policy").write_text(SOCKETS)
        command = [
            *("java", *MEMORY, *QUICKLY, *WITHOUT_NATIVES, "-Djava.security.manager=allow"),
            f"-Dopensearch.path.home={self.directory}",
            f"-Dopensearch.path.conf={self.directory}/config",
            *("-cp", ":".join(sorted(ours)), "org.opensearch.bootstrap.OpenSearch"),
        ]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory
            )
        block_until(self._answers, self._log, despite=(OSError,))

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request with JSON; return the answer's. An error is an AssertionError with it."""
        data = json.dumps(body).encode() if body is not None else None
        return self._send(method, path, data)

    def write(self, documents: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Put documents into indices; each has to be taken."""
        lines = []
        for index, document in documents:
            lines += [json.dumps({"index": {"_index": index}}), json.dumps(document)]
        answer = self._send("POST", "/_bulk?refresh=true", "\n".join([*lines, ""]).encode())
        assert not answer["errors"], answer

    def _send(self, method: str, path: str, data: bytes | None) -> Any:
        url = f"http://127.0.0.1:{self._http}{path}"
        request = Request(url, data, {"content-type": "application/json"}, method=method)
        try:
            with urlopen(request, timeout=PATIENCE_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise AssertionError(error.read()) from error

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        return bool(self.ask("GET", "/"))

    def _log(self) -> str:
        return (self.directory / "log").read_text()[-3000:]


def _versions() -> set[str]:
    """The name of the server's own jar."""
    return {jar.stem for jar in JARS.glob("opensearch-[0-9]*.jar")}
