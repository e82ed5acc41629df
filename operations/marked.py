"""Blocks of ours in files of others: between two marker lines, everything else untouched."""

from settings import BadInput

BEGIN = ">>> ai-admin-deploy"
END = "<<< ai-admin-deploy"


def without(text: bytes, file: str) -> bytes:
    """The text without our block: what it was before `wrap`'s lines went in.

    Raises BadInput for a marker without its partner.
    """
    lines = text.splitlines(keepends=True)
    begin = [number for number, line in enumerate(lines) if BEGIN.encode() in line]
    end = [number for number, line in enumerate(lines) if END.encode() in line]
    if not begin and not end:
        return text
    if len(begin) != 1 or len(end) != 1 or begin[0] > end[0]:
        number = (begin or end)[0] + 1
        raise BadInput(f"{file}: line {number}: a marker of ours without its partner; remove the marker lines by hand")
    return b"".join(lines[: begin[0]] + lines[end[0] + 1 :])


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
