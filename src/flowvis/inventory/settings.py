"""The configuration of the API server, the same in both daemons."""

import os
import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flowvis.inventory.sources.access import HOST, Access, InCluster, Kubeconfig
from flowvis.runtime.settings import option

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123, as the API checks names
_SUBDOMAIN = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class ObjectName:
    """An object of the API, where the option says of which kind."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse_object_name(text: str) -> ObjectName:
    """Read `<namespace>/<name>`; ValueError says what is wrong with it."""
    namespace, _, name = text.partition("/")
    if not (_LABEL.fullmatch(namespace) and _SUBDOMAIN.fullmatch(name)):
        raise ValueError("names no object: write <namespace>/<name>, both in lower case")
    return ObjectName(namespace, name)


class Enable(Enum):
    """Whether the API server is asked."""

    AUTO = "auto"
    TRUE = "true"
    FALSE = "false"


@dataclass(frozen=True)
class KubernetesSettings:
    """The API server that says what Pods, Services and Nodes there are."""

    enable: Enable = option(
        Enable.AUTO,
        doc="Whether the API server is asked; auto: in a Pod, or with a kubeconfig, unless "
        "inventory.files are given",
    )
    kubeconfig: Path | None = option(
        None, doc="The kubeconfig to use; by default the Pod's own service account"
    )

    def wanted(self, files: tuple[Path, ...], objects: str = "") -> bool:
        """Whether the API server is asked; files win. `objects` names options that are about it."""
        if files or self.enable is Enable.FALSE:
            return False
        sure = self.enable is Enable.TRUE or self.kubeconfig or objects
        return bool(sure or os.environ.get(HOST))

    def access(self) -> Access:
        """Return the way to the API server; SettingsError says what is missing."""
        return Kubeconfig(self.kubeconfig) if self.kubeconfig else InCluster(os.environ)
