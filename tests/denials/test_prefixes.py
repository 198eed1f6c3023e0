import pytest

from flowvis.denials.prefixes import PRESETS, Prefixes, Verdict, parse_pattern
from flowvis.fields import RuleAction

DROP, REJECT = RuleAction.DROP, RuleAction.REJECT


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        (
            "flowvis:drop:ingress:shop/deny-all:0",
            Verdict(name="deny-all", namespace="shop", rule="0"),
        ),
        ("flowvis:reject:egress:shop/p:r:s", Verdict(REJECT, True, "p", "shop", 0, "r:s")),
        ("flowvis:Drop:Egress:cluster-wide", Verdict(egress=True, name="cluster-wide")),
        ("flowvis:drop:ingress: ", Verdict()),
        ("flowvis:reject:", Verdict(REJECT)),
        ("flowvis:allow:ingress:shop/p:0", None),
        ("IN DROP: ", Verdict()),
        ("", Verdict()),
        # Felix, since the kind stands before the name
        ("DPI0|np/shop/default.deny", Verdict(name="default.deny", namespace="shop", rule="0")),
        ("DPE88|gnp/default.deny", Verdict(egress=True, name="default.deny", rule="88")),
        (
            "DPI3|knp/shop/knp.default.deny-all",
            Verdict(name="deny-all", namespace="shop", type=1, rule="3"),
        ),
        ("DPI0|kcnp/kcnp.kube-admin.no-db", Verdict(name="no-db", type=4, rule="0")),
        ("DPI|knp/shop/knp.default.web", Verdict(name="web", namespace="shop", type=1)),
        ("APE999|np/shop/default.web", None),
        ("PPI|tier-1", None),
        ("DPI0|snp/shop/default.deny", None),
        ("DPI2|sgnp/default.deny", None),
        ("DPI88|gnp/_12IXaBP_RSTUVWXYZ0", Verdict(name="_12IXaBP_RSTUVWXYZ0", rule="88")),
        ("DPI1|np/shop_12IXaBP_RSTUVWXYZ0", Verdict(name="shop_12IXaBP_RSTUVWXYZ0", rule="1")),
        # and before
        ("DPI0|shop/default.deny", Verdict(name="default.deny", namespace="shop", rule="0")),
        (
            "DPE1|shop/knp.default.deny-all",
            Verdict(egress=True, name="deny-all", namespace="shop", type=1, rule="1"),
        ),
        ("DPI1|default.deny", Verdict(name="default.deny", rule="1")),
        ("DPI1|shop/default.staged:deny", None),
        # the end of a tier, and of the profiles
        ("DPE|tier-1", Verdict(egress=True, rule="tier-1")),
        ("DRI", Verdict()),
        ("DRE", Verdict(egress=True)),
        ("PRE999|short.profile.name", None),
    ],
)
def test_what_is_written_by_default(prefix: str, expected: Verdict | None) -> None:
    assert Prefixes().verdict(prefix.encode() + b"\0") == expected


def test_kube_router_rejects_without_a_prefix() -> None:
    prefixes = Prefixes(("kube-router", "flowvis"))
    assert prefixes.verdict(b"\0") == Verdict(REJECT)
    assert prefixes.verdict(b"flowvis:drop:egress:a/b:c") == Verdict(DROP, True, "b", "a", 0, "c")


@pytest.mark.parametrize(
    ("pattern", "prefix", "expected"),
    [
        (r"NO(?P<egress>-OUT)? (?P<policy>\S+)", "NO-OUT web", Verdict(egress=True, name="web")),
        (r"NO(?P<egress>-OUT)? (?P<policy>\S+)", "NO web", Verdict(name="web")),
        (r"deny(?P<reject>)(?P<egress>).*", "deny it", Verdict(REJECT, True)),
        (r"ok.*(?P<allow>)", "ok then", None),
        (r"(?P<action>R|D)/(?P<direction>out|in)(?P<drop>)", "R/out", Verdict(DROP, True)),
        (r"(?P<direction>out)(?P<ingress>)", "out", Verdict()),
        (
            r"(?P<type>\w+) (?P<policy>.*)",
            "AntreaClusterNetworkPolicy x",
            Verdict(name="x", type=3),
        ),
    ],
)
def test_patterns_of_ones_own(pattern: str, prefix: str, expected: Verdict | None) -> None:
    assert Prefixes((pattern,)).verdict(prefix.encode()) == expected


def test_what_is_no_utf8_is_read_nevertheless() -> None:
    assert Prefixes().verdict(b"flowvis:drop:ingress:a/\xff:r") == Verdict(
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
