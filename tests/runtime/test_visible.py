import json
import unicodedata

import pytest

from flowvis.runtime.visible import visible, visible_json

PLAIN = ["", "web-0", "Ünïcode", "日本語 🙂", "a\\nb", "e\N{COMBINING ACUTE ACCENT}"]


@pytest.mark.parametrize("text", PLAIN)
def test_what_can_be_seen_stays(text: str) -> None:
    assert visible(text) == text
    assert json.loads(visible_json(text)) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\r\t\0", r"a\nb\r\t\x00"),
        ("\x1b[2J\x9b2J\x85\x7f", r"\x1b[2J\x9b2J\x85\x7f"),
        ("\u202egnp.exe\u2066\u2069", r"\u202egnp.exe\u2066\u2069"),
        ("a\u2028b\u2029\u200b\ufeff", r"a\u2028b\u2029\u200b\ufeff"),
        ("\U000e0041\ud800", r"\U000e0041\ud800"),
    ],
)
def test_what_cannot_is_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_character_of_the_kinds_that_act() -> None:
    for code in range(0x110000):
        letter = chr(code)
        if unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
            assert visible(letter).isprintable()


def test_json_says_the_same_and_is_as_harmless() -> None:
    value = {"a\n\x9b": ["\u202e", "\U000e0041", "ü", 1, None], "b": {"c": "\x1b"}}
    text = visible_json(value)
    assert text.isprintable()
    assert "ü" in text
    assert json.loads(text) == value
    assert json.loads(visible_json(value, indent=2)) == value
    assert "\n  " in visible_json(value, indent=2)
