"""What one ConfigMap or Secret holds, watched by its name."""

import base64
import errno
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from flowvis.inventory.resources import SECRETS, Resource
from flowvis.inventory.settings import ObjectName
from flowvis.inventory.sources.watch import Watched

log = logging.getLogger(__name__)


class Contents:
    """Sink: the data of one object, as the API server last had it."""

    def __init__(self, resource: Resource, name: ObjectName) -> None:
        self.resource, self.name = resource, name
        self.listed = False
        """Whether the server has said if there is such an object."""
        self.data: Mapping[str, bytes] | None = None
        """By key; None where there is no such object."""

    def __str__(self) -> str:
        return f"{self.resource.kind} {self.name}"

    @property
    def watched(self) -> Watched:
        """How it is watched: the right to this one name is enough."""
        return Watched(
            self.resource,
            [self],
            {"fieldSelector": f"metadata.name={self.name.name}"},
            namespace=self.name.namespace,
            needed=False,
        )

    def upsert(self, item: Mapping[str, Any], now_ms: int) -> None:  # noqa: ARG002  a Sink's
        """Learn of it, new or changed; ValueError, and nothing changed, if it cannot be read."""
        if _name(item) != self._key:
            return
        data = item.get("data") or {}
        if not isinstance(data, Mapping):
            raise ValueError(f"{self}: data is not a mapping")  # noqa: TRY004  a Sink's
        fresh = {str(key): self._bytes(str(key), value) for key, value in data.items()}
        if fresh != self.data:
            log.info("%s %s", self, "is there" if self.data is None else "has changed")
            self.data = fresh

    def delete(self, item: Mapping[str, Any], now_ms: int) -> None:  # noqa: ARG002  a Sink's
        """Note that it is gone."""
        if _name(item) == self._key:
            self._forget()

    def retain(
        self,
        group: str,
        kind: str,
        names: Collection[tuple[str, str]],
        now_ms: int,  # noqa: ARG002  a Sink's
    ) -> None:
        """Note whether it is there at all."""
        if (group, kind) != (self.resource.group, self.resource.kind):
            return
        self.listed = True
        if self._key not in names:
            self._forget()

    def expire(self, now_ms: int) -> None:
        """Nothing: what is gone is not kept."""

    def _forget(self) -> None:
        if self.data is not None:
            log.warning("%s is gone", self)
            self.data = None

    @property
    def _key(self) -> tuple[str, str]:
        return self.name.namespace, self.name.name

    def _bytes(self, key: str, value: Any) -> bytes:
        if not isinstance(value, str):
            raise ValueError(f"{self}: {key} is not a text")  # noqa: TRY004  a Sink's
        if self.resource is not SECRETS:
            return value.encode()
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            raise ValueError(f"{self}: {key} is not base64") from error


@dataclass(frozen=True)
class Entry:
    """One key of an object; it reads like a file, and its text names it."""

    contents: Contents
    key: str
    maker: str
    """Who makes the object, for those who miss it."""

    def read_bytes(self) -> bytes:
        """Return what is there now; OSError says what is missing and what to do."""
        contents = self.contents
        if not contents.listed and contents.data is None:
            problem = "the API server has not given it: may we get, list and watch it?"
            raise PermissionError(errno.EACCES, problem)
        if contents.data is None:
            problem = f"there is no such {contents.resource.kind}: {self.maker}"
            raise FileNotFoundError(errno.ENOENT, problem)
        if self.key not in contents.data:
            raise FileNotFoundError(errno.ENOENT, f"the object has no such key: {self.maker}")
        return contents.data[self.key]

    def __str__(self) -> str:
        return f"{self.key} of {self.contents}"


def _name(item: Mapping[str, Any]) -> tuple[str, str]:
    metadata = item.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")
