"""How a value is written: dotenv 17 and python-dotenv both read it back, or it is refused before anything is sent."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st

from credentials import quoted
from operations.dotenv import _new_secret
from rules import JWT_SECRET
from settings import BadInput
from tests.unit.conftest import Node

FORMS = {
    "": "''",
    "sk-abc_123": "sk-abc_123",
    "q0vW3+/x9Qk==": "q0vW3+/x9Qk==",
    "with spaces": "'with spaces'",
    "a#b": "'a#b'",
    "pa$$word": "'pa$$word'",
    'say "hi"': "'say \"hi\"'",
    "it's": '"it\'s"',
    "it's #1": '"it\'s #1"',
    "back\\slash": "'back\\slash'",
    "two\\\\": "two\\\\",
    "C:\\new 'x'": "C:\\new 'x'",
    'it\'s "quoted"': 'it\'s "quoted"',
    "токен": "'токен'",
    "💇": "'💇'",
    "`": "'`'",
}
REFUSED = [
    *("a\nb", "a\rb", "a\x00b", "a\tb", "\x7f", "a\u2028b", "a\x85b", "\udce9", "${HOME}"),
    *("'\"#", "'\"", "\\\\#", "#\\", '`it\'s "x"', 'it\'s "x"\ufeff', 'it\'s "x" '),
]


@pytest.mark.parametrize("value", FORMS)
def test_form(value: str) -> None:
    assert quoted("KEY", value) == FORMS[value]


@pytest.mark.parametrize("value", REFUSED)
def test_refused_by_name_and_without_the_value(value: str) -> None:
    with pytest.raises(BadInput) as refused:
        quoted("KEY", value)
    message = str(refused.value)
    assert message.startswith("KEY: ")
    assert "\n" not in message and (value == "#\\" or value not in message)


_nasty = st.sampled_from("#'\"`\\$ {}=:;!&|<>()*?~^%\u00a0\u200b\ufeff\u0130é")
_texts = (
    st.text(_nasty | st.sampled_from("abnrt"), max_size=8)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.text("ab #'$", min_size=1, max_size=8).map(lambda text: text * 512)  # up to 4 kB
    | st.text(max_size=4).map(lambda text: f"'{text}'")
)


def test_every_value_is_read_back_by_both(node: Node) -> None:
    count: Counter[str] = Counter()

    @settings(max_examples=1200)
    @given(_texts)
    def reads_the_same(value: str) -> None:
        try:
            line = f"A=1\n{JWT_SECRET}={quoted(JWT_SECRET, value)}\nB='2'\nC=\"3\"\nD=`4`\n"
        except BadInput:
            count["refused"] += 1
            return
        expected = {"A": "1", JWT_SECRET: value, "B": "2", "C": "3"}
        assert node.parse(line.encode()) == expected | {"D": "4"}
        assert dotenv_values(stream=io.StringIO(line)) == expected | {"D": "`4`"}
        count["written"] += 1

    reads_the_same()
    assert count["written"] > 600, count


def test_every_simple_value_can_be_written() -> None:
    """Whatever has not two kinds of quotes, no backslash and no `${` is written."""
    alphabet = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="\\'{")

    @settings(max_examples=300)
    @given(st.text(alphabet, min_size=1, max_size=50))
    def is_written(value: str) -> None:
        quoted("KEY", value)
        quoted("KEY", value.replace('"', "'"))

    is_written()


def test_our_own_secret_goes_bare() -> None:
    secret = _new_secret()
    assert len(secret) == 44
    assert quoted(JWT_SECRET, secret) == secret
