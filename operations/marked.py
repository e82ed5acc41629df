"""Blocks of ours in files of others: between two marker lines, everything else untouched."""

from settings import BadInput

BEGIN = ">>> ai-admin-deploy"
END = "<<< ai-admin-deploy"


def without(text: bytes, file: str) -> bytes:
    """The text without our blocks: what it was before `wrap`'s lines went in.

    Raises BadInput for a marker without its partner.
    """
    kept, begin = [], 0  # the line where the block in hand begins; 0 outside of one
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        begins, ends = BEGIN.encode() in line, END.encode() in line
        if begins if begin else ends and not begins:
            raise BadInput(_alone(file, begin or number))
        if begins:
            begin = number
        if not begin:
            kept.append(line)
        if ends:
            begin = 0
    if begin:
        raise BadInput(_alone(file, begin))
    return b"".join(kept)


def _alone(file: str, line: int) -> str:
    return f"{file}: line {line}: a marker of ours without its partner; remove the marker lines by hand"


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
