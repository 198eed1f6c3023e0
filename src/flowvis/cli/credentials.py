"""flowctl credentials: passwords of users, generated into Secrets of the API."""

import argparse
import asyncio
import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowvis.cli.command import Commands, Connect
from flowvis.errors import ApiError, SettingsError
from flowvis.inventory.settings import KubernetesSettings, ObjectName, parse_object_name

if TYPE_CHECKING:
    from flowvis.inventory.sources.api import KubernetesApi

DESCRIPTION = """\
Give each USER a password, in every Secret that is named for it: username, password, and
password_sha256_hex for who has to know it without being told. A password that is in one of them is
kept and given to the others; where there is none, one is generated. Nothing that is there is ever
overwritten: Secrets that contradict each other are an error.
"""

EXAMPLES = """\
examples:
  flowctl credentials flowvis=flow-visibility/clickhouse-secret,flow-aggregator/clickhouse-secret
  flowctl credentials --kubeconfig ~/.kube/config reader=flow-visibility/clickhouse-queries

In a Pod its service account needs get and update on the Secrets by their names, and create.
"""

USERNAME, PASSWORD, SHA256_HEX = "username", "password", "password_sha256_hex"
PASSWORD_BYTES = 32  # of randomness; as text 43 letters, digits, - and _, which no format minds
NOT_FOUND, CONFLICT = 404, 409
ATTEMPTS = 5  # another one that does the same at this moment wins once for each Secret

Secret = dict[str, Any]


@dataclass(frozen=True)
class User:
    """A user, and the Secrets that hold its password."""

    name: str
    secrets: tuple[ObjectName, ...]


def parse_user(text: str) -> User:
    """Read `USER=NAMESPACE/NAME[,NAMESPACE/NAME...]`; ArgumentTypeError says what is wrong."""
    name, separator, rest = text.partition("=")
    if not (name and separator):
        raise argparse.ArgumentTypeError(f"{text!r}: write USER=NAMESPACE/NAME[,NAMESPACE/NAME...]")
    try:
        return User(name, tuple(map(parse_object_name, rest.split(","))))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def add_arguments(commands: Commands, _: Connect) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "credentials",
        help="generate passwords into Secrets",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("users", nargs="+", type=parse_user, metavar="USER=NAMESPACE/NAME[,...]")
    parser.add_argument(
        "--kubeconfig", type=Path, help="the kubeconfig to use; default: the Pod's service account"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Settle the users' Secrets and print what became of each, without what is in it."""
    for line in asyncio.run(_settle_all(options.users, options.kubeconfig)):
        print(line)
    return 0


async def _settle_all(users: Sequence[User], kubeconfig: Path | None) -> list[str]:
    from flowvis.inventory.sources.api import KubernetesApi

    api = KubernetesApi(KubernetesSettings(kubeconfig=kubeconfig).access())
    api.open()
    try:
        return [line for user in users for line in await settle(api, user)]
    finally:
        await api.close()


async def settle(api: "KubernetesApi", user: User) -> list[str]:
    """Bring a user's Secrets up to date; ApiError or SettingsError where that cannot be."""
    done: dict[ObjectName, str] = {}
    for attempt in range(1, ATTEMPTS + 1):
        found = {name: await _find(api, name) for name in user.secrets}
        wanted = credentials(user, found)
        try:
            for name, secret in found.items():
                done[name] = await _write(api, name, secret, wanted) or done.get(name, "kept")
        except ApiError as error:
            if error.status != CONFLICT or attempt == ATTEMPTS:
                raise
        else:
            break
    return [f"Secret {name} of {user.name}: {what}" for name, what in done.items()]


def credentials(user: User, found: Mapping[ObjectName, Secret | None]) -> dict[str, bytes]:
    """Return what every Secret of a user has to say, given what they say now.

    SettingsError names what contradicts.
    """
    password, whose = b"", None
    for name, secret in found.items():
        texts = _texts(name, secret)
        if texts.get(USERNAME, user.name.encode()) != user.name.encode():
            is_now = texts[USERNAME].decode("utf-8", "replace")
            problem = f"username: {is_now!r}: the user is {user.name!r} here; change the Secret"
            raise SettingsError([f"Secret {name}: {problem}"])
        if PASSWORD not in texts:
            continue
        if not texts[PASSWORD]:
            problem = "password: empty: write one, or delete the key and one is generated"
            raise SettingsError([f"Secret {name}: {problem}"])
        if whose is not None and texts[PASSWORD] != password:
            problem = f"password: not that of Secret {whose}: delete the Secret that is wrong"
            raise SettingsError([f"Secret {name}: {problem}, and run this again"])
        if whose is None:
            password, whose = texts[PASSWORD], name
    password = password or secrets.token_urlsafe(PASSWORD_BYTES).encode()
    digest = hashlib.sha256(password).hexdigest()
    return {USERNAME: user.name.encode(), PASSWORD: password, SHA256_HEX: digest.encode()}


async def _find(api: "KubernetesApi", name: ObjectName) -> Secret | None:
    try:
        return await api.get(f"{_path(name)}/{name.name}", {})
    except ApiError as error:
        if error.status == NOT_FOUND:
            return None
        raise


async def _write(
    api: "KubernetesApi", name: ObjectName, secret: Secret | None, wanted: Mapping[str, bytes]
) -> str:
    """Create or complete a Secret; return what was done, "" where it was as it should be."""
    if secret is None:
        labels = {"app.kubernetes.io/part-of": "flowvis"}
        about = {"name": name.name, "namespace": name.namespace, "labels": labels}
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": "Opaque"}
        await api.create(_path(name), made | {"data": _encoded(wanted)})
        return "made"
    has = _texts(name, secret)
    missing = {key: text for key, text in wanted.items() if has.get(key) != text}
    if not missing:
        return ""
    data = (secret.get("data") or {}) | _encoded(missing)
    item = {"apiVersion": "v1", "kind": "Secret"} | secret | {"data": data}
    await api.replace(f"{_path(name)}/{name.name}", item)
    return f"completed: {', '.join(sorted(missing))}"


def _path(name: ObjectName) -> str:
    return f"/api/v1/namespaces/{name.namespace}/secrets"


def _texts(name: ObjectName, secret: Secret | None) -> dict[str, bytes]:
    """Return what a Secret says of a user."""
    data = (secret or {}).get("data") or {}
    texts = {}
    for key in (USERNAME, PASSWORD, SHA256_HEX):
        if key in data:
            try:
                texts[key] = base64.b64decode(str(data[key]), validate=True)
            except (binascii.Error, ValueError) as error:
                raise SettingsError([f"Secret {name}: {key}: not base64: {error}"]) from error
    return texts


def _encoded(texts: Mapping[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(text).decode() for key, text in texts.items()}
