"""The API server's answers over HTTP: whole JSON documents, and the lines of a watch.

aiohttp on the daemon's own loop: a watch costs a socket and no thread. Everything is bounded; what
goes wrong is an ApiError with the server's own words where it said any.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from flowvis.errors import ApiError
from flowvis.inventory.sources.access import Access
from flowvis.runtime.causes import cause_of

CONNECT_S = 10.0
ANSWER_S = 60.0  # the API server gives up on a list after as long itself
QUIET_S = 90.0  # it sends a bookmark each minute, if etcd tells it how far all is
MAX_DOCUMENT_BYTES = 64 << 20  # a page of a list; one that is longer is asked for in smaller pages
MAX_LINE_BYTES = 8 << 20  # etcd takes no object over 1.5 MiB; as JSON it may be some times that
MAX_ERROR_BYTES = 64 << 10
MAX_WORDS = 500  # of an error, as far as we repeat them
USER_AGENT = "flowvis"
UNAUTHENTICATED = 401


class Garbled(ApiError):
    """What came is not what an API server sends: a new beginning is needed."""


class Unreachable(ApiError):
    """There is no connection: nobody answered anything."""


class Broken(ApiError):
    """The connection broke, or no answer came over it."""


class Silent(ApiError):
    """Nothing came in an open watch for `QUIET_S`: it is dead, or nothing changes."""


class KubernetesApi:
    """One API server; open it in a running loop, and close it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self._access.url

    def open(self) -> None:
        """Prepare for requests; nothing is connected yet."""
        self._session = aiohttp.ClientSession(
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),  # a watch of each kind
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the JSON object at a path."""
        return await self._document(path, query)

    async def create(self, path: str, item: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object in the list at a path, and return it as it became.

        ApiError 409 where there is one of its name. Reviews are created so, and kept by nobody.
        """
        return await self._document(path, {}, "POST", item)

    async def replace(self, path: str, item: Mapping[str, Any]) -> None:
        """Replace the object at a path; ApiError 409 where it has another resourceVersion."""
        async with self._request(path, {}, _answer_limits(), "PUT", item):
            pass

    async def _document(
        self,
        path: str,
        query: Mapping[str, str],
        method: str = "GET",
        item: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        async with self._request(path, query, _answer_limits(), method, item) as response:
            text = bytearray()
            async for chunk in response.content.iter_any():
                text += chunk
                if len(text) > MAX_DOCUMENT_BYTES:
                    raise ApiError(f"{path}: more than {MAX_DOCUMENT_BYTES} bytes", 413)
        return _object(text, path)

    @asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[list[dict[str, Any]]]]:
        """Open a watch; what it gives are the events that arrived together, to the stream's end."""
        limits = aiohttp.ClientTimeout(total=None, connect=CONNECT_S, sock_read=QUIET_S)
        async with self._request(path, query, limits) as response:
            yield _events(response.content, path)

    @asynccontextmanager
    async def _request(
        self,
        path: str,
        query: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        method: str = "GET",
        item: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise ValueError("the API is not open")
        headers, context = await asyncio.to_thread(self._credentials)
        try:
            async with self._session.request(
                method,
                self.url + path,
                params=query,
                json=item,
                headers=headers,
                ssl=context if context is not None else True,
                server_hostname=self._access.server_name,
                proxy=self._access.proxy,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                if response.status == UNAUTHENTICATED:
                    self._access.refused()
                if response.status not in {200, 201}:
                    text = await response.content.read(MAX_ERROR_BYTES)
                    raise ApiError(f"{path}: {response.status} {_message(text)}", response.status)
                yield response
        except (aiohttp.ClientConnectionError, OSError) as error:
            away = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
            failure = Unreachable if away else Broken
            raise failure(f"{self.url}{path}: {cause_of(error)}") from error
        except aiohttp.ClientPayloadError as error:
            raise Broken(f"{self.url}{path}: {cause_of(error)}") from error
        except aiohttp.ClientError as error:
            raise ApiError(f"{self.url}{path}: {cause_of(error)}") from error

    def _credentials(self) -> tuple[dict[str, str], ssl.SSLContext | None]:
        text = self._access.authorization()
        if not text.isprintable():  # no header may have it
            raise ApiError(f"{self.url}: the token for it has control characters: it is damaged")
        return ({"Authorization": text} if text else {}), self._access.context()


def _answer_limits() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=ANSWER_S, connect=CONNECT_S)


async def _events(content: aiohttp.StreamReader, path: str) -> AsyncIterator[list[dict[str, Any]]]:
    """Split a stream at its line ends; what is left at its end was cut off and is dropped."""
    tail = bytearray()
    while True:
        try:
            chunk = await content.readany()
        except TimeoutError as error:
            raise Silent(f"{path}: nothing came for {QUIET_S:g} s") from error
        if not chunk:
            return
        tail += chunk
        if len(tail) > MAX_LINE_BYTES:
            raise Garbled(f"{path}: a line of more than {MAX_LINE_BYTES} bytes")
        if b"\n" in chunk:
            *lines, last = tail.split(b"\n")
            tail = last
            yield [_object(line, path) for line in lines if line]


def _object(text: bytes | bytearray, path: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Garbled(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Garbled(f"{path}: a JSON object was expected, not {type(value).__name__}")
    return value


def _message(text: bytes) -> str:
    """Return the server's own words: a Status has a message."""
    try:
        words = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        words = text.decode("utf-8", "replace")
    return words[:MAX_WORDS].strip()
