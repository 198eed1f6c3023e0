"""Debian's clickhouse-server as a process of the tests."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

from ports import free_port
from waiting import block_until

CONFIG = """<yandex>
<logger><level>warning</level><log>{path}/log</log><errorlog>{path}/errors</errorlog></logger>
<tcp_port>{port}</tcp_port><listen_host>127.0.0.1</listen_host>
{more}
<path>{path}/data/</path><tmp_path>{path}/tmp/</tmp_path>
<users_config>{path}/users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>67108864</mark_cache_size>
<timezone>UTC</timezone></yandex>"""

SECURE = """<tcp_port_secure>{port}</tcp_port_secure><openSSL><server>
<certificateFile>{certificate}</certificateFile><privateKeyFile>{key}</privateKeyFile>
<verificationMode>none</verificationMode></server></openSSL>"""

USERS = """<yandex><profiles><default>{profile}</default>
<limited><readonly>2</readonly><max_memory_usage>100000000</max_memory_usage></limited>
<fixed><readonly>1</readonly><max_memory_usage>100000000</max_memory_usage></fixed></profiles>
<users><default><password></password><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota></default>
<writer><password>secret</password><networks><ip>::/0</ip></networks><profile>default</profile>
<quota>default</quota></writer>
<limited><password>limited</password><networks><ip>::/0</ip></networks><profile>limited</profile>
<quota>default</quota></limited>
<fixed><password>fixed</password><networks><ip>::/0</ip></networks><profile>fixed</profile>
<quota>default</quota></fixed></users><quotas><default></default></quotas></yandex>"""


DYING_S = 5


class Server:
    """clickhouse-server on loopback, in a directory of its own."""

    def __init__(self, path: Path, tls: tuple[Path, Path] | None = None) -> None:
        self.path = path
        self.port = free_port()
        self.secure_port = free_port() if tls else 0
        self._process: subprocess.Popen[bytes] | None = None
        path.mkdir(parents=True, exist_ok=True)
        self.configure(
            SECURE.format(port=self.secure_port, certificate=tls[0], key=tls[1]) if tls else ""
        )

    def configure(self, more: str, profile: str = "") -> None:
        """Write the configuration, with some elements more."""
        (self.path / "users.xml").write_text(USERS.format(profile=profile))
        config = CONFIG.format(path=self.path, port=self.port, more=more)
        (self.path / "config.xml").write_text(config)

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.launch()
        self.wait()

    def launch(self) -> None:
        if self._process is not None:
            return
        program = shutil.which("clickhouse-server", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "these tests need Debian's clickhouse-server: apt install clickhouse-server"
        self._process = subprocess.Popen(
            [program, f"--config-file={self.path}/config.xml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self.path,
        )

    def wait(self) -> None:
        for port in filter(None, (self.port, self.secure_port)):
            self._wait(port)

    def _wait(self, port: int) -> None:
        def answers() -> bool:
            assert self._process
            assert self._process.poll() is None, self._errors()
            socket.create_connection(("127.0.0.1", port)).close()
            return True

        block_until(answers, self._errors, despite=(OSError,))

    def revive(self) -> None:
        """Launch it again if it is dying."""
        assert self._process
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(DYING_S)
            self._process = None
            self.launch()
        self.wait()

    def _errors(self) -> str:
        return (self.path / "errors").read_text()[-5000:]

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
