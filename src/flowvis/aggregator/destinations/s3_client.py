"""What of Amazon's S3 we need: to put objects, large ones in parts, signed (Signature Version 4).

Our own, on the HTTP client that is there anyway: it is a few requests, and Amazon's library brings
20 MB and needs versions of packages that exclude those of Kubernetes' client.
"""

import hashlib
import hmac
import html
import io
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
from yarl import URL

from flowvis.aggregator.destinations.loads import Undelivered
from flowvis.runtime.trust import trusting_file

ANSWERED_S = 120.0  # for a request, beside the time that its body takes
SLOWEST = 16 << 10  # bytes a second, of a way that is still one
ANSWER_BYTES = 1 << 16  # of an answer, which is a short XML document
ALGORITHM = "AWS4-HMAC-SHA256"
REGION = "x-amz-bucket-region"


@dataclass(frozen=True)
class Credentials:
    """Who asks; without a key requests are not signed."""

    key_id: str = ""
    secret: str = ""
    token: str = ""


def signature(
    request: tuple[str, URL, Mapping[str, str]],
    credentials: Credentials,
    region: str,
    moment: datetime,
    service: str = "s3",
) -> str:
    """Return the header Authorization of a request: method, URL, and all headers, in lower case.

    Of these `x-amz-content-sha256` is the hash of the body. See "Authenticating Requests (AWS
    Signature Version 4)" in the reference of the S3 API.
    """
    method, url, headers = request
    names = ";".join(sorted(headers))
    query = sorted((_quoted(name), _quoted(value)) for name, value in url.query.items())
    canonical = "\n".join(
        (
            method,
            quote(url.path, safe="/-_.~"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
            "",
            names,
            headers["x-amz-content-sha256"],
        )
    )
    day = moment.strftime("%Y%m%d")
    scope = f"{day}/{region}/{service}/aws4_request"
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{credentials.secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signed = hmac.digest(key, text.encode(), "sha256").hex()
    return (
        f"{ALGORITHM} Credential={credentials.key_id}/{scope},"
        f"SignedHeaders={names},Signature={signed}"
    )


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


class Bucket:
    """A bucket, to which objects are put. Every method raises Undelivered with what went wrong."""

    def __init__(
        self,
        name: str,
        credentials: Credentials,
        *,
        region: str,
        endpoint: str = "",
        ca_file: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Without `endpoint` it is at Amazon's.

        `ca_file` is read with the first request, and again after one that met another certificate.
        """
        self.name = name
        self._credentials = credentials
        self._region = region
        self._endpoint = endpoint.rstrip("/")
        self._ca_file = ca_file
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """End the connections."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    async def put(self, key: str, body: bytes) -> None:
        """Put an object in one piece."""
        await self._ask("PUT", key, {}, body)

    async def begin(self, key: str) -> str:
        """Begin an object of several parts; return the upload's ID."""
        answer, _ = await self._ask("POST", key, {"uploads": ""}, b"")
        found = re.search(r"<UploadId>([^<]+)</UploadId>", answer)
        if found is None:
            raise Undelivered(f"{self.name}: an answer without UploadId: {answer[:200]!r}")
        return html.unescape(found[1])

    async def put_part(self, key: str, upload: str, number: int, body: bytes) -> str:
        """Put a part, 5 MiB at least but for the last; return its tag."""
        query = {"partNumber": str(number), "uploadId": upload}
        _, headers = await self._ask("PUT", key, query, body)
        if "ETag" not in headers:
            raise Undelivered(f"{self.name}: an answer without ETag to part {number}")
        return headers["ETag"]

    async def complete(self, key: str, upload: str, tags: list[str]) -> None:
        """Make the object of its parts, in their order."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{html.escape(tag)}</ETag></Part>"
            for number, tag in enumerate(tags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        answer, _ = await self._ask("POST", key, {"uploadId": upload}, body)
        if re.search(r"<Error[\s>]", answer):  # with status 200, as it took long
            raise Undelivered(f"{self.name}: {_said(answer)}")

    async def abort(self, key: str, upload: str) -> None:
        """Have the parts deleted."""
        await self._ask("DELETE", key, {"uploadId": upload}, b"")

    async def _ask(
        self, method: str, key: str, query: Mapping[str, str], body: bytes
    ) -> tuple[str, Mapping[str, str]]:
        try:
            return await self._answered(method, self._url(key, query), body)
        except ValueError as error:  # of what was configured: records are no worse for it
            raise Undelivered(f"bucket {self.name} cannot be asked: {error}") from error

    async def _answered(self, method: str, url: URL, body: bytes) -> tuple[str, Mapping[str, str]]:
        moment = self._clock()
        headers = {
            "host": url.authority if url.explicit_port else str(url.host),
            "x-amz-content-sha256": hashlib.sha256(body).hexdigest(),
            "x-amz-date": moment.strftime("%Y%m%dT%H%M%SZ"),
        }
        if self._credentials.token:
            headers["x-amz-security-token"] = self._credentials.token
        if self._credentials.key_id:
            headers["authorization"] = signature(
                (method, url, headers), self._credentials, self._region, moment
            )
        try:
            async with self._opened().request(
                method,
                url,
                data=io.BytesIO(body),
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(len(body)),
            ) as response:
                answer = (await _whole(response)).decode(errors="replace")
                status, given = response.status, response.headers
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if isinstance(error, aiohttp.ClientSSLError):
                await self.close()
            text = str(error) or type(error).__name__
            raise Undelivered(f"{url.host}: {text}") from error
        if status // 100 != 2:
            region = given.get(REGION, self._region)
            if region != self._region and not self._endpoint:
                self._region = region
                raise Undelivered(f"bucket {self.name} is in region {region}: it is asked there")
            raise Undelivered(f"bucket {self.name}: {_said(answer) or f'status {status}'}")
        return answer, given

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._trust()) if self._ca_file else None
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    def _trust(self) -> ssl.SSLContext:
        try:
            return trusting_file(self._ca_file)
        except OSError as error:
            text = error.strerror or str(error)
            raise Undelivered(f"{self._ca_file}: no CA can be read: {text}") from error

    def _url(self, key: str, query: Mapping[str, str]) -> URL:
        if self._endpoint:
            base = f"{self._endpoint}/{self.name}"
        elif "." in self.name:  # no certificate is for such a name
            base = f"https://s3.{self._region}.amazonaws.com/{self.name}"
        else:
            base = f"https://{self.name}.s3.{self._region}.amazonaws.com"
        asked = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query.items())
        path = quote(key, safe="/-_.~")
        return URL(f"{base}/{path}{'?' if asked else ''}{asked}", encoded=True)


def _timeout(size: int) -> aiohttp.ClientTimeout:
    """How long a request with a body of so many bytes may take: parts have 8 MiB."""
    total_s = ANSWERED_S + size / SLOWEST
    return aiohttp.ClientTimeout(total=total_s, sock_connect=10, sock_read=60)


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """Read an answer to its end: what takes long is begun at once, and says at last how it went."""
    answer = bytearray()
    async for piece in response.content.iter_any():
        answer += piece
        if len(answer) > ANSWER_BYTES:
            raise Undelivered(f"{response.host}: an answer of more than {ANSWER_BYTES} bytes")
    return bytes(answer)


def _said(answer: str) -> str:
    """What an answer says is wrong."""
    parts = re.findall(r"<(?:Code|Message)>([^<]*)</", answer)[:2]
    return ": ".join(html.unescape(part) for part in parts)[:500]
