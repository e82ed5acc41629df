from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operations import marked
from settings import BadInput

_line = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
_lines = st.lists(_line, max_size=6)


@given(_lines, _lines, _lines, st.sampled_from([b"\n", b"\r\n"]), st.booleans())
def test_without_undoes_wrap(before: list[str], body: list[str], after: list[str], eol: bytes, ended: bool) -> None:
    above = b"".join(line.encode() + eol for line in before)
    below = eol.join(line.encode() for line in after) + (eol if ended else b"")
    block = marked.wrap("\n".join(body), "//", eol)
    assert marked.without(above + block + below, "file.js") == above + below
    assert marked.without(above + below, "file.js") == above + below


def test_wrap_uses_the_files_line_ends() -> None:
    assert marked.wrap("a\nb\n", "    #", b"\r\n").split(b"\r\n") == [
        b"    # >>> ai-admin-deploy: edits between these two lines are lost",
        b"a",
        b"b",
        b"    # <<< ai-admin-deploy",
        b"",
    ]


@pytest.mark.parametrize(("text", "eol"), [(b"", b"\n"), (b"a\n", b"\n"), (b"a\r\nb\n", b"\r\n"), (b"a", b"\n")])
def test_line_ends(text: bytes, eol: bytes) -> None:
    assert marked.eol_of(text) == eol


BEGIN, END = b"# >>> ai-admin-deploy\n", b"# <<< ai-admin-deploy\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"a\n" + BEGIN + b"b\n", 2),
        (b"a\nb\n" + END, 3),
        (END + BEGIN, 1),
        (BEGIN + BEGIN + END, 1),
        (BEGIN + END + END, 3),
        (BEGIN + END + BEGIN, 3),
        (BEGIN + BEGIN + END + END, 1),
    ],
)
def test_damaged_markers_are_refused(text: bytes, line: int) -> None:
    with pytest.raises(BadInput, match=rf"^site: line {line}: a marker of ours without its partner; "):
        marked.without(text, "site")


def test_each_block_goes() -> None:
    assert marked.without(b"a\n" + BEGIN + b"x\n" + END + b"b\n" + BEGIN + END + b"c\n", "f") == b"a\nb\nc\n"
    assert marked.without(BEGIN.replace(b"\n", b" ") + END, "f") == b"", "both markers on one line are a pair"


def test_indent_leaves_blank_lines_blank() -> None:
    assert marked.indent("a\n\n  b", "    ") == "    a\n\n      b"


def test_what_is_before_a_block_on_its_line_stays() -> None:
    """A block of ours once stood in the middle of one."""
    text = b"const x = 1; // >>> ai-admin-deploy: edits\nours\n// <<< ai-admin-deploy\nmodule.exports = x;\n"
    assert marked.without(text, "f") == b"const x = 1; module.exports = x;\n"
    assert marked.without(b"a\n\t  # >>> ai-admin-deploy\n\t  # <<< ai-admin-deploy\nb\n", "f") == b"a\nb\n"
