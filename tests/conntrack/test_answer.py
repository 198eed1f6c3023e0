"""Answers in pieces, of all sizes, against the same read whole."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowvis.conntrack.sources.answer import MOST_BESIDE, Answer

TEXTS = st.text(st.sampled_from('\n\\"}a\x1fö\ud800\U0001f600nu'), max_size=40)


def heard(data: bytes, places: list[int]) -> tuple[object, list[bytes]]:
    """The answer, and what was handed on, when the data comes cut at these places."""
    taken: list[bytes] = []
    answer = Answer(taken.append)
    ends = sorted({0, *(place % len(data) for place in places), len(data)})
    found = [answer.feed(data[start:end]) for start, end in pairwise(ends)]
    assert not any(found[:-1])
    return found[-1], taken


@given(TEXTS, st.lists(st.integers(0, 1000)), st.booleans(), st.booleans())
@example("\\n\n\\", [24, 25, 26, 27], False, False)
@example('"\n', list(range(60)), True, True)
def test_pieces_are_the_whole(text: str, places: list[int], plain: bool, last: bool) -> None:
    members: dict[str, Any] = {"id": 0, "error": None}
    members = members | {"result": text} if last else {"result": text} | members
    ascii_only = plain or "\ud800" in text
    data = json.dumps(members, ensure_ascii=ascii_only, separators=(",", ":") if plain else None)
    answer, taken = heard(data.encode(), places)
    assert answer == members | {"result": ""}
    assert b"".join(taken) == text.encode(errors="replace")
    assert all(part.endswith(b"\n") for part in taken[:-1])


@given(TEXTS, st.lists(st.integers(0, 1000)))
def test_a_refusal_has_no_lines(text: str, places: list[int]) -> None:
    members = {"id": 0, "error": f'"result":"{text}', "result": None}
    assert heard(json.dumps(members).encode(), places) == (members, [])


@pytest.mark.parametrize("beginning", [b"", b'{"id":0,"result":"', b'{"result":"","error":"'])
def test_what_has_no_line_ends_is_cut(beginning: bytes) -> None:
    answer = Answer(lambda _: None)
    answer.feed(beginning)
    assert answer.feed(b"x" * (MOST_BESIDE - len(beginning))) is None
    with pytest.raises(ValueError, match="more than 1 MiB without a line's end"):
        answer.feed(b"x" * (len(beginning) + 1))


@pytest.mark.parametrize("text", [b"\\x\\n", b"\xff\\n", b"a\nb\\n", b"\0\\n"])
def test_what_is_no_text_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Answer(lambda _: None).feed(b'{"result":"' + text)
