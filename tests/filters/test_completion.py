"""What is offered at the cursor, `|` in the texts."""

from collections.abc import Sequence

import pytest

from flowvis.filters import FilterError, parse
from flowvis.filters.completion import MAX_OPTIONS, Completion, Known, complete

VALUES = {
    "src.namespace": ("kube-system", "shop", "my shop"),
    "pod": ("shop/cart-0", "shop/cart-1", "shop/orders-0"),
    "label": ("app", "k8s.io/name"),
    "src.label": ("app",),
    "label.app": ("cart", "web front"),
    "proto": ("tcp",),
}


def values(name: str, written: str) -> Sequence[Known]:
    texts = VALUES.get(name, ())
    return [Known(text, place) for place, text in enumerate(texts) if written.lower() in text]


def at(text: str) -> Completion:
    position = text.index("|")
    return complete(text.replace("|", "", 1), position, values)


@pytest.mark.parametrize(
    ("text", "options", "replaced"),
    [
        ("sourcePodNa|", ["sourcePodName", "sourcePodNamespace"], "sourcePodNa"),
        ("dst.ra|", ["dst.rate"], "dst.ra"),
        ("a and not dst.PO|", ["dst.pod", "dst.port", "dst.policy"], "dst.PO"),
        ("(src.ki|nd", ["src.kind"], "src.kind"),
        ("src.label.|", ["src.label.app"], "src.label."),
        ("label.k8|", ["label.k8s.io/name"], "label.k8"),
        ("not unenf|", ["verdict = unenforced"], "unenf"),
        ("pod = a and deni|", ["verdict = denied"], "deni"),
        ("pod |", ["=", "!=", "in", "not in", "~", "!~", "is empty", "is not empty"], ""),
        ("pod !|", ["!=", "!~"], "!"),
        ("pod n|", ["not in"], "n"),
        ("pod not |", ["in"], ""),
        ("pod is |", ["empty", "not empty"], ""),
        ("pod is not |", ["empty"], ""),
        (
            "port |= 3",
            ["=", "!=", "in", "not in", "<", "<=", ">", ">=", "is empty", "is not empty"],
            "",
        ),
        ("src.namespace = |", ["kube-system", "shop", '"my shop"'], ""),
        ("src.namespace=|", ["kube-system", "shop", '"my shop"'], ""),
        ("src.namespace = SH|", ["shop", '"my shop"'], "SH"),
        ('src.namespace = "my |', ['"my shop"'], '"my '),
        ("src.namespace = 's|hop' and a", ["kube-system", "shop", '"my shop"'], "'shop'"),
        ("pod in (shop/cart-0, ca|rt) or b", ["shop/cart-0", "shop/cart-1"], "cart"),
        ("pod in (shop/cart-0 |", [",", ")"], ""),
        ("label.app = w|", ['"web front"'], "w"),
        ("verdict = re|", ["rejected"], "re"),
        ("verdict in (none, D|", ["dropped", "denied", "rejected", "unenforced", "allowed"], "D"),
        ("proto = |", ["tcp", "udp", "sctp", "icmp", "icmpv6"], ""),
        ("kind = dep|", ["Deployment"], "dep"),
        ("cart |", ["and", "or"], ""),
        ("pod = a o|", ["or"], "o"),
        ("(pod = a |", ["and", "or", ")"], ""),
        ("bytes > |", [], ""),
        ("bogus = a and p|", [], "p"),
        ('"cart|', [], '"cart'),
    ],
)
def test_what_is_offered(text: str, options: list[str], replaced: str) -> None:
    found = at(text)
    assert [option.text for option in found.options] == options
    assert text.replace("|", "", 1)[found.start : found.end] == replaced


def test_an_empty_text_offers_short_names_first() -> None:
    options = at("|").options
    assert options[0].text == "namespace"
    assert all(option.kind in {"name", "word"} and len(option.text) < 16 for option in options)
    assert options[-1].text == "not"
    assert all(option.help for option in options if option.kind == "name")


def test_values_are_counted_and_the_whole_text_is_judged() -> None:
    found = at("pod = cart| and")
    assert [(option.kind, option.count) for option in found.options] == [("value", 0), ("value", 1)]
    assert isinstance(found.error, FilterError)
    assert found.error.position == len("pod = cart and")
    assert at("pod = cart|").error is None


@pytest.mark.parametrize(
    "text",
    ["|", "p|", "pod |", "pod !|", "pod is |", "pod not |", "src.namespace = |", "cart |", "(a |"],
)
def test_what_is_offered_can_be_gone_on_with(text: str) -> None:
    found = at(text)
    plain = text.replace("|", "", 1)
    assert found.options
    for option in found.options:
        made = plain[: found.start] + option.text + plain[found.end :]
        again = complete(f"{made} ", len(made) + 1, values)
        whole = again.error is None or not again.error.length
        assert whole or option.text.endswith("label."), made


def test_cursors_anywhere_and_texts_of_any_kind() -> None:
    text = "(src.pod = 'a b' or not ip in (10.0.0.0/8, ::1)) and cart"
    for position in range(-1, len(text) + 2):
        found = complete(text, position, values)
        assert 0 <= found.start <= found.end <= len(text)
        assert found.error is None
    for odd in ("\ud800", "'", "\x00", "((((", "not not", "&", "label. ="):
        assert complete(odd, 1, values).error is not None


def test_no_more_than_people_look_at() -> None:
    def many(_name: str, _written: str) -> Sequence[Known]:
        return [Known(f"pod-{number}") for number in range(1000)]

    assert len(complete("pod = ", 6, many).options) == MAX_OPTIONS
    parse("pod = pod-1")
