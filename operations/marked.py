"""Our blocks in other people's files: between two marker lines, all else untouched."""

import re

from settings import BadInput

BEGIN = ">>> ai-admin-deploy"
END = "<<< ai-admin-deploy"
_MARKER = re.compile(f"{BEGIN}|{END}".encode())
# from the line's start where nothing is before it there
_BLOCK = re.compile(f"(?:^[ \\t]*)?(?://|#) {BEGIN}((?!{BEGIN}|{END})(.|\n))*{END}.*\n?".encode(), re.MULTILINE)


def without(text: bytes, file: str) -> bytes:
    """The text without our blocks: what it was before `wrap`'s lines went in.

    Raises BadInput for a marker without its partner.
    """
    emptied = _BLOCK.sub(lambda block: b"\n" * block[0].count(b"\n"), text)
    if alone := _MARKER.search(emptied):
        line = emptied.count(b"\n", 0, alone.start()) + 1
        raise BadInput(f"{file}: line {line}: a marker of ours without its partner; remove the marker lines by hand")
    return _BLOCK.sub(b"", text)


def wrap(body: str, comment: str, eol: bytes) -> bytes:
    """The block: the markers as comments, the body between them, all with the file's line ends."""
    lines = [
        f"{comment} {BEGIN}: edits between these two lines are lost",
        *body.strip("\n").split("\n"),
        f"{comment} {END}",
        "",
    ]
    return eol.join(line.encode() for line in lines)


def indent(body: str, by: str) -> str:
    return "\n".join(by + line if line.strip() else "" for line in body.split("\n"))


def eol_of(text: bytes) -> bytes:
    return b"\r\n" if b"\r\n" in text else b"\n"
