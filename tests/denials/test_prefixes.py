import base64
import hashlib

import pytest

from flowvis.denials.prefixes import PRESETS, DenialVerdict, Prefixes, parse_pattern
from flowvis.fields import RuleAction

DROP, REJECT = RuleAction.DROP, RuleAction.REJECT


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (
            "flowvis:drop:ingress:shop/deny-all:0",
            DenialVerdict(name="deny-all", namespace="shop", rule="0"),
        ),
        ("flowvis:reject:egress:shop/p:r:s", DenialVerdict(REJECT, True, "p", "shop", 0, "r:s")),
        ("flowvis:Drop:Egress:cluster-wide", DenialVerdict(egress=True, name="cluster-wide")),
        ("flowvis:drop:ingress: ", DenialVerdict()),
        ("flowvis:reject:", DenialVerdict(REJECT)),
        ("flowvis:allow:ingress:shop/p:0", None),
        ("IN DROP: ", DenialVerdict()),
        ("", DenialVerdict()),
        # Felix, since the kind stands before the name
        (
            "DPI0|np/shop/default.deny",
            DenialVerdict(name="default.deny", namespace="shop", rule="0"),
        ),
        ("DPE88|gnp/default.deny", DenialVerdict(egress=True, name="default.deny", rule="88")),
        (
            "DPI3|knp/shop/knp.default.deny-all",
            DenialVerdict(name="deny-all", namespace="shop", type=1, rule="3"),
        ),
        ("DPI0|kcnp/kcnp.kube-admin.no-db", DenialVerdict(name="no-db", type=4, rule="0")),
        ("DPI|knp/shop/knp.default.web", DenialVerdict(name="web", namespace="shop", type=1)),
        ("APE999|np/shop/default.web", None),
        ("PPI|tier-1", None),
        ("DPI0|snp/shop/default.deny", None),
        ("DPI2|sgnp/default.deny", None),
        # and before
        ("DPI0|shop/default.deny", DenialVerdict(name="default.deny", namespace="shop", rule="0")),
        (
            "DPE1|shop/knp.default.deny-all",
            DenialVerdict(egress=True, name="deny-all", namespace="shop", type=1, rule="1"),
        ),
        ("DPI1|default.deny", DenialVerdict(name="default.deny", rule="1")),
        ("DPI1|shop/default.staged:deny", None),
        # the end of a tier, and of the profiles
        ("DPE|tier-1", DenialVerdict(egress=True, rule="tier-1")),
        ("DRI", DenialVerdict()),
        ("DRE", DenialVerdict(egress=True)),
        ("PRE999|short.profile.name", None),
    ],
)
def test_what_is_written_by_default(prefix: str, expected: DenialVerdict | None) -> None:
    assert Prefixes().verdict(prefix.encode() + b"\0") == expected


def shortened(prefix: str) -> str:
    """What Felix makes of a prefix of 63 bytes or more."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(prefix.encode()).digest()).decode()
    return f"{prefix[:10]}_{digest[:41]}_{prefix[-10:]}"


LONG = "-".join(["policy"] * 10)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (f"DPI0|np/shop/default.{LONG}", DenialVerdict(rule="0")),
        (f"DPE12|np/{LONG}/default.x", DenialVerdict(egress=True, rule="12")),
        (f"DPE3|knp/shop/knp.default.{LONG}", DenialVerdict(egress=True, type=1, rule="3")),
        (f"DPI1|gnp/{LONG}", DenialVerdict(rule="1")),
        (f"DPI1|kcnp/kcnp.kube-admin.{LONG}", DenialVerdict(type=4, rule="1")),
        (f"DPI7|shop/knp.default.{LONG}", DenialVerdict(rule="7")),
        (f"DPE|{LONG}", DenialVerdict(egress=True)),
        (f"DPI|np/shop/{LONG}", DenialVerdict()),
        (f"DPI|np/a/default.{LONG}", DenialVerdict()),
        (f"DRE0|{LONG}", DenialVerdict(egress=True, rule="0")),
        (f"APE0|np/shop/default.{LONG}", None),
        (f"PPI|{LONG}", None),
        (f"DPI0|snp/shop/default.{LONG}", None),
        (f"DPI0|sgnp/default.{LONG}", None),
    ],
)
def test_names_of_shortened_prefixes_are_unknown(
    prefix: str, expected: DenialVerdict | None
) -> None:
    assert len(shortened(prefix)) == 63
    assert Prefixes().verdict(shortened(prefix).encode() + b"\0") == expected


def test_a_prefix_that_is_just_short_enough_is_whole() -> None:
    name = "a" * (62 - len("DPI0|np/shop/default."))
    found = Prefixes().verdict(f"DPI0|np/shop/default.{name}".encode())
    assert found == DenialVerdict(name=f"default.{name}", namespace="shop", rule="0")


def test_kube_router_rejects_without_a_prefix() -> None:
    prefixes = Prefixes(("kube-router", "flowvis"))
    assert prefixes.verdict(b"\0") == DenialVerdict(REJECT)
    assert prefixes.verdict(b"flowvis:drop:egress:a/b:c") == DenialVerdict(
        DROP, True, "b", "a", 0, "c"
    )


@pytest.mark.parametrize(
    ("pattern", "prefix", "expected"),
    [
        (
            r"NO(?P<egress>-OUT)? (?P<policy>\S+)",
            "NO-OUT web",
            DenialVerdict(egress=True, name="web"),
        ),
        (r"NO(?P<egress>-OUT)? (?P<policy>\S+)", "NO web", DenialVerdict(name="web")),
        (r"deny(?P<reject>)(?P<egress>).*", "deny it", DenialVerdict(REJECT, True)),
        (r"ok.*(?P<allow>)", "ok then", None),
        (r"(?P<action>R|D)/(?P<direction>out|in)(?P<drop>)", "R/out", DenialVerdict(DROP, True)),
        (r"(?P<direction>out)(?P<ingress>)", "out", DenialVerdict()),
        (
            r"(?P<type>\w+) (?P<policy>.*)",
            "AntreaClusterNetworkPolicy x",
            DenialVerdict(name="x", type=3),
        ),
    ],
)
def test_patterns_of_ones_own(pattern: str, prefix: str, expected: DenialVerdict | None) -> None:
    assert Prefixes((pattern,)).verdict(prefix.encode()) == expected


def test_what_is_no_utf8_is_read_nevertheless() -> None:
    assert Prefixes().verdict(b"flowvis:drop:ingress:a/\xff:r") == DenialVerdict(
        name="�", namespace="a", rule="r"
    )


@pytest.mark.parametrize("text", [*PRESETS, r"a(?P<policy>b+)"])
def test_patterns_that_are_taken(text: str) -> None:
    assert parse_pattern(text) == text


def test_a_pattern_that_is_none() -> None:
    with pytest.raises(
        ValueError, match=r"unterminated.*use flowvis, calico, kube-router or a reg"
    ):
        parse_pattern("a(b")
    for text in ("(" * 500 + ")" * 500, "a{99999999999999999999}"):
        with pytest.raises(ValueError, match="or a regular expression of Python"):
            parse_pattern(text)
