"""The reference page is about the language as it is."""

import re

from tools.docs import pages

from flowvis.filters import parse
from flowvis.filters.vocabulary import NAMES, SIDES

PAGE = pages()["filters.md"]


def test_every_example_of_the_page_is_a_filter() -> None:
    examples = PAGE.split("```\n")[1].splitlines()
    assert len(examples) > 5
    inline = re.findall(r"`([a-zA-Z./]+ (?:=|!=|<|>|in|~) [^`]+)`", PAGE)
    assert len(inline) > 3
    for text in examples + inline:
        parse(text)


def test_every_name_is_on_the_page() -> None:
    for name in NAMES:
        assert f"`{name.partition('.')[2] if name.partition('.')[0] in SIDES else name}`" in PAGE
