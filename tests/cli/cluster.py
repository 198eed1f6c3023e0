"""The part of an API server that finds a Pod and forwards a port of it, on loopback.

The forwarding is that of the subresource portforward over a WebSocket (v4.channel.k8s.io): of each
port a channel of data and one of errors, which begin with the port's number; a byte before each
message says which channel it is of.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml
from aiohttp import WSMsgType, web

from waiting import PATIENCE_S

PROTOCOL = "v4.channel.k8s.io"
DATA, ERROR = b"\x00", b"\x01"


@dataclass
class ApiServer:
    """Answers who shows its token; `ports` are where the Pods' ports are on this machine."""

    token: str
    namespace: str
    pods: list[dict[str, Any]] = field(default_factory=list)
    ca: str = ""
    ports: dict[tuple[str, int], int] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)
    """Of pods, configmaps and portforward."""
    forwarded: int = 0
    url: str = ""

    def application(self) -> web.Application:
        made = web.Application()
        space = f"/api/v1/namespaces/{self.namespace}"
        made.router.add_get(f"{space}/pods", self._list)
        made.router.add_get(f"{space}/configmaps/flow-aggregator-ca", self._config_map)
        made.router.add_get(f"{space}/pods/{{pod}}/portforward", self._forward)
        return made

    def kubeconfig(self, **user: Any) -> str:
        """Return a kubeconfig with the contexts `here` and `elsewhere`, the latter the current."""
        return yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "elsewhere",
                "clusters": [
                    {"name": "c", "cluster": {"server": self.url}},
                    {"name": "gone", "cluster": {"server": "http://127.0.0.1:1"}},
                ],
                "users": [{"name": "u", "user": user or {"token": self.token}}],
                "contexts": [
                    {"name": "here", "context": {"cluster": "c", "user": "u"}},
                    {"name": "elsewhere", "context": {"cluster": "gone", "user": "u"}},
                ],
            }
        )

    def _refused(self, request: web.Request, what: str) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response({"kind": "Status", "code": 401}, status=401)
        if what in self.forbidden:
            return web.json_response({"kind": "Status", "code": 403}, status=403)
        return None

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request, "pods"):
            return refused
        key, _, value = request.query["labelSelector"].partition("=")
        items = [pod for pod in self.pods if pod["metadata"]["labels"].get(key) == value]
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "items": items})

    async def _config_map(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request, "configmaps"):
            return refused
        metadata = {"name": "flow-aggregator-ca", "namespace": self.namespace}
        return web.json_response({"metadata": metadata, "data": {"ca.crt": self.ca}})

    async def _forward(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request, "portforward"):
            return refused
        self.forwarded += 1
        port = int(request.query["ports"])
        socket = web.WebSocketResponse(protocols=[PROTOCOL])
        await socket.prepare(request)
        for channel in (DATA, ERROR):
            await socket.send_bytes(channel + port.to_bytes(2, "little"))
        try:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self.ports[request.match_info["pod"], port]
            )
        except (KeyError, OSError):
            await socket.send_bytes(ERROR + b"connection refused")
            return socket
        back = asyncio.ensure_future(_copy(reader, socket))
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY and message.data[:1] == DATA:
                    writer.write(message.data[1:])
                    await writer.drain()
        finally:
            back.cancel()
            writer.close()
        return socket


async def _copy(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    while data := await reader.read(8192):
        await socket.send_bytes(DATA + data)
    await socket.close()


def pod(name: str, *, ready: bool = True, port: int = 10348) -> dict[str, Any]:
    """Return a Pod of the aggregator."""
    return {
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "flow-aggregator"}},
        "spec": {"containers": [{"name": "c", "ports": [{"name": "api", "containerPort": port}]}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """Run it in a thread of its own."""
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(server.application(), shutdown_timeout=0.1, handler_cancellation=True)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()

    loop.run_until_complete(start())
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
