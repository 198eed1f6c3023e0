"""The console's files, as browsers get them."""

import gzip
from pathlib import Path

from flowvis.aggregator.api.paths import console

from .opened import opened

SCRIPT = "export const x = 1;\n" * 100


def built(path: Path) -> Path:
    (path / "console" / "assets").mkdir(parents=True)
    (path / "console" / "index.html").write_text("<!doctype html><title>flowvis</title>")
    (path / "console" / "assets" / "index-Ab1.js").write_text(SCRIPT)
    (path / "console" / "assets" / "map-Cd2.css").write_text("a {}")
    (path / "console" / "assets" / "map-Cd2.css.br").write_bytes(b"brotli")
    (path / "secret.txt").write_text("secret")
    return path / "console"


async def test_files_need_no_token_and_are_kept(tmp_path: Path) -> None:
    async with opened(tmp_path, more=console.routes(built(tmp_path))) as it:
        async with it.http.get(f"{it.url}/?filter=x") as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
            assert answer.headers["Cache-Control"] == "no-cache"
            policy = answer.headers["Content-Security-Policy"]
            assert "script-src 'self';" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            tag = answer.headers["ETag"]
        async with it.http.head(f"{it.url}/") as answer:
            assert (answer.status, answer.headers["ETag"]) == (200, tag)
        async with it.http.get(f"{it.url}/", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304
            assert await answer.read() == b""
        async with it.http.get(f"{it.url}/assets/index-Ab1.js") as answer:
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"


async def test_files_are_compressed_for_who_takes_it(tmp_path: Path) -> None:
    tags = set()
    async with opened(tmp_path, more=console.routes(built(tmp_path))) as it:
        it.http._auto_decompress = False
        for accepted, encoding in (
            ("identity", None),
            ("gzip;q=0, br", None),
            ("gzip ; Q=0.000", None),
            ("gzip;q=0.5", "gzip"),
            ("gzip, deflate, br", "gzip"),
        ):
            headers = {"Accept-Encoding": accepted}
            async with it.http.get(f"{it.url}/assets/index-Ab1.js", headers=headers) as answer:
                body = await answer.read()
                assert answer.headers.get("Content-Encoding") == encoding
                assert (gzip.decompress(body) if encoding else body).decode() == SCRIPT
                tags.add(answer.headers["ETag"])
        headers = {"Accept-Encoding": "br"}
        async with it.http.get(f"{it.url}/assets/map-Cd2.css", headers=headers) as answer:
            assert (await answer.read(), answer.headers["Content-Encoding"]) == (b"brotli", "br")
    assert len(tags) == 2


async def test_nothing_else_is_served(tmp_path: Path) -> None:
    async with opened(tmp_path, more=console.routes(built(tmp_path))) as it:
        for path in (
            "/secret.txt",
            "/assets/../../secret.txt",
            "/assets/%2e%2e%2f%2e%2e%2fsecret.txt",
            "/assets/..%2f..%2fsecret.txt",
            "/assets/",
            "/assets/nothing.js",
            "/assets/map-Cd2.css.br",
            "/index.html",
        ):
            assert (await it.ask(path))[0] in {401, 404}, path


async def test_a_console_that_is_not_built_says_how(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    async with opened(tmp_path, more=console.routes(tmp_path / "empty")) as it:
        status, text = await it.ask("/")
        assert status == 404
        assert "make console" in text
        built(tmp_path).rename(tmp_path / "later")
        (tmp_path / "empty").rmdir()
        (tmp_path / "later").rename(tmp_path / "empty")
        assert (await it.ask("/"))[0] == 200, "once it is, a reload shows it"
