"""The port of dotenv 17's grammar reads what dotenv 17 reads: on the torture set and on 20,000 random files."""

from __future__ import annotations

import base64
import random
from collections import Counter

from remote import dotenv
from tests.unit.conftest import Node
from tests.unit.dotenv_cases import CASES

FILES = 20_000
CHUNK = 2000  # files in one question

# Whatever the grammar, JavaScript's \s, trim(), ^ and $, and the decoding of bytes may take in another way than Python.
PIECES = [
    *(b"A", b"B.c-d", b"JWT_SECRET", b"export", b"export ", b"_", b"0", b"x", b"yz", b"toString", "Ключ".encode()),
    *(b"=", b"=", b"=", b" = ", b":", b": ", b":\t", b"\n=", b"=\n"),
    *(
        b"'",
        b'"',
        b"`",
        b"'",
        b'"',
        b"`",
        b"\\'",
        b'\\"',
        b"\\`",
        b"''",
        b'""',
        b"\\",
        b"\\\\",
        b"\\n",
        b"\\r",
        b"\\\n",
    ),
    *(b"#", b" #", b"# c", b"#'", b'#"'),
    *(b" ", b"  ", b"\t", b"\v", b"\f", b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"\r\r\n"),
    *(chr(number).encode() for number in (0, 8, 0x1C, 0x1D, 0x1E, 0x1F, 0x7F, 0x85, 0xA0, 0x1680, 0x180E)),
    *(chr(number).encode() for number in (0x2000, 0x200A, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF)),
    *("é".encode(), "ı".encode(), "ſ".encode(), "\u212a".encode(), "٣".encode(), "💇".encode(), "💇‍♀️".encode()),
    *(
        b"\xff",
        b"\xd0",
        b"\xe2\x80",
        b"\xe2\x80\xff",
        b"\xf0\x9f\x92",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ),
    *(b"$A", b"${A}", b"{", b"a b", b"it's", b"A=1\n", b"A='1'\n", b'A="\n', b"A=`1\n2`\n"),
]


def made(seed: int, count: int) -> list[bytes]:
    """Half of them of any pieces, half of lines that look like assignments."""
    chance = random.Random(seed)  # noqa: S311 -- no secret, and the same files each time

    def some(most: int) -> bytes:
        return b"".join(chance.choices(PIECES, k=chance.randrange(most)))

    def line() -> bytes:
        key = chance.choice([b"A", b"B", b"JWT_SECRET", b"export A", b"x.y-z"])
        quote = chance.choice([b"", b"'", b'"', b"`"])
        closing = quote if chance.random() < 0.8 else b""
        return key + chance.choice([b"=", b": ", b" = "]) + quote + some(6) + closing + some(3) + b"\n"

    return [
        some(30) if number % 2 else b"".join(line() for _ in range(chance.randrange(1, 6))) for number in range(count)
    ]


def ours(content: bytes) -> dict[str, str]:
    return dotenv.parse(dotenv.line_feeds(content.decode(errors="replace")))


def theirs(node: Node, contents: list[bytes]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for at in range(0, len(contents), CHUNK):
        found += node.ask("parseAll", [base64.b64encode(content).decode() for content in contents[at : at + CHUNK]])
    return found


def differences(node: Node, contents: list[bytes]) -> list[tuple[bytes, dict[str, str], dict[str, str]]]:
    pairs = zip(contents, map(ours, contents), theirs(node, contents), strict=True)
    return [(content, our, their) for content, our, their in pairs if our != their]


def test_our_pattern_is_dotenvs_but_for_one_group(node: Node) -> None:
    """The group takes in the separator and the value: the end of an assignment whose value is empty."""
    more, less = r"((?:\s*=\s*?|:\s+?)(", r"+)?)\s*(?:#"
    assert dotenv.LINE.count(more) == dotenv.LINE.count(less) == 1
    without = dotenv.LINE.replace(more, more.replace("((?:", "(?:", 1)).replace(less, r"+)?\s*(?:#")
    assert without == node.ask("pattern")


def test_torture_set(node: Node) -> None:
    assert differences(node, [*CASES.values()]) == []


def test_random_files(node: Node) -> None:
    contents = made(17, FILES)
    assert differences(node, contents) == []
    keys = Counter(len(ours(content)) for content in contents)
    values = [value for content in contents for value in ours(content).values()]
    assert keys[0] < FILES / 2
    assert sum(keys[number] for number in (2, 3, 4, 5, 6)) > FILES / 4
    assert sum("\n" in value for value in values) > 1000  # the files are no plain ones
    assert sum(value == "" for value in values) > 1000


def test_a_difference_would_be_seen(node: Node) -> None:
    """The guard itself: Python's own idea of whitespace, where JavaScript has another."""
    content = "A=\x1c1\x85\nB=\ufeff2\n".encode()
    wrong = {key: value.strip() for key, value in ours(content).items()}
    assert differences(node, [content]) == []
    assert wrong != ours(content) == {"A": "\x1c1\x85", "B": "2"}


def test_where_assignments_are() -> None:
    text = "\n export A = ' 1 ' # c\nB:\n"
    first, second = dotenv.assignments(text)
    assert (first.key, first.value, text[first.start : first.end]) == ("A", " 1 ", "A = ' 1 '")
    assert text[first.match_start : first.match_end] == "\n export A = ' 1 ' # c"
    assert (second.key, second.value, text[second.start : second.end]) == ("B", "", "B:")
