"""How the API server is reached: its address, whom it must be, and who we are.

Inside the cluster that is what the kubelet mounts into every Pod; it is read again for each
request, as tokens live for an hour and CAs are rotated. A kubeconfig is read by the `kubernetes`
client, which knows every kind (exec plugins, OIDC, certificates); it is imported only then, as it
costs 18 MB.
"""

import contextlib
import logging
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml

from flowvis.errors import ApiError, SettingsError
from flowvis.runtime.extras import extra
from flowvis.runtime.options import POD
from flowvis.runtime.trust import trusting_file, trusting_only

log = logging.getLogger(__name__)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_TOKEN_BYTES = 64 << 10  # HTTP servers take no longer headers
HOST, PORT = POD, "KUBERNETES_SERVICE_PORT"


class Access(Protocol):
    """The way to an API server; the methods may block, and raise ApiError."""

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""

    @property
    def server_name(self) -> str | None:
        """The name that its certificate must have, where that is not the URL's."""

    @property
    def proxy(self) -> str | None:
        """The URL of the HTTP proxy on the way there, if there is one."""

    def authorization(self) -> str:
        """Return the header that says who we are; "" where our certificate does."""

    def refused(self) -> None:
        """Note that the server does not know who we said that we are: find it out anew."""

    def context(self) -> ssl.SSLContext | None:
        """Return whom to trust, None without TLS; the same object while nothing changed."""


class InCluster:
    """A Pod's own access, by its service account."""

    server_name = proxy = None

    def __init__(self, environment: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> None:
        host, port = environment.get(HOST, ""), environment.get(PORT, "")
        if not host or not port:
            problem = f"{HOST} and {PORT} are not set: outside of a Pod, name a kubeconfig"
            raise SettingsError([f"inventory.kubernetes: {problem}"])
        self.url = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self._token = account / "token"
        self._ca = account / "ca.crt"
        self._ca_text = b""
        self._context: ssl.SSLContext | None = None

    def authorization(self) -> str:
        """Read the token."""
        token = _read(self._token)[:MAX_TOKEN_BYTES].decode("ascii", "replace").strip()
        if not token:
            raise ApiError(f"{self._token}: empty; the kubelet writes it")
        return f"Bearer {token}"

    def refused(self) -> None:
        """Nothing: the token is read for each request."""

    def context(self) -> ssl.SSLContext:
        """Trust the cluster's CA."""
        text = _read(self._ca)
        if self._context is None or text != self._ca_text:
            try:
                context = trusting_only(text.decode("ascii"))
            except (ssl.SSLError, ValueError) as error:
                raise ApiError(f"{self._ca}: not PEM certificates: {error}") from error
            self._context, self._ca_text = context, text
        return self._context


class Kubeconfig:
    """Access as kubectl has it, by the current context of a kubeconfig.

    It is read again when it has changed, as whoever renews certificates or tokens in it does not
    know of us; what is no good changes nothing.
    """

    def __init__(self, path: Path) -> None:
        with extra("people", "inventory.kubernetes.kubeconfig"):
            import kubernetes  # noqa: F401  here its lack is said

        self._path = path
        self._written = b""
        self._bad: bytes | None = None
        """What it had last that could not be used."""
        self._context: ssl.SSLContext | None = None
        self._seen: list[bytes] | None = None
        self._token = ""
        """The last one of its token file."""
        self._lock = threading.Lock()  # requests ask for access in threads
        self._take(self._content())

    def authorization(self) -> str:
        """Return the token: that of its file, or the client's, which it renews when it expired."""
        with self._lock:
            self._read_again()
            if self._token_file is not None:
                return f"Bearer {self._file_token(self._token_file)}"
            try:
                settings = self._configuration.auth_settings()
            except Exception as error:  # plugins and identity providers fail in their own ways
                raise ApiError(f"{self._path}: no token: {error}") from error
            return str(settings["BearerToken"]["value"]) if "BearerToken" in settings else ""

    def refused(self) -> None:
        """Read the kubeconfig again: what a plugin gave ends at times that it did not tell."""
        self._written = b""

    def _content(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise _unusable(self._path, error.strerror or "") from error

    def _read_again(self) -> None:
        """Take what the file has now, where that is new; each bad content is said once."""
        with contextlib.suppress(SettingsError):
            content = self._content()
            if content == self._written:
                return
            try:
                self._take(content)
            except SettingsError as error:
                if content != self._bad:
                    log.warning("%s; what it had before counts", error)
                self._bad = content  # and perhaps it was being written: it is tried again

    def _take(self, content: bytes) -> None:
        """Use what the file has; SettingsError, and nothing changed, if that cannot be used."""
        try:
            configuration = client_configuration(self._path)
            cluster, user = _of_context(yaml.safe_load(content))
            proxy = _proxy(cluster)
        except (LookupError, TypeError, ValueError, yaml.YAMLError) as error:
            raise _unusable(self._path, str(error)) from error
        url = str(configuration.host).rstrip("/")
        self._written, self._configuration, self.url = content, configuration, url
        self.server_name: str | None = configuration.tls_server_name or None
        self.proxy = proxy
        named = user.get("tokenFile")
        self._token_file = self._path.parent / named if named else None
        self._token, self._seen = "", None

    def _file_token(self, path: Path) -> str:
        """Return the token in a file, the last one that was there while there is none."""
        try:
            found = path.read_bytes()[:MAX_TOKEN_BYTES].decode("ascii", "replace").strip()
        except OSError as error:
            if not self._token:
                raise ApiError(f"{path}: {error.strerror}: no token") from error
            return self._token
        self._token = found or self._token
        if not self._token:
            raise ApiError(f"{path}: empty: no token")
        return self._token

    def context(self) -> ssl.SSLContext | None:
        """Trust the cluster's CA, and show our certificate if there is one.

        Files that have changed are read again; while they are no good, those before count.
        """
        if not self.url.startswith("https:"):
            return None
        try:
            seen = [Path(name).read_bytes() for name in self._files()]
            if self._context is None or seen != self._seen:
                self._context, self._seen = self._made(), seen
        except (ssl.SSLError, OSError) as error:
            if self._context is None:
                problem = f"{self._path}: its certificates cannot be used: {error}"
                raise ApiError(problem) from error
        return self._context

    def _files(self) -> list[str]:
        named = self._configuration
        return [name for name in (named.ssl_ca_cert, named.cert_file, named.key_file) if name]

    def _made(self) -> ssl.SSLContext:
        named = self._configuration
        context = trusting_file(named.ssl_ca_cert)
        if named.cert_file:
            context.load_cert_chain(named.cert_file, named.key_file)
        if not named.verify_ssl:  # insecure-skip-tls-verify, in so many words
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ApiError(f"{path}: {error.strerror}; does the Pod mount its token?") from error


def client_configuration(path: Path | None, context: str | None = None) -> Any:
    """Return what the `kubernetes` client makes of a kubeconfig, by default of kubectl's.

    ValueError says what is wrong with it: the client itself raises what Python does at whatever it
    did not expect.
    """
    from kubernetes.client.configuration import Configuration
    from kubernetes.config import load_kube_config
    from kubernetes.config.config_exception import ConfigException

    configuration: Any = Configuration()
    load: Any = load_kube_config
    try:
        load(
            str(path) if path else None,
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
        str(configuration.host).encode("ascii")
    except (ConfigException, OSError) as error:
        raise ValueError(str(error)) from error
    except Exception as error:
        raise ValueError(f"is no kubeconfig: {' '.join(str(error).split())}") from error
    renew = configuration.refresh_api_key_hook

    def renew_token(known: Any) -> None:
        """Have the client renew its token, which no header may have with the end of a line."""
        if renew is not None:
            renew(known)
            known.refresh_api_key_hook = renew_token  # which it has set anew
        known.api_key = {name: str(token).strip() for name, token in known.api_key.items()}

    configuration.refresh_api_key_hook = renew_token
    return configuration


def _unusable(kubeconfig: Path, problem: str) -> SettingsError:
    text = " ".join(problem.split())
    return SettingsError([f"inventory.kubernetes.kubeconfig: {kubeconfig}: {text}"])


def _of_context(document: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the cluster and the user of a kubeconfig's current context."""
    contexts, clusters, users = (
        {entry["name"]: entry.get(kind) or {} for entry in document.get(f"{kind}s") or ()}
        for kind in ("context", "cluster", "user")
    )
    context = contexts[document["current-context"]]
    return clusters.get(context.get("cluster")) or {}, users.get(context.get("user")) or {}


def _proxy(cluster: Mapping[str, Any]) -> str | None:
    """Return the proxy on the way to a cluster; ValueError where we cannot go by it."""
    url = cluster.get("proxy-url") or None
    if url is not None and not str(url).startswith(("http://", "https://")):
        raise ValueError(f"proxy-url {str(url).partition(':')[0]}: only http and https can be used")
    return url
