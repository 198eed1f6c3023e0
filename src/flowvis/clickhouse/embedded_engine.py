"""The embedded engine (chdb): how it is loaded, who may do what in it, and what it raises.

The engine is large: it is loaded only where a store is made.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from flowvis.clickhouse.statement import SYSTEM_TABLES
from flowvis.clickhouse.store import REJECTIONS
from flowvis.errors import SettingsError, StoreError

READER = "reader"
CACHED_BYTES = {
    "mark_cache_size": 128 << 20,
    "index_mark_cache_size": 32 << 20,
    "primary_index_cache_size": 32 << 20,
}
"""What the engine remembers of its parts, at most: by itself up to 15 GB, whatever the limit of the
process. A day of 24 million records has marks of some megabytes."""
MERGED_AT_ONCE = {"min_insert_block_size_rows": 131_072, "min_insert_block_size_bytes": 32 << 20}
"""What a merge puts together of each projection before it sums it: by itself 256 MB, of a day of
24 million records 1.6 GB for all of them; now half of it, for two thirds more CPU of such a merge.
"""
_CONFIGURATION = """<clickhouse>
{caches}
<users_config>{path}</users_config>
<profiles><default>{merged}</default></profiles>
<quotas><default/></quotas>
<roles>
<owner><grants><query>GRANT ALL ON *.*</query></grants></owner>
<{reader}><grants><query>GRANT SELECT, SHOW TABLES, SHOW COLUMNS, SHOW DATABASES ON *.*</query>
<query>REVOKE SELECT ON system.*</query>{granted}</grants></{reader}>
</roles>
<users><default><no_password/><networks><ip>::/0</ip></networks><profile>default</profile>
<quota>default</quota><grants><query>GRANT owner, {reader}</query></grants></default></users>
</clickhouse>
"""
_LOCKED = "Cannot lock file"
_CODE = re.compile(r"Code: (\d+)")
_OF_FILES = "READ ON FILE"
"""The right that readers have not, as an error names it."""


class Engine:
    """The engine, for one directory of data."""

    def __init__(self, path: Path) -> None:
        """Load it; SettingsError where chdb is not installed or cannot begin."""
        self._path = path
        with _scratch(path):
            try:
                from chdb.session import Session
            except ImportError as error:
                needs = "embedded:// needs chdb: pip install 'flowvis[embedded]'"
                raise SettingsError([f"clickHouse.databaseURL: {needs}"]) from error
            except RuntimeError as error:
                raise SettingsError(
                    [f"clickHouse.databaseURL: the embedded engine: {_reason(error)}"]
                ) from error
        self._session: Any = Session

    def open(self) -> Any:
        """Return a session of its own; StoreError says when another process has the directory."""
        try:
            return self._session(f"{self._path}?config-file={_configuration()}")
        except RuntimeError as error:
            if _LOCKED in str(error) or (self._path / "status").exists():
                raise StoreError(
                    f"{self._path} is open in another process: ask that one"
                    " (flowctl sql does), or stop it",
                    retryable=True,
                ) from error
            raise StoreError(f"{self._path}: {_reason(error)}", retryable=False) from error


@contextmanager
def engine_errors(name: str) -> Iterator[None]:
    """Turn what the engine raises for a store of this name into StoreError."""
    try:
        yield
    except RuntimeError as error:
        text = _reason(error)
        code = _CODE.search(text)
        rejected = code is not None and int(code[1]) in REJECTIONS
        number = int(code[1]) if code else 0
        if _OF_FILES in text:
            text += "; the engine takes a table that there is not for a file: SHOW TABLES has them"
        raise StoreError(f"{name}: {text}", retryable=not rejected, code=number) from error


@cache
def _configuration() -> str:
    """Return a file, in memory, that tells the engine who may do what, and how much it remembers.

    There is one user, with two roles: the owner of all, and a reader, who has no table function
    that reads files or the network, creates nothing, and sees of the engine's own tables only those
    that tell of the store.
    """
    granted = "".join(
        f"<query>GRANT SELECT ON system.{table}</query>" for table in sorted(SYSTEM_TABLES)
    )
    caches, merged = (
        "\n".join(f"<{name}>{size}</{name}>" for name, size in sizes.items())
        for sizes in (CACHED_BYTES, MERGED_AT_ONCE)
    )
    descriptor = os.memfd_create("configuration.xml")
    path = f"/proc/self/fd/{descriptor}"
    text = _CONFIGURATION.format(
        path=path, caches=caches, merged=merged, reader=READER, granted=granted
    )
    os.write(descriptor, text.encode())
    return path


@contextmanager
def _scratch(path: Path) -> Iterator[None]:
    """Give the engine a temporary directory, which it writes to while it is imported.

    In a container /tmp is read-only, and the store's volume is what can be written. Where even that
    cannot, the engine could not begin: SettingsError.
    """
    volume = next(parent for parent in (path, *path.parents) if parent.is_dir())
    before = os.environ.get("TMPDIR")
    tried = [volume, *map(Path, filter(None, (before, "/tmp")))]  # noqa: S108  the engine's default
    made, refusals = None, []
    for directory in dict.fromkeys(tried):
        try:
            made = tempfile.TemporaryDirectory(
                prefix=".engine-", dir=directory, ignore_cleanup_errors=True
            )
            break
        except OSError as error:
            refusals.append(f"{directory} ({error.strerror})")
    if made is None:
        nowhere = f"embedded://{path}: the engine has nowhere to write: not {', '.join(refusals)}"
        raise SettingsError([f"clickHouse.databaseURL: {nowhere}; mount a volume at {path}"])
    with made as name:
        os.environ["TMPDIR"] = name
        try:
            yield
        finally:
            del os.environ["TMPDIR"]
            if before is not None:
                os.environ["TMPDIR"] = before


def _reason(error: RuntimeError) -> str:
    """Return what the engine says in a line, without its version and stack."""
    text = re.split(r" \(version |,? Stack trace \(", str(error), maxsplit=1)[0]
    return " ".join(text.split()).rstrip(",. ")
