from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flowvis.errors import SettingsError
from flowvis.runtime.documents import MAX_DOCUMENT_BYTES
from flowvis.runtime.options import camel_case
from flowvis.runtime.settings import (
    MAX_PROBLEMS,
    Duration,
    effective,
    load,
    option,
    reference,
    section,
)


class Protocol(Enum):
    TLS = "tls"
    TCP = "tcp"


def even(text: str) -> int:
    if not text.isdigit() or int(text) % 2:
        raise ValueError("is not an even number")
    return int(text)


@dataclass(frozen=True)
class Filter:
    actions: tuple[str, ...] = option((), doc="Which", choices=("Allow", "Drop"))


@dataclass(frozen=True)
class Store:
    enable: bool = option(False, doc="Whether it is used", live=True)
    database_url: str = option("", doc="Where")
    commit_interval: Duration = option(8.0, doc="How often", minimum=1.0)
    password: str = option("", doc="Secret", env="STORE_PASSWORD", secret=True)

    def check(self) -> Iterator[tuple[str, str]]:
        if self.enable and not self.database_url:
            yield "databaseURL", "is required when enable is true"


@dataclass(frozen=True)
class Settings:
    protocol: Protocol = option(Protocol.TLS, doc="Which one | which other")
    max_ipfix_msg_size: int = option(0, doc="Bytes", minimum=0, maximum=65535)
    ratio: float = option(0.5, doc="Share", minimum=0, maximum=1)
    cluster_id: str = option("", doc="Name")
    path: Path | None = option(None, doc="File")
    names: tuple[str, ...] | None = option(None, doc="Names; none: all")
    even: int = option("2", doc="Even", parse=even, key="EVEN")
    workers: int = option(1, doc="Threads", env="WORKERS", minimum=1)
    click_house: Store = section(Store, doc="The store")
    filters: tuple[Filter, ...] = option((), doc="Filters")


def problems(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(Settings, text.encode(), env or {})
    return caught.value.problems


@dataclass(frozen=True)
class Unbounded:
    rate: float = option(1.0, doc="A second", minimum=-(10.0**300), env="RATE")


def read(text: str, env: dict[str, str] | None = None) -> Settings:
    return load(Settings, text.encode(), env or {})


@pytest.mark.parametrize("text", ["", "# nothing\n", "clickHouse:\nprotocol:\nEVEN: ''\n"])
def test_what_is_not_given_is_default(text: str) -> None:
    assert read(text) == Settings()


def test_every_kind_of_value() -> None:
    settings = read(
        """
        protocol: TCP
        maxIPFIXMsgSize: 512
        ratio: 1
        clusterID: "0123"
        path: /etc/x
        names: [a, b]
        EVEN: "4"
        clickHouse: {enable: true, databaseURL: tcp://x, commitInterval: 1m30s}
        filters: [{actions: [allow]}, {}]
        """
    )
    assert settings == Settings(
        protocol=Protocol.TCP,
        max_ipfix_msg_size=512,
        ratio=1.0,
        cluster_id="0123",
        path=Path("/etc/x"),
        names=("a", "b"),
        even=4,
        click_house=Store(enable=True, database_url="tcp://x", commit_interval=90.0),
        filters=(Filter(("Allow",)), Filter()),
    )


def test_all_problems_at_once_with_path_value_and_what_is_allowed() -> None:
    assert problems(
        """
        protocol: quic
        maxIPFIXMsgSize: 70000
        ratio: yes
        clusterID: 17
        names: a
        EVEN: "3"
        clickhouse: {}
        clickHouse: {commitInterval: 10ms, commitIntervall: 1s, enable: "on"}
        filters: [{actions: [Allow, 3]}, 7]
        """
    ) == [
        "clickhouse: unknown key; did you mean clickHouse?",
        "protocol: 'quic' is not allowed here: tls, tcp",
        "maxIPFIXMsgSize: 70000 is not allowed here: a whole number from 0 to 65535",
        "ratio: True is not allowed here: a number from 0 to 1",
        "clusterID: 17 is not allowed here: a text, in quotes",
        "names: 'a' is not allowed here: a list of a text",
        "EVEN: '3' is not an even number",
        "clickHouse.commitIntervall: unknown key; did you mean commitInterval?",
        "clickHouse.enable: 'on' is not allowed here: true or false",
        (
            "clickHouse.commitInterval: '10ms' is not allowed here: "
            "a duration such as 5s or 1m30s, at least 1s"
        ),
        "filters[0].actions[1]: 3 is not allowed here: Allow, Drop",
        "filters[1]: 7 is not allowed here: a mapping of keys to values",
    ]


@dataclass(frozen=True)
class Places:
    paths: tuple[Path, ...] = option((), doc="Files")
    path: Path = option(Path("/there"), doc="File")


@pytest.mark.parametrize("text", ['paths: ["/a", ""]', 'paths: ["/a", "b\\0"]', 'path: "b\\0"'])
def test_paths_that_are_none(text: str) -> None:
    """An empty one in a list would be the working directory; with a NUL nothing can be opened."""
    with pytest.raises(SettingsError, match=r"path(s\[1\])?: '.*' is not allowed here: a path"):
        load(Places, text.encode(), {})
    assert load(Places, b'path: ""', {}) == Places()


@pytest.mark.parametrize("text", [".inf", "-.inf", ".nan", "1.0e+999", str(2**1024 - 1)])
def test_numbers_that_nothing_can_be_reckoned_with(text: str) -> None:
    with pytest.raises(SettingsError, match=r"rate: .* is not allowed here: a number, at least"):
        load(Unbounded, f"rate: {text}".encode(), {})
    with pytest.raises(SettingsError, match=r"rate: .* is not allowed here: a number, at least"):
        load(Unbounded, b"", {"RATE": text})


def test_options_that_do_not_go_together() -> None:
    assert problems("clickHouse: {enable: true}") == [
        "clickHouse.databaseURL: is required when enable is true"
    ]


def test_unknown_key_without_a_likely_meaning_lists_what_is_known() -> None:
    assert problems("clickHouse: {zzz: 1}") == [
        "clickHouse.zzz: unknown key; known here: commitInterval, databaseURL, enable, password"
    ]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("".join(f"key{n}: 1\n" for n in range(9000)), 9000),
        (f"filters: [{'7, ' * 30_000}]", 30_000),
        (f"filters: [{'{actions: [x, y]}, ' * 5000}]", 10_000),
        (f"names: [{'[], ' * 4000}]\nzzz: 1", 4001),
    ],
)
def test_of_many_problems_the_first_have_lines_and_the_rest_is_counted(
    text: str, count: int
) -> None:
    found = problems(text)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == f"document: and {count - MAX_PROBLEMS} more problems"


def test_a_long_key_is_cut() -> None:
    (problem,) = problems(f"clickHouse: {{{'k' * 1000}: 1}}")
    assert problem.startswith(f"clickHouse.{'k' * 80}...: unknown key; known here: ")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "document: line 2, column 1: a is given twice"),
        ("clickHouse: {enable: true, enable: false}", "document: line 1, column 28: enable is"),
        ("- a\n", "document: a mapping of keys to values, not a list"),
        ("text", "document: a mapping of keys to values, not str 'text'"),
        ("a: [", "document: line 1"),
        ("? [a]\n: 1\n", "document: line 1, column 3: found unhashable key"),
        ("[" * 20000, "document: nested too deeply"),
        ("a: !!python/object:os.system {}", "document: line 1, column 4: could not determine"),
        ("a: 1\nb: [2024-13-01]", "document: line 2, column 5: this is no timestamp: a text needs"),
        ("a: 2024-01-01T25:00:00Z", "document: line 1, column 4: this is no timestamp"),
        ("2024-02-30: 1", "document: line 1, column 1: this is no timestamp"),
        ("a: 0b_", "document: line 1, column 4: this is no int"),
        ("a: !!int", "document: line 1, column 4: this is no int"),
        ("a: " + "9" * 5000, "document: line 1, column 4: this is no int"),
        ("a: 1" + ":59" * 300 + ".5", "document: line 1, column 4: this is no float"),
        ("a: !!bool maybe", "document: line 1, column 4: this is no bool"),
        ("a: !!timestamp soon", "document: line 1, column 4: this is no timestamp"),
    ],
)
def test_documents_that_are_none(text: str, problem: str) -> None:
    assert problems(text)[0].startswith(problem)


def test_document_that_is_too_large() -> None:
    assert problems(" " * (MAX_DOCUMENT_BYTES + 1)) == [
        f"document: {MAX_DOCUMENT_BYTES + 1} bytes; at most {MAX_DOCUMENT_BYTES} are allowed"
    ]


def test_document_that_is_no_text() -> None:
    with pytest.raises(SettingsError, match="document:"):
        load(Settings, b"clusterID: \xff", {})


def test_a_document_that_swells_stays_small_in_the_message() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9}]" for n in range(1, 5)]
    (*_, last) = problems("\n".join([*lines, "protocol: *a4"]))
    assert last.startswith("protocol: [[")
    assert len(last) < 500


def test_environment_wins_and_secrets_stay_hidden() -> None:
    settings = read(
        "workers: 2\nclickHouse: {password: a}", {"WORKERS": "3", "STORE_PASSWORD": "b"}
    )
    assert settings.workers == 3
    assert settings.click_house.password == "b"
    shown = yaml.safe_load(effective(settings))
    assert shown["clickHouse"]["password"] == "***"
    assert shown["workers"] == 3
    assert "17" not in problems("clickHouse: {password: 17}")[0]


@pytest.mark.parametrize("text", ["many", "0", "[", "1.5", "0x_", "2024-02-30"])
def test_bad_values_in_the_environment(text: str) -> None:
    (problem,) = problems("", {"WORKERS": text})
    assert problem.startswith("workers: ")
    assert problem.endswith("is not allowed here: a whole number, at least 1")


@given(
    st.builds(
        Settings,
        protocol=st.sampled_from(Protocol),
        max_ipfix_msg_size=st.integers(0, 65535),
        ratio=st.floats(0, 1),
        cluster_id=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])),
        path=st.none() | st.just(Path("/a b")),
        names=st.none() | st.lists(st.text("ab: #'\"-{}\\é", min_size=0)).map(tuple),
        even=st.sampled_from([0, 2, 4]),
        click_house=st.builds(
            Store,
            enable=st.just(False),
            database_url=st.sampled_from(["", "null", "1", "yes"]),
            commit_interval=st.integers(10**9, 10**14).map(lambda ns: ns / 1e9),
            password=st.just(""),
        ),
        filters=st.lists(st.builds(Filter, st.sampled_from([(), ("Drop",)]))).map(tuple),
    )
)
def test_the_effective_document_gives_the_same_settings(settings: Settings) -> None:
    assert load(Settings, effective(settings).encode(), {}) == settings


def test_reference_has_a_row_for_each_option() -> None:
    rows = reference(Settings).splitlines()
    assert len(rows) == 2 + 13
    assert rows[2] == "| `protocol` | `tls` | tls, tcp | Which one \\| which other | restart |"
    assert "| `clickHouse.enable` | `false` | true or false | Whether it is used | live |" in rows
    assert (
        "| `clickHouse.commitInterval` | `8s` | a duration such as 5s or 1m30s, at least 1s "
        "| How often | restart |"
    ) in rows
    assert (
        "| `clickHouse.password` |  | a text | Secret (environment: `STORE_PASSWORD`) | restart |"
    ) in rows
    assert "| `filters[].actions` | `[]` | list of Allow, Drop | Which | restart |" in rows


@pytest.mark.parametrize(
    ("attribute", "key"),
    [
        ("flow_collector_addr", "flowCollectorAddr"),
        ("database_url", "databaseURL"),
        ("commit_interval", "commitInterval"),
        ("max_ipfix_msg_size", "maxIPFIXMsgSize"),
        ("cluster_id", "clusterID"),
        ("observation_domain_id", "observationDomainID"),
        ("include_k8s_uids", "includeK8sUIDs"),
        ("s3_uploader", "s3Uploader"),
    ],
)
def test_keys_are_spelled_as_antrea_spells_them(attribute: str, key: str) -> None:
    assert camel_case(attribute) == key


def test_a_settings_class_that_is_declared_wrongly() -> None:
    @dataclass(frozen=True)
    class Bare:
        number: int = 1

    with pytest.raises(TypeError, match=r"Bare\.number is not declared"):
        load(Bare, b"", {})


def test_all_options_of_a_live_section_are_live() -> None:
    @dataclass(frozen=True)
    class Middle:
        store: Store = section(Store, doc="The store")
        filters: tuple[Filter, ...] = option((), doc="Filters")

    @dataclass(frozen=True)
    class Live:
        middle: Middle = section(Middle, doc="What is in the middle", live=True)
        other: int = option(0, doc="Another one")

    rows = reference(Live).splitlines()[2:]
    assert [row.rsplit("|", 2)[1].strip() for row in rows] == ["live"] * 5 + ["restart"]


@dataclass(frozen=True)
class Placed:
    address: str = option("127.0.0.1", doc="Where", in_pod="::")
    ask: bool = option(True, doc="Whether", in_pod=False)
    size: int = option(3, doc="How much")


POD = {"KUBERNETES_SERVICE_HOST": "192.0.2.1"}


@pytest.mark.parametrize("document", ["", "address:\nask:", "placed:\n"])
def test_defaults_of_a_pod(document: str) -> None:
    @dataclass(frozen=True)
    class Around:
        placed: Placed = section(Placed, doc="What is placed")

    cls = Around if "placed" in document else Placed
    found = load(cls, document.encode(), POD)
    assert getattr(found, "placed", found) == Placed("::", False, 3)
    found = load(cls, document.encode(), {"KUBERNETES_SERVICE_HOST": ""})
    assert getattr(found, "placed", found) == Placed("127.0.0.1", True, 3)


def test_the_reference_names_both_defaults() -> None:
    assert "| `127.0.0.1`; in a Pod `'::'` |" in reference(Placed)
    assert "| `true`; in a Pod `false` |" in reference(Placed)


@dataclass(frozen=True)
class Sized:
    size: int = option(1, doc="How much", minimum=1, maximum=5_000_000_000)
    name: str = option("", doc="Whose")


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1e+06", 10**6),
        ("1e6", 10**6),
        ("1.5e+03", 1500),
        ("4.294967295e+09", 0xFFFFFFFF),
        ("7.0", 7),
    ],
)
def test_whole_numbers_as_helm_writes_them(written: str, size: int) -> None:
    found = load(Sized, f"size: {written}".encode(), {})
    assert (found.size, type(found.size)) == (size, int)


@pytest.mark.parametrize("written", ["1e-3", "2.5", "1e99", "'1e+06x'", "1e+", ".inf", "9" * 30])
def test_numbers_that_are_not_whole(written: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(Sized, f"size: {written}".encode(), {})
    assert caught.value.problems[0].endswith("a whole number from 1 to 5000000000")


def test_a_text_that_looks_like_a_number_stays_one() -> None:
    assert load(Sized, b"name: 1e5", {}).name == "1e5"
