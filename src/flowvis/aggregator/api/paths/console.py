"""The console: files that the package brings, which say nothing of anybody's flows."""

import gzip
import mimetypes
import re
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.headers import POLICY
from flowvis.aggregator.api.problems import Problem
from flowvis.aggregator.api.routes import Needs, Route

INDEX = "index.html"
ASSETS = "assets"
"""Files whose names change with what is in them."""
ENCODED = {".br": "br", ".gz": "gzip"}
"""What stands beside a file that was compressed as it was built."""

PATHS = ("/", f"/{ASSETS}/{{name}}", "/{name:[^/]+[.](?:svg|png|ico|webmanifest|txt)}")
"""Where it is served: all paths at which there is nothing of anybody's."""

UNCOMPRESSED = ("image/png", "image/webp", "font/woff2")
_REFUSED = re.compile(r";\s*q\s*=\s*0(?:\.0*)?\s*$", re.IGNORECASE)
"""An encoding of no weight is one that is not acceptable (RFC 9110 12.5.3)."""
LEAST_COMPRESSED = 512  # bytes: less is one packet anyway

MISSING = """\
<!doctype html>
<html lang="en">
<title>flowvis</title>
<h1>The console is not built</h1>
<p>This flowvis runs from a checkout. Run <code>make console</code>, and reload.</p>
<p>The API is there: <code>/api/v1/</code>. In a terminal, <code>flowctl</code> shows the same.</p>
</html>
"""


@dataclass(frozen=True)
class _File:
    """One file, as it goes out."""

    name: str
    content: bytes
    encoded: dict[str, bytes]
    """By the encoding, as far as it was built so."""

    @cached_property
    def tag(self) -> str:
        return sha256(self.content).hexdigest()[:32]

    @cached_property
    def kind(self) -> str:
        return mimetypes.guess_type(self.name)[0] or "application/octet-stream"

    @cached_property
    def gzipped(self) -> bytes | None:
        """It, smaller, where that is worth it; made at the first request."""
        if "gzip" in self.encoded:
            return self.encoded["gzip"]
        if self.kind in UNCOMPRESSED or len(self.content) < LEAST_COMPRESSED:
            return None
        return gzip.compress(self.content, 9, mtime=0)

    def answer(self, request: web.Request) -> web.Response:
        """Return the file, or that the browser has it."""
        accepted = {
            part.partition(";")[0].strip().lower()
            for part in request.headers.get("Accept-Encoding", "").split(",")
            if not _REFUSED.search(part)
        }
        body, encoding = self.content, ""
        if "br" in accepted and "br" in self.encoded:
            body, encoding = self.encoded["br"], "br"
        elif "gzip" in accepted and self.gzipped is not None:
            body, encoding = self.gzipped, "gzip"
        headers = {
            "ETag": f'"{self.tag}{encoding and f"-{encoding}"}"',
            "Vary": "Accept-Encoding",
            "Cache-Control": (
                "public, max-age=31536000, immutable"
                if self.name.startswith(f"{ASSETS}/")
                else "no-cache"
            ),
            "Content-Security-Policy": POLICY,
        }
        if headers["ETag"] in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        if encoding:
            headers["Content-Encoding"] = encoding
        headers["Content-Type"] = (
            f"{self.kind}; charset=utf-8" if _is_text(self.kind) else self.kind
        )
        return web.Response(body=body, headers=headers)


class _Files:
    """All files of a directory and of its assets, read when they are first asked for."""

    def __init__(self, directory: Traversable) -> None:
        self._directory = directory
        self._found: dict[str, _File] = {}

    def find(self, name: str) -> _File | None:
        """Return a file by its path below the directory."""
        if INDEX not in self._found:
            self._found = dict(_read(self._directory))
        return self._found.get(name)


def _read(directory: Traversable) -> list[tuple[str, _File]]:
    contents: dict[str, bytes] = {}
    for below, prefix in ((directory, ""), (directory / ASSETS, f"{ASSETS}/")):
        if below.is_dir():
            for file in below.iterdir():
                if file.is_file():
                    contents[prefix + file.name] = file.read_bytes()
    found = []
    for name, content in contents.items():
        if not name.endswith(tuple(ENCODED)):
            encoded = {
                encoding: contents[name + suffix]
                for suffix, encoding in ENCODED.items()
                if name + suffix in contents
            }
            found.append((name, _File(name, content, encoded)))
    return found


def _is_text(kind: str) -> bool:
    return kind.startswith("text/") or kind.endswith(("javascript", "json", "xml"))


def routes(directory: Traversable | None = None) -> list[Route]:
    """Return the routes; `directory` is the package's own by default."""
    served = _Files(directory or files("flowvis") / "console")

    async def index(_: Caller, request: web.Request) -> web.Response:
        file = served.find(INDEX)
        if file is None:
            return web.Response(status=404, text=MISSING, content_type="text/html")
        return file.answer(request)

    async def other(_: Caller, request: web.Request) -> web.Response:
        file = served.find(request.path.removeprefix("/"))
        if file is None:
            raise Problem("not-found", f"{request.path[:200]}: there is no such file")
        return file.answer(request)

    return [
        Route(
            "GET",
            path,
            handler,
            text,
            kind="*/*",
            needs=Needs.NOTHING,
            parameters=None,
        )
        for path, handler, text in zip(
            PATHS,
            (index, other, other),
            ("The console", "What the console is made of", "The same"),
            strict=True,
        )
    ]
