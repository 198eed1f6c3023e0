"""Tokens from a file, for where there is no API server to ask.

A line each, `TOKEN NAME [NAMESPACE,...]`; empty lines and those that begin with # mean nothing.
"""

import hmac
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from flowvis.aggregator.api.caller import Caller
from flowvis.aggregator.api.visibility import EVERYTHING, Visibility
from flowvis.errors import SettingsError

log = logging.getLogger(__name__)

MIN_TOKEN_CHARS = 20
MAX_BYTES = 256 << 10
MAX_TOKENS = 1000
MAX_LINE_CHARS = 4096
LOOK_S = 1.0


@dataclass(frozen=True)
class _Holder:
    digest: bytes
    caller: Caller


class TokenFile:
    """Knows who has which token; a changed file counts from its next look on."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_s = float("-inf")
        self._seen: object = None
        self._holders: tuple[_Holder, ...] = ()

    async def start(self) -> None:
        """Read the file; SettingsError says what is wrong with it."""
        self._seen = self._state()
        try:
            self._holders = _parse(_read(self._path))
        except (OSError, ValueError) as error:
            raise SettingsError([f"apiServer.tokenFile: {self._path}: {_words(error)}"]) from error
        self._looked_s = self._clock()

    async def stop(self) -> None:
        """Nothing is open."""

    def knows(self, token: str) -> bool:
        """Whether somebody has the token."""
        return self._find(token) is not None

    async def identify(self, token: str) -> Caller | None:
        """Return who has the token, None if nobody."""
        return self._find(token)

    def _find(self, token: str) -> Caller | None:
        self._look()
        digest = sha256(token.encode()).digest()
        found = None
        for holder in self._holders:  # all of them, whichever it is
            if hmac.compare_digest(holder.digest, digest):
                found = holder.caller
        return found

    def _look(self) -> None:
        """Take up a change. No file, no tokens; a bad one changes nothing."""
        now_s = self._clock()
        if now_s - self._looked_s < LOOK_S:
            return
        self._looked_s = now_s
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._holders = _parse(_read(self._path))
        except FileNotFoundError:
            self._holders = ()
            log.warning("%s is gone: its tokens count no more", self._path)
        except (OSError, ValueError) as error:
            log.warning("%s: %s; the tokens from before count", self._path, _words(error))
        else:
            log.info("%s has changed: %d tokens", self._path, len(self._holders))

    def _state(self) -> object:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> str:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        data = file.read(MAX_BYTES + 1)
    if mode & 0o004:
        log.warning("%s: any user of this machine may read it", path)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return data.decode()


def _parse(text: str) -> tuple[_Holder, ...]:
    """Read the lines; ValueError names the first that is wrong, and never a token."""
    holders: dict[bytes, _Holder] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in {2, 3} or len(line) > MAX_LINE_CHARS:
            raise ValueError(f"line {number}: write TOKEN NAME [NAMESPACE,...]")
        token, name, *rest = words
        if len(token) < MIN_TOKEN_CHARS or not (token.isascii() and token.isprintable()):
            raise ValueError(
                f"line {number}: a token has {MIN_TOKEN_CHARS} printable characters of ASCII at "
                "least (openssl rand -hex 24)"
            )
        digest = sha256(token.encode()).digest()
        if digest in holders:
            raise ValueError(f"line {number}: the token of another line")
        if len(holders) >= MAX_TOKENS:
            raise ValueError(f"more than {MAX_TOKENS} tokens")
        holders[digest] = _Holder(digest, Caller(name, _visibility(rest)))
    return tuple(holders.values())


def _visibility(rest: list[str]) -> Visibility:
    """All namespaces where none are named; a * among names would hide a mistake."""
    if not rest or rest == ["*"]:
        return EVERYTHING
    return Visibility.of(name for name in rest[0].split(",") if name)


def _words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
