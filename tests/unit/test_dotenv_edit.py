"""The `.env` editor: on the torture set, on thousands of generated files, and by exact examples."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credentials import quoted
from remote import dotenv
from rules import APP_ID, JWT_SECRET, KEYS, PARTNER_TOKEN
from settings import BadInput
from tests.unit.conftest import Node
from tests.unit.dotenv_cases import CASES, REFUSED
from tests.unit.dotenv_oracle import check, edit, foreign

PLAIN = {JWT_SECRET: "q0vW3+/x9Qk=", PARTNER_TOKEN: "token", APP_ID: "12345"}
ODD = {JWT_SECRET: "a b#c $d", PARTNER_TOKEN: "it's «ключ»#", APP_ID: 'back\\slash "x"'}


def test_our_pattern_is_dotenvs(node: Node) -> None:
    ours = dotenv.LINE.replace(r"((?:\s*=\s*?|:\s+?)(", r"(?:\s*=\s*?|:\s+?)(").replace(r"+)?)\s*(?:#", r"+)?\s*(?:#")
    assert ours == node.ask("pattern")


def test_torture_set_is_large() -> None:
    assert len(CASES) >= 40
    assert set(CASES) > REFUSED


@pytest.mark.parametrize("values", [PLAIN, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize("case", CASES)
def test_torture_set(node: Node, case: str, values: dict[str, str]) -> None:
    edited = check(node, CASES[case], values)
    assert (edited.content is None) == (case in REFUSED), edited.failure


@pytest.mark.parametrize("case", CASES)
def test_torture_set_keeping_the_last(node: Node, case: str) -> None:
    """A key that the operator does not have, but that is there twice: the last stays as it is."""
    check(node, CASES[case], {}, KEYS)


EXAMPLES = {
    "in place": (b"A=1\nJWT_SECRET=old # ours\nB=2\n", b"A=1\nJWT_SECRET=new # ours\nB=2\n"),
    "at the end": (b"A=1\r\nB=2\r\n", b"A=1\r\nB=2\r\nJWT_SECRET=new\r\n"),
    "after a missing newline": (b"A=1\nB=2", b"A=1\nB=2\nJWT_SECRET=new\n"),
    "into nothing": (b"", b"JWT_SECRET=new\n"),
    "after a byte order mark": (b"\xef\xbb\xbf", b"\xef\xbb\xbfJWT_SECRET=new\n"),
    "export and indentation stay": (b"  export JWT_SECRET = 'old'\n", b"  export JWT_SECRET=new\n"),
    "the last duplicate's place": (b"JWT_SECRET=a\nA=1\nJWT_SECRET=b\nB=2\n", b"A=1\nJWT_SECRET=new\nB=2\n"),
    "a duplicate's comment stays": (b"JWT_SECRET=a # why\nJWT_SECRET=b\n", b"# why\nJWT_SECRET=new\n"),
    "a comment gets its space": (b"JWT_SECRET=a#why\n", b"JWT_SECRET=new #why\n"),
    "PEM before it": (b'K="B\nJWT_SECRET=x\nE"\nJWT_SECRET=a\n', b'K="B\nJWT_SECRET=x\nE"\nJWT_SECRET=new\n'),
    "away from what python-dotenv sees otherwise": (
        b"\xd0\x9a='\nJWT_SECRET=a\n'\nA=1\n",
        b"\xd0\x9a='\n'\nA=1\nJWT_SECRET=new\n",
    ),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example: str) -> None:
    old, new = EXAMPLES[example]
    assert edit(old, {JWT_SECRET: "new"}).content == new


def test_oracle_sees_a_lost_byte(node: Node) -> None:
    """The guard itself: what it must find different, it finds different."""
    whole = b"A=1 \r\n# c\n JWT_SECRET=x # d\nJWT_SECRET: y\n\xffB=2"
    assert foreign(node, whole) == b"A=1 \r\n# c\n # d\n\xffB=2"
    assert foreign(node, whole.replace(b"\r", b"")) != foreign(node, whole)


def test_refusal_says_what_to_do() -> None:
    failure = edit(b"JWT_SECRET=\n'quoted'\n", {JWT_SECRET: "new"}).failure
    assert failure == (
        ".env: JWT_SECRET and its value are on different lines, so nothing was written; join the two lines"
    )


# --- generated files

_values = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]) | st.sampled_from("#'\"`\\$ {}=")).map(
    str.strip
)


@st.composite
def _wanted(draw: st.DrawFn) -> dict[str, str]:
    """One to three of our keys, with values that can be written."""
    values = {}
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, unique=True)):
        value = draw(_values)
        try:
            quoted(key, value)
        except BadInput:
            value = "plain"
        values[key] = value
    return values


# A line of a file is one number, which picks one of each of these: far faster than a draw for each.
_BLANKS = ("", "", "", "", " ", "\t", "\u00a0")
_OTHERS = ("A", "B", "JWT_SECRET_OLD", "MY_JWT_SECRET", "jwt_secret", "x.y-z", "КЛЮЧ", "'JWT_SECRET'")
_PARTS = {
    "before": ("", "", "", " ", "\t", "\u00a0", "export ", "export\t", "  export ", "#", "# ", "#export ", "\ufeff"),
    "name": (*KEYS, *KEYS, *_OTHERS),
    "separator": ("=", "=", "=", "=", " = ", "= ", ": ", " ="),
    "quote": ("", "", "", "'", '"', "`"),
    "word": (
        *(
            "",
            "old",
            "a b",
            "é",
            "💇",
            "Ключ",
            "changeme",
            "a#b",
            "#",
            "JWT_SECRET=x",
            "it's",
            '"',
            "'",
            "`",
            "b'",
            'c"',
        ),
        *("\\n", "C:\\dir\\", "\\\\", "\\'", '\\"', "$A", "${A}", "\x00", "\u2028", "=", ":", "\v", "\x1c", "\x85"),
    ),
    "middle": ("", "", "", "", "", "", "\nJWT_SECRET=x\n", "\nA=x\n", "\n# don't\n", "\n\n"),
    "closing": (True, True, True, True, False),
    "after": ("", "", "", " ", "\t", " # c", "#c", " # it's", "\u00a0", "\u2028"),
    "only": ("", "", "", "", "", "", "before", "word", "middle"),
}
_LINES = math.prod(len(part) for part in _PARTS.values())


def _line(number: int) -> str:
    picked: dict[str, Any] = {}
    for name, part in _PARTS.items():
        number, index = divmod(number, len(part))
        picked[name] = part[index]
    if picked["only"]:
        return str(picked[picked["only"]])
    closing = picked["quote"] if picked["closing"] else ""
    return "{before}{name}{separator}{quote}{word}{middle}".format(**picked) + f"{closing}{picked['after']}"


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    lines = [_line(number) for number in draw(st.lists(st.integers(0, _LINES - 1), max_size=12))]
    ends = draw(st.sampled_from([["\n"], ["\n"], ["\r\n"], ["\r"], ["\n", "\r\n"]]))
    text = "".join(line.replace("\n", ends[0]) + ends[number % len(ends)] for number, line in enumerate(lines))
    if draw(st.booleans()):
        text = text.rstrip("\r\n")
    content = text.encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "cp1251"])), "replace")
    at = draw(st.integers(0, len(content)))
    return content[:at] + draw(st.just(b"") | st.binary(max_size=4)) + content[at:]


def test_generated_files(node: Node) -> None:
    count: Counter[str] = Counter()

    @settings(max_examples=2100)
    @given(_files(), _wanted(), st.booleans())
    def keeps_every_foreign_byte(old: bytes, values: dict[str, str], rest_once: bool) -> None:
        once = tuple(key for key in KEYS if key not in values) if rest_once else ()
        edited = check(node, old, values, once)
        count["edited" if edited.content is not None else "refused"] += 1

    keeps_every_foreign_byte()
    assert count.total() >= 2000
    assert count["refused"] < 0.02 * count.total(), count
