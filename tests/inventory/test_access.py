import asyncio
import base64
import json
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from flowvis.errors import ApiError, SettingsError
from flowvis.inventory.settings import Enable, KubernetesSettings
from flowvis.inventory.sources.access import HOST, PORT, Access, InCluster, Kubeconfig
from flowvis.inventory.sources.api import KubernetesApi
from flowvis.lab.apiserver import ApiServer, kubeconfig, service_account
from flowvis.runtime.settings import load
from flowvis.transport.certificates import Issued, issue_ca, issue_client, issue_server
from ports import free_port

IN_A_POD = {HOST: "10.96.0.1", PORT: "443"}


def pem(issued: Issued) -> bytes:
    return issued.certificate.public_bytes(serialization.Encoding.PEM)


def test_a_pods_own_access(tmp_path: Path) -> None:
    account = service_account(tmp_path, "one\n", pem(issue_ca("cluster")))
    access = InCluster(IN_A_POD, account)
    assert access.url == "https://10.96.0.1:443"
    assert access.authorization() == "Bearer one"
    (tmp_path / "token").write_text("two")
    assert access.authorization() == "Bearer two"
    context = access.context()
    assert access.context() is context
    (tmp_path / "ca.crt").write_bytes(pem(issue_ca("cluster")))
    assert access.context() is not context
    assert context.check_hostname
    assert InCluster({HOST: "fd00::1", PORT: "443"}).url == "https://[fd00::1]:443"


def test_a_pods_own_access_that_lacks_something(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="KUBERNETES_SERVICE_HOST"):
        InCluster({})
    access = InCluster(IN_A_POD, tmp_path)
    with pytest.raises(ApiError, match=r"token: No such file"):
        access.authorization()
    (tmp_path / "token").write_text(" ")
    with pytest.raises(ApiError, match="token: empty"):
        access.authorization()
    for text in ("nothing", ""):  # of which `ssl` would trust whomever the system trusts
        (tmp_path / "ca.crt").write_text(text)
        with pytest.raises(ApiError, match="not PEM"):
            access.context()


async def get(access: Access) -> dict[str, Any]:
    api = KubernetesApi(access)
    api.open()
    try:
        return await api.get("/api/v1/pods", {})
    finally:
        await api.close()


@pytest.mark.parametrize("token", ["a\nb", "a\rb", "\0" * 900])
def test_a_damaged_token_is_an_error_of_the_access(tmp_path: Path, token: str) -> None:
    access = InCluster(IN_A_POD, service_account(tmp_path, token, pem(issue_ca("cluster"))))
    with pytest.raises(ApiError, match="the token for it has control characters"):
        asyncio.run(get(access))


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    async def scene() -> None:
        server = ApiServer(tokens={"secret"})
        await server.start()
        good = kubeconfig(tmp_path / "good", server.url, {"token": "secret"})
        bad = kubeconfig(tmp_path / "bad", server.url, {"token": "wrong"})
        assert (await get(Kubeconfig(good)))["items"] == []
        with pytest.raises(ApiError, match="401"):
            await get(Kubeconfig(bad))
        await server.stop()

    asyncio.run(scene())


def test_the_proxy_of_a_kubeconfig_is_on_the_way(tmp_path: Path) -> None:
    """The API server has a name that only the proxy knows."""
    ca = issue_ca("cluster")
    issue_server(ca, ["api.behind.example"]).write(tmp_path, "server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    trust = {"certificate-authority-data": base64.b64encode(pem(ca)).decode()}
    wanted = []

    async def scene() -> None:
        server = ApiServer(tls=context, tokens={"secret"})
        await server.start()

        async def through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            wanted.append(head.split(b"\r\n")[0])
            there, back = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await asyncio.gather(_copied(reader, back), _copied(there, writer))

        async with await asyncio.start_server(through, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            url = "https://api.behind.example:6443"
            user, way = {"token": "secret"}, {"proxy-url": f"http://127.0.0.1:{port}"}
            access = Kubeconfig(kubeconfig(tmp_path / "config", url, user, **trust, **way))
            assert (await get(access))["items"] == []
        await server.stop()

    asyncio.run(scene())
    assert wanted == [b"CONNECT api.behind.example:6443 HTTP/1.1"]
    socks = kubeconfig(tmp_path / "config", "https://a:1", {}, **{"proxy-url": "socks5://u:p@b:1"})
    with pytest.raises(SettingsError, match="proxy-url socks5: only http and https"):
        Kubeconfig(socks)


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


def test_a_token_in_a_file_of_its_own_is_read_for_each_request(tmp_path: Path) -> None:
    """As one that is replaced each hour; programs end files with a line."""
    (tmp_path / "token").write_text("one\n")
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", {"tokenFile": "token"})
    access = Kubeconfig(path)
    assert access.authorization() == "Bearer one"
    (tmp_path / "token").write_text("two")
    assert access.authorization() == "Bearer two"
    for bad in ("", "\n"):  # it is being written
        (tmp_path / "token").write_text(bad)
        assert access.authorization() == "Bearer two"
    (tmp_path / "token").unlink()
    assert access.authorization() == "Bearer two"
    (tmp_path / "token").write_text("")
    with pytest.raises(ApiError, match="token: empty"):
        Kubeconfig(path).authorization()


def test_a_kubeconfig_that_changes_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As when its certificates are renewed in it; until it is good what it had before counts."""
    cas = [issue_ca(f"cluster {number}") for number in range(2)]

    def write(number: int) -> Path:
        trust = {"certificate-authority-data": base64.b64encode(pem(cas[number])).decode()}
        url = f"https://127.0.0.1:{number + 1}"
        return kubeconfig(tmp_path / "config", url, {"token": f"t{number}"}, **trust)

    def trusted() -> set[str]:
        context = access.context()
        assert context is not None
        return {str(ca["subject"]) for ca in context.get_ca_certs() if "cluster" in str(ca)}

    access = Kubeconfig(write(0))
    assert access.authorization() == "Bearer t0"
    before, context = trusted(), access.context()
    good = write(1).read_text()
    for bad in ("", good[:40], "users: 7", "{}"):
        (tmp_path / "config").write_text(bad)
        for _ in range(2):
            assert access.authorization() == "Bearer t0"
            assert access.context() is context
    assert caplog.text.count("what it had before counts") == 4
    assert "t0" not in caplog.text
    write(1)
    assert access.authorization() == "Bearer t1"
    assert access.url == "https://127.0.0.1:2"
    assert len(trusted()) == 1
    assert trusted() != before


@pytest.mark.parametrize(
    ("name", "trust"),
    [
        ("127.0.0.1", {"certificate-authority": "ca.crt"}),
        ("elsewhere", {"certificate-authority": "ca.crt", "tls-server-name": "elsewhere"}),
        ("elsewhere", {"insecure-skip-tls-verify": True}),
    ],
)
def test_a_kubeconfig_with_a_certificate(tmp_path: Path, name: str, trust: dict[str, Any]) -> None:
    ca = issue_ca("cluster")
    issue_server(ca, [name]).write(tmp_path, "server")
    issue_client(ca, "me").write(tmp_path, "me")
    (tmp_path / "ca.crt").write_bytes(pem(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    user = {
        f"client-{what}-data": base64.b64encode((tmp_path / name).read_bytes()).decode()
        for what, name in (("certificate", "me.crt"), ("key", "me.key"))
    }
    if "certificate-authority" in trust:
        trust = {**trust, "certificate-authority": str(tmp_path / "ca.crt")}

    async def scene() -> None:
        server = ApiServer(tls=context)
        await server.start()
        access = Kubeconfig(kubeconfig(tmp_path / "config", server.url, user, **trust))
        assert access.authorization() == ""
        assert (await get(access))["items"] == []
        assert access.context() is access.context()
        await server.stop()

    asyncio.run(scene())


def test_files_of_a_kubeconfig_are_read_again_when_they_change(tmp_path: Path) -> None:
    """As a kubelet's certificate is replaced; its two files one after the other."""
    user = {"client-certificate": str(tmp_path / "me.crt"), "client-key": str(tmp_path / "me.key")}
    files = {"certificate-authority": str(tmp_path / "ca.crt")}

    async def scene() -> None:
        before: ssl.SSLContext | None = None
        access: Kubeconfig | None = None
        for _ in range(2):
            ca = issue_ca("cluster")
            issue_server(ca, ["127.0.0.1"]).write(tmp_path, "server")
            fresh = issue_client(ca, "me")
            if access is not None:
                (tmp_path / "me.crt").write_bytes(pem(fresh))
                assert access.context() is before
                (tmp_path / "ca.crt").unlink()
                assert access.context() is before
            fresh.write(tmp_path, "me")
            (tmp_path / "ca.crt").write_bytes(pem(ca))
            context = ssl.create_default_context(
                ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.crt"
            )
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
            server = ApiServer(tls=context, port=port)
            await server.start()
            if access is None:
                access = Kubeconfig(kubeconfig(tmp_path / "config", server.url, user, **files))
            assert (await get(access))["items"] == []
            before = access.context()
            await server.stop()

    port = free_port()
    asyncio.run(scene())


def plugin(script: Path) -> dict[str, Any]:
    """The user of a kubeconfig whose token a Python script gives."""
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(script)],
            "interactiveMode": "Never",
        }
    }


def test_a_kubeconfig_with_a_plugin_that_gives_tokens(tmp_path: Path) -> None:
    """The plugin is asked again when its token has expired."""
    soon = (datetime.now(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    script = tmp_path / "plugin.py"
    script.write_text(
        "import json, pathlib\n"
        f"calls = pathlib.Path({str(tmp_path / 'calls')!r})\n"
        "calls.write_text(calls.read_text() + 'x' if calls.exists() else 'x')\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1',\n"
        "  'kind': 'ExecCredential', 'status': {\n"
        f"  'token': 'token-' + calls.read_text(), 'expirationTimestamp': {soon!r}}}}}))\n"
    )
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1", plugin(script))
    access = Kubeconfig(path)
    first = access.authorization()
    assert first.startswith("Bearer token-x")
    assert access.authorization() == first + "x"


def test_a_plugin_that_does_not_say_when_its_token_ends(tmp_path: Path) -> None:
    """It is asked again when the server does not take it any more, and not for each request."""
    script, token, calls = (tmp_path / name for name in ("plugin.py", "token", "calls"))
    script.write_text(
        "import json, pathlib\n"
        f"with open({str(calls)!r}, 'a') as calls: calls.write('x')\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1',\n"
        "  'kind': 'ExecCredential',\n"
        f"  'status': {{'token': pathlib.Path({str(token)!r}).read_text()}}}}))\n"
    )

    async def scene() -> None:
        token.write_text("one")
        server = ApiServer(tokens={"one"})
        await server.start()
        access = Kubeconfig(kubeconfig(tmp_path / "config", server.url, plugin(script)))
        for _ in range(3):
            await get(access)
        assert calls.read_text() == "x"
        server.tokens = {"two"}
        token.write_text("two")
        with pytest.raises(ApiError, match="401"):
            await get(access)
        for _ in range(3):
            assert (await get(access))["items"] == []
        assert calls.read_text() == "xx"
        await server.stop()

    asyncio.run(scene())


def test_kubeconfigs_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"kubeconfig: .*absent"):
        Kubeconfig(tmp_path / "absent")
    for odd in ("{", "a", "[]", "clusters: 5"):
        (tmp_path / "odd").write_text(odd)
        with pytest.raises(SettingsError, match=r"kubeconfig: .*odd: is no kubeconfig"):
            Kubeconfig(tmp_path / "odd")
    (tmp_path / "empty").write_text("{}")
    with pytest.raises(SettingsError, match=r"kubeconfig: .*empty"):
        Kubeconfig(tmp_path / "empty")
    user = {"client-certificate": str(tmp_path / "a"), "client-key": str(tmp_path / "b")}
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    path = kubeconfig(tmp_path / "config", "https://127.0.0.1:1", user)
    with pytest.raises(ApiError, match="certificates cannot be used"):
        Kubeconfig(path).context()


@pytest.mark.parametrize(
    ("text", "in_a_pod", "files", "wanted"),
    [
        ("", False, (), False),
        ("", True, (), True),
        ("", True, (Path("x"),), False),
        ("enable: auto", True, (), True),
        ("enable: false", True, (), False),
        ("enable: true", False, (), True),
        ("enable: 'TRUE'", False, (), True),
        ("kubeconfig: /x", False, (), True),
        ("kubeconfig: /x\nenable: false", False, (), False),
    ],
)
def test_when_the_api_server_is_asked(
    text: str,
    in_a_pod: bool,
    files: tuple[Path, ...],
    wanted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(HOST, raising=False)
    if in_a_pod:
        monkeypatch.setenv(HOST, "10.96.0.1")
    settings = load(KubernetesSettings, text.encode(), {})
    assert settings.wanted(files) is wanted


def test_which_access_the_settings_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in IN_A_POD.items():
        monkeypatch.setenv(name, value)
    assert isinstance(KubernetesSettings().access(), InCluster)
    path = kubeconfig(tmp_path / "config", "http://127.0.0.1:1/", {"token": "t"})
    access = KubernetesSettings(kubeconfig=path).access()
    assert (access.url, access.authorization()) == ("http://127.0.0.1:1", "Bearer t")
    assert access.context() is None
    with pytest.raises(SettingsError, match=r"auto, true, false"):
        load(KubernetesSettings, json.dumps({"enable": "maybe"}).encode(), {})
    assert KubernetesSettings().enable is Enable.AUTO
