"""Texts to trees and back, and what is said of texts that are none."""

import pytest

from flowvis.filters import (
    EVERYTHING,
    Comparison,
    FilterError,
    Operator,
    Search,
    Value,
    all_of,
    any_of,
    literals,
    parse,
    quote,
)
from flowvis.filters.parser import MAX_CONDITIONS, MAX_DEPTH, MAX_VALUES
from flowvis.filters.tokens import MAX_LENGTH
from flowvis.filters.tree import And, Not, Or
from flowvis.questions.times import parse_moment


def is_(name: str, text: str, *, glob: bool = False) -> Comparison:
    return Comparison(name, Operator.IS, (Value(text, glob),))


A, B, C = is_("pod", "a"), is_("node", "b"), is_("proto", "tcp")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("", EVERYTHING),
        (" \n", EVERYTHING),
        ("pod = a", A),
        ("POD==a", A),
        ("source.Pod = a", is_("src.pod", "a")),
        ("to.pod = a", is_("dst.pod", "a")),
        ("protocol = tcp", C),
        ("SOURCEPODNAME = a", is_("sourcePodName", "a")),
        ("label.App.k8s.io/n = a", is_("label.App.k8s.io/n", "a")),
        ("from.LABEL.A = a", is_("src.label.A", "a")),
        ("pod = shop/cart-*", is_("pod", "shop/cart-*", glob=True)),
        ('pod = "shop/cart-*"', is_("pod", "shop/cart-*")),
        (r'pod = "a\"b\\c\d"', is_("pod", r'a"b\c\d')),
        (r"pod = 'it\'s'", is_("pod", "it's")),
        ("pod = 'two\nlines'", is_("pod", "two\nlines")),
        ("pod = a and node = b", And((A, B))),
        ("pod = a && node = b AND proto = tcp", And((A, B, C))),
        ("pod = a or node = b and proto = tcp", Or((A, And((B, C))))),
        ("(pod = a || node = b) and proto = tcp", And((Or((A, B)), C))),
        ("(pod = a and node = b) and proto = tcp", And((A, B, C))),
        ("not pod = a and node = b", And((Not(A), B))),
        ("!(pod = a and node = b)", Not(And((A, B)))),
        ("not not pod = a", Not(Not(A))),
        ("pod != a", Comparison("pod", Operator.IS_NOT, (Value("a"),))),
        ("pod !~ ^a", Comparison("pod", Operator.MATCHES_NOT, (Value("^a"),))),
        ("pod ~ a.*b", Comparison("pod", Operator.MATCHES, (Value("a.*b"),))),
        ("port >= 10k", Comparison("port", Operator.AT_LEAST, (Value("10k"),))),
        ("port in 80", Comparison("port", Operator.IN, (Value("80"),))),
        ("port not in (80,443)", Comparison("port", Operator.NOT_IN, (Value("80"), Value("443")))),
        ("port in 8000-8999", Comparison("port", Operator.IN, (Value("8000-8999"),))),
        ("rate = 1k..1Mbit/s", is_("rate", "1k..1Mbit/s")),
        ("port is empty", Comparison("port", Operator.EMPTY)),
        ("pod is empty", Comparison("pod", Operator.EMPTY)),
        ("pod IS NOT Empty", Comparison("pod", Operator.NOT_EMPTY)),
        ("cart", Search("cart")),
        ('"pod" or 10.1.', Or((Search("pod"), Search("10.1.")))),
        ('pod = "and"', is_("pod", "and")),
        ("pod = Ünï-日本", is_("pod", "Ünï-日本")),
    ],
)
def test_texts_and_trees(text: str, tree: object) -> None:
    found = parse(text)
    assert found == tree
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "marked", "expected", "suggestion"),
    [
        ("namspace = a", "namspace", "namespace", "namespace"),
        ("src.nod = a", "src.nod", "node", "src.node"),
        ("a and sourcePodNam = b", "sourcePodNam", "pod", "sourcePodName"),
        ("src.service = a", "src.service", "service", "service"),
        ("timeInserted > 1", "timeInserted", None, "end"),
        ("label. = a", "label.", "label.KEY", None),
        ("pod", "", "=", None),
        ("pod and node = b", "pod", "=", '"pod"'),
        ("pod =", "", "text", None),
        ("pod = and", "and", "text", '"and"'),
        ("port =)", ")", "number", None),
        ("pod < a", "<", "=", None),
        ("pod ~ a and pod <= b", "<=", "~", None),
        ("port in (80, 9000-8000)", "9000-8000", None, "8000-9000"),
        ("port in 1-70000", "1-70000", None, None),
        ("bytes in 1MB..", "1MB..", "10MB", None),
        ("bytes in 1-2MB", "1-2MB", None, "1..2MB"),
        ("proto = tpc", "tpc", "tcp", "tcp"),
        ("proto = 256", "256", None, None),
        ("type in (inter-node, internal)", "internal", "inter-node", "inter-node"),
        ("verdict = denyed", "denyed", "denied", "denied"),
        ("port = http", "http", "10k", None),
        ("port = 65536", "65536", None, None),
        ("bytes > 10XB", "10XB", "10MB", None),
        ("bytes > 1.5", "1.5", None, None),
        ("bytes > 18446744073709551616", "18446744073709551616", None, None),
        ("bytes > -1", "-1", "10MB", None),
        ("rate > 1Gbits", "1Gbits", "1Gbit/s", "1Gbit/s"),
        ("duration > 5 m", "m", "and", None),
        ("duration > 5x", "5x", "1h30m", None),
        ("start > yesterday", "yesterday", "2026-01-31", None),
        ("start > 1969-12-31", "1969-12-31", None, None),
        ("start > 2026", "2026", "2026-01-31", None),
        ("start in 2026-01", "2026-01", "2026-01-31", None),
        ("ip = 10.0.0", "10.0.0", "10.0.0.0/8", None),
        ("ip in (10.0.0.0/33)", "10.0.0.0/33", "10.0.0.0/8", None),
        ("pod ~ '(a'", "'(a'", None, None),
        (r"pod ~ '(a)\1'", r"'(a)\1'", None, None),
        ("pod = shop/", "shop/", None, "shop/*"),
        ("policy = k9s:a", "k9s:a", "k8s", "k8s"),
        ("pod in (a b)", "b", ")", None),
        ("pod in ()", ")", "text", None),
        ("pod in (a", "", ",", None),
        ("pod not = a", "=", "in", None),
        ("pod is a", "a", "empty", None),
        ("cart orders", "orders", "or", None),
        ("pod = a an node = b", "an", "and", "and"),
        ("(pod = a", "", ")", None),
        ("pod = a)", ")", "and", None),
        ("'pod' = a", "=", "and", None),
        ("and pod = a", "and", "not", None),
        ("not", "", "(", None),
        ("a or", "", "a name", None),
        ("cart*", "cart*", None, "cart"),
        ("c*t", "c*t", None, None),
        ("' '", "' '", None, None),
        ("a & b", "&", "and", "&&"),
        ("a \x07", "\x07", None, None),
        ("pod = 'a", "'a", "'", None),
        ("pod = \ud800", "\ud800", None, None),
    ],
)
def test_what_is_wrong_and_where(
    text: str, marked: str, expected: str | None, suggestion: str | None
) -> None:
    with pytest.raises(FilterError) as raised:
        parse(text)
    error = raised.value
    assert text[error.position : error.position + error.length] == marked
    assert marked or error.position == len(text)
    assert error.suggestion == suggestion
    assert bool(error.expected) == bool(expected)
    assert expected is None or expected in error.expected
    assert error.message in str(error)
    assert f"at character {error.position + 1}" in str(error)
    assert suggestion is None or str(error).endswith(f"did you mean {suggestion}?")


def test_a_suggestion_in_place_of_what_is_wrong_is_a_filter() -> None:
    for text in ("namspace = a", "proto = tpc", "rate > 1Gbits", "a & b", "pod = in", "cart*"):
        with pytest.raises(FilterError) as raised:
            parse(text)
        error = raised.value
        before, after = text[: error.position], text[error.position + error.length :]
        parse(f"{before}{error.suggestion}{after}")


@pytest.mark.parametrize(
    "text",
    [
        "a" * (MAX_LENGTH + 1),
        "é" * (MAX_LENGTH // 2 + 1),
        "(" * (MAX_DEPTH + 1) + "a" + ")" * (MAX_DEPTH + 1),
        "not " * (MAX_DEPTH + 1) + "a",
        " or ".join(["a"] * (MAX_CONDITIONS + 1)),
        f"port in ({','.join(['1'] * (MAX_VALUES + 1))})",
        f"pod ~ '{'a' * 1025}'",
        "pod ~ '((a{1000}){1000}){1000}'",
    ],
)
def test_too_much_is_refused(text: str) -> None:
    with pytest.raises(FilterError):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * MAX_LENGTH,
        "(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH,
        "not " * MAX_DEPTH + "a",
        " or ".join(["a"] * MAX_CONDITIONS),
        f"port in ({','.join(['1'] * MAX_VALUES)})",
    ],
)
def test_as_much_as_there_may_be(text: str) -> None:
    parse(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-09-21", 1_789_948_800_000), ("20260921", 1_789_948_800_000),
        ("1789948800000", 1_789_948_800_000), ("100000000", 100_000_000), ("0", 0),
    ],
)  # fmt: skip
def test_a_date_is_one_as_it_is_in_ranges(text: str, ms: int) -> None:
    assert literals.moment(text) == ms
    if ms:
        assert parse_moment("from", text, 0) == ms


@pytest.mark.parametrize("text", ["1000000000", "1789948800", "4294967295"])
@pytest.mark.parametrize("name", ["end", "flowStartSeconds"])
def test_a_time_in_seconds_is_not_one_of_1970(name: str, text: str) -> None:
    """Records in JSON have seconds: copied from there, they chose all or nothing."""
    with pytest.raises(FilterError) as error:
        parse(f"{name} >= {text}")
    assert (error.value.position, error.value.suggestion) == (len(name) + 4, f"{text}000")
    with pytest.raises(FilterError, match="ms since 1970"):
        parse(f"{name} in (2026-09-21, {text}..{text}000)")
    assert literals.moment(f"{text}000") == int(f"{text}000")


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("10Mbps", 10_000_000), ("10MBPS", 10_000_000), ("10mbit/s", 10_000_000),
        ("10MBps", 80_000_000), ("10MB/s", 80_000_000), ("1KiBps", 8192), ("1Bps", 8),
    ],
)  # fmt: skip
def test_octets_in_a_second_are_eight_bits_each(text: str, bits: int) -> None:
    assert literals.rate(text) == bits


def test_filters_are_put_together_flat() -> None:
    assert (A & B) & C == A & (B & C) == And((A, B, C)) == all_of([A, B, C])
    assert (A | B) | C == A | (B | C) == Or((A, B, C)) == any_of([A, B, C])
    assert A & EVERYTHING == A == EVERYTHING & A == any_of([A])
    assert A | EVERYTHING == EVERYTHING
    assert parse(str((A | B) & C)) == (A | B) & C
    with pytest.raises(ValueError, match="nothing"):
        any_of([])


@pytest.mark.parametrize(
    "text",
    ["", "a", "a b", "*", "and", 'q"q', "back\\slash\\", "'", "a\nb", "\x00", "(", "日本", "a=b"],
)
def test_what_is_quoted_means_itself(text: str) -> None:
    assert parse(f"pod = {quote(text)}") == is_("pod", text)
