"""A stand-in API server: real HTTP(S) with lists, watches, bookmarks, and faults on demand.

Objects are put into it as plain dicts. Each change has a version; a watch from a version gets what
changed since, or 410 where that was forgotten. Whoever shows a known token may do everything.
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from flowvis.inventory.resources import (
    CONFIG_MAPS,
    EGRESSES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    SECRETS,
    SERVICES,
)

CORE = (PODS, SERVICES, NODES, NAMESPACES, CONFIG_MAPS, SECRETS)
OPTIONAL = (*POLICIES, EGRESSES)
PLURALS = {resource.kind: resource.plural for resource in (*CORE, LEASES, *OPTIONAL)}
LISTING_PODS = "list", "", "pods"
Fault = Callable[[web.Request], "web.Response | None"]


@dataclass
class Faults:
    """What goes wrong; set it while the server runs."""

    answer: Fault | None = None
    """May answer in the server's stead."""
    garbage: bytes = b""
    """Sent into every watch in place of the next event."""
    expire_pages: int = 0
    """How many more continued lists find their token expired."""
    delay_s: float = 0.0
    """Between the bytes of an event, in eight pieces."""


@dataclass
class User:
    """Whose a token is, and where they may list Pods; None: in all namespaces."""

    name: str
    namespaces: set[str] | None = field(default_factory=set)
    groups: tuple[str, ...] = ("system:authenticated",)


@dataclass
class ApiServer:
    """Run it with `start`; `url` and `port` are its own from then on."""

    tokens: set[str] = field(default_factory=set)
    """The accepted ones; any, or none, where empty."""
    users: dict[str, User] = field(default_factory=dict)
    """By their tokens: of whom TokenReviews and SubjectAccessReviews know."""
    tls: ssl.SSLContext | None = None
    served: dict[str, set[str]] = field(default_factory=dict)
    """Plurals that each group's version has: {"crd.antrea.io/v1beta1": {"tiers"}}."""
    faults: Faults = field(default_factory=Faults)
    host: str = "127.0.0.1"
    port: int = 0
    version: int = 100
    objects: dict[tuple[str, str, str, str], dict[str, Any]] = field(default_factory=dict)
    """By apiVersion, plural, namespace, name."""
    log: list[tuple[int, str, str, dict[str, Any]]] = field(default_factory=list)
    """Version, list (apiVersion/plural), type and object of each change."""
    forgotten: int = 0
    """Watches from versions before this one are too old."""
    requests: list[web.Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self.reviews: list[dict[str, Any]] = []
        """What was asked about users, each with its answer."""
        self._lists: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        self._watching: list[web.Request] = []

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"

    @property
    def watching(self) -> int:
        """How many watches are open."""
        return len(self._watching)

    async def start(self) -> None:
        """Listen; at the same port again where it was stopped before."""
        app = web.Application()
        of_core = "/api/{version:v1}/namespaces/{namespace}"
        of_group = "/apis/{version:[^/]+/[^/]+}/namespaces/{namespace}"
        written = (of_core + "/{plural:configmaps|secrets}", of_group + "/{plural:leases}")
        for one in written:
            app.router.add_post(one, self._write)
            app.router.add_put(one + "/{name}", self._write)
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self._whose)
        app.router.add_post("/apis/authorization.k8s.io/v1/subjectaccessreviews", self._may)
        for within in (of_core, of_group):
            app.router.add_get(within + "/{plural}/{name}", self._read)
        app.router.add_get("/{path:.*}", self._serve)
        self._runner = web.AppRunner(
            app, shutdown_timeout=0.1, access_log=None, handler_cancellation=True
        )
        await self._runner.setup()
        self._site = web.TCPSite(
            self._runner, self.host, self.port, ssl_context=self.tls, reuse_address=True
        )
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """As if killed: connections end in the middle of what they were at."""
        if self._runner is not None and self._site is not None:
            await self._site.stop()
            for request in list(self._watching):
                if request.transport is not None:
                    request.transport.abort()
            await self._runner.cleanup()
            self._runner = None

    def put(self, item: Mapping[str, Any], api_version: str = "v1") -> None:
        """Create or change an object."""
        place = _place(item, api_version)
        self._note("MODIFIED" if place in self.objects else "ADDED", place, item)

    def remove(self, item: Mapping[str, Any], api_version: str = "v1") -> None:
        """Delete an object."""
        place = _place(item, api_version)
        self._note("DELETED", place, self.objects[place])

    def forget(self) -> None:
        """Forget all versions up to now, as etcd does when compacted."""
        self.version += 1
        self.forgotten = self.version
        self.log.clear()

    def bookmark(self, kind: str, api_version: str = "v1") -> None:
        """Tell the watches of a kind how far they have come."""
        self.version += 1
        item = {"kind": kind, "metadata": {"resourceVersion": str(self.version)}}
        self._tell("BOOKMARK", f"{api_version}/{PLURALS[kind]}", item)

    def break_off(self, kind: str, code: int, api_version: str = "v1") -> None:
        """End a watch of a kind with an error."""
        self.version += 1
        error = {"kind": "Status", "code": code, "message": "so it is"}
        self._tell("ERROR", f"{api_version}/{PLURALS[kind]}", error)

    @contextmanager
    def failing(self, answer: Fault) -> Iterator[None]:
        """Let `answer` answer while the body runs."""
        before, self.faults.answer = self.faults.answer, answer
        yield
        self.faults.answer = before

    def _note(self, event: str, place: tuple[str, str, str, str], item: Mapping[str, Any]) -> None:
        self.version += 1
        metadata = {**item["metadata"], "resourceVersion": str(self.version)}
        stored = {**item, "metadata": metadata}
        if event == "DELETED":
            del self.objects[place]
        else:
            self.objects[place] = stored
        self._tell(event, f"{place[0]}/{place[1]}", stored)

    def _tell(self, event: str, listed: str, item: dict[str, Any]) -> None:
        self.log.append((self.version, listed, event, item))
        self._changed.set()
        self._changed = asyncio.Event()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if (refused := self._refused(request)) is not None:
            return refused
        path = request.path.strip("/").split("/")
        parts = 3 if path[0] == "apis" else 2
        within = parts + 2 * (len(path) > parts + 2)  # namespaces/<namespace>/<plural>
        return await self._answer(request, "/".join(path[1:parts]), "/".join(path[within:]))

    async def _read(self, request: web.Request) -> web.StreamResponse:
        """Answer with one object."""
        if (refused := self._refused(request)) is not None:
            return refused
        found = self.objects.get(_named(request))
        return web.json_response(found) if found else status(404, f"{request.path} not found")

    async def _write(self, request: web.Request) -> web.StreamResponse:
        """Create an object, or replace one of the version that the new one names."""
        if (refused := self._refused(request)) is not None:
            return refused
        item = await request.json()
        about = item["metadata"]
        place = (*_named(request)[:3], about["name"])
        found = self.objects.get(place)
        if request.method == "POST":
            if found is not None:
                return status(409, f"{place[1]} {about['name']!r} already exists")
        elif found is None:
            return status(404, f"{place[1]} {about['name']!r} not found")
        elif about.get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return status(409, "the object has been modified; please apply your changes to it")
        self._note("ADDED" if found is None else "MODIFIED", place, item)
        return web.json_response(self.objects[place], status=201 if found is None else 200)

    async def _whose(self, request: web.Request) -> web.Response:
        """Review a token."""
        review = await request.json()
        user = self.users.get(review["spec"]["token"])
        if user is None:
            return self._reviewed(request, review, {"authenticated": False, "error": "unknown"})
        described = {"username": user.name, "uid": f"uid of {user.name}", "groups": [*user.groups]}
        return self._reviewed(request, review, {"authenticated": True, "user": described})

    async def _may(self, request: web.Request) -> web.Response:
        """Review whether a user may list the Pods of a namespace, or of all."""
        review = await request.json()
        spec = review["spec"]
        asked = spec["resourceAttributes"]
        users = {user.name: user for user in self.users.values()}
        user = users.get(spec["user"])
        of_user = user is not None and list(user.groups) == spec.get("groups")
        what = asked["verb"], asked.get("group", ""), asked["resource"]
        namespace = asked.get("namespace", "")
        within = user is not None and (
            user.namespaces is None or (bool(namespace) and namespace in user.namespaces)
        )
        return self._reviewed(
            request, review, {"allowed": of_user and within and what == LISTING_PODS}
        )

    def _reviewed(
        self, request: web.Request, review: dict[str, Any], found: dict[str, Any]
    ) -> web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        self.reviews.append(review | {"status": found})
        return web.json_response(self.reviews[-1], status=201)

    def _refused(self, request: web.Request) -> web.Response | None:
        self.requests.append(request)
        fault = self.faults.answer(request) if self.faults.answer else None
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if fault is None and self.tokens and token not in self.tokens:
            return status(401, "Unauthorized")
        return fault

    async def _answer(
        self, request: web.Request, api_version: str, plural: str
    ) -> web.StreamResponse:
        core = {"v1": {resource.plural for resource in CORE}}
        plurals = (core | self.served).get(api_version)
        if plurals is None or (plural and plural not in plurals):
            return status(404, "the server could not find the requested resource")
        if not plural:
            return web.json_response({"resources": [{"name": name} for name in sorted(plurals)]})
        if request.query.get("watch") == "1":
            return await self._watch(request, api_version, plural)
        return self._list(request, api_version, plural)

    def _list(self, request: web.Request, api_version: str, plural: str) -> web.Response:
        version, start = str(self.version), 0
        if "continue" in request.query:
            if self.faults.expire_pages:
                self.faults.expire_pages -= 1
                return status(410, "The provided continue parameter is too old")
            version, _, text = request.query["continue"].partition(":")
            start = int(text)
        key = (version, request.path, request.query.get("fieldSelector", ""))
        chosen = self._lists.get(key)
        if chosen is None:
            chosen = self._lists[key] = [
                item
                for place, item in sorted(self.objects.items())
                if place[:2] == (api_version, plural) and _selected(request, item)
            ]
        limit = int(request.query.get("limit", "0")) or len(chosen)
        metadata = {"resourceVersion": version}
        if start + limit < len(chosen):
            metadata["continue"] = f"{version}:{start + limit}"
        else:
            del self._lists[key]
        # The items of a typed list have neither kind nor apiVersion.
        items = [
            {key: value for key, value in item.items() if key not in {"kind", "apiVersion"}}
            for item in chosen[start : start + limit]
        ]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items})

    async def _watch(
        self, request: web.Request, api_version: str, plural: str
    ) -> web.StreamResponse:
        done = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if done < self.forgotten:
            error = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}
            await response.write(_line("ERROR", error))
            return response
        self._watching.append(request)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", "300"))):
                while True:
                    changed = self._changed
                    for change in list(self.log):
                        version, listed, event, item = change
                        if version > done and listed == f"{api_version}/{plural}":
                            await self._send(request, response, event, item)
                            done = version
                            if event == "ERROR":
                                self.log.remove(change)
                                return response
                    await changed.wait()
        except TimeoutError:
            return response
        finally:
            self._watching.remove(request)

    async def _send(
        self, request: web.Request, response: web.StreamResponse, event: str, item: dict[str, Any]
    ) -> None:
        if event not in {"BOOKMARK", "ERROR"} and not _selected(request, item):
            return
        line = self.faults.garbage or _line(event, item)
        pieces = 8 if self.faults.delay_s else 1
        size = -(-len(line) // pieces)
        for start in range(0, len(line), size):
            await response.write(line[start : start + size])
            await asyncio.sleep(self.faults.delay_s)


def status(code: int, message: str) -> web.Response:
    """A Status object, as the API answers failures."""
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


def service_account(folder: Path, token: str, ca: bytes) -> Path:
    """Write what the kubelet mounts into a Pod."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(ca)
    return folder


def kubeconfig(path: Path, url: str, user: Mapping[str, Any], **cluster: Any) -> Path:
    """Write a file as kubectl has it, with one context."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "u", "user": dict(user)}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def _line(event: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": event, "object": item}).encode() + b"\n"


def _place(item: Mapping[str, Any], api_version: str) -> tuple[str, str, str, str]:
    metadata = item["metadata"]
    return api_version, PLURALS[item["kind"]], metadata.get("namespace", ""), metadata["name"]


def _named(request: web.Request) -> tuple[str, str, str, str]:
    at = request.match_info
    return at["version"], at["plural"], at["namespace"], at.get("name", "")


def _selected(request: web.Request, item: Mapping[str, Any]) -> bool:
    """Whether a request is for an object, by its namespace and the one field that it names."""
    metadata = item["metadata"]
    _, within, rest = request.path.partition("/namespaces/")
    if within and metadata.get("namespace") != rest.partition("/")[0]:
        return False
    name, _, wanted = request.query.get("fieldSelector", "").partition("=")
    spec = item.get("spec") or {}
    values = {"": "", "metadata.name": metadata["name"], "spec.nodeName": spec.get("nodeName")}
    return bool(values[name] == wanted)
