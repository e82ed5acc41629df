"""Edit `.env` in place: every byte that is not an assignment of ours stays as it is."""

import base64
import json
import os
import re
from collections.abc import Mapping, Sequence

from remote import Failure, files, pm2, services
from remote.dotenv import SPACE, Assignment, assignments, line_feeds, parse

Change = tuple[int, int, str]  # from, to, and what stands there instead

# A value that starts with a quote, and is not plain text between two of the same kind.
_ODD = re.compile(rf"""[\w.-]+[{SPACE}]*[=:][{SPACE}]*(?=['"`])(?!(['"])(?:(?!\1)[^\\]|\\(?!\1))*\1\Z)""", re.ASCII)
_BLANK = re.compile(rf"[{SPACE}]*(#[^\n]*)?")  # a line without an assignment

_JUDGE = """
const parse = require('module').createRequire(process.cwd() + '/')('dotenv').parse;
let input = '';
process.stdin.on('data', (chunk) => (input += chunk)).on('end', () =>
  console.log(JSON.stringify(JSON.parse(input).map((file) => parse(Buffer.from(file, 'base64'))))));
"""


class File:
    """A file as dotenv takes it: LF for CR and CRLF. `original[starts[i]]` is `text[i]`."""

    def __init__(self, original: str) -> None:
        self.original, self.text = original, line_feeds(original)
        self.starts = [*(match.start() for match in re.finditer(r"\r\n?|[\s\S]", original)), len(original)]
        self.found = assignments(self.text)

    def spliced(self, changes: Sequence[Change]) -> str:
        """The original with the changes made, which are in order."""
        parts, at = [], 0
        for start, end, put in changes:
            parts += [self.original[at : self.starts[start]], put]
            at = self.starts[end]
        return "".join([*parts, self.original[at:]])

    def around(self, each: Assignment) -> tuple[int, str, str]:
        """Where its line starts, and what stands before and after it in there (with the line end)."""
        line = self.text.rfind("\n", 0, each.start) + 1
        end = self.text.find("\n", each.end) + 1 or len(self.text)
        return line, self.text[line : each.start], self.text[each.end : end]

    def removal(self, each: Assignment) -> Change:
        """The whole line of the assignment, or where a comment stands beside it, all but the comment."""
        line, before, after = self.around(each)
        if re.fullmatch(r"[ \t]*(export[ \t]+)?", before) and re.fullmatch(r"[ \t]*\n?", after):
            return line, each.end + len(after), ""
        export = re.search(r"(export[ \t]+)?\Z", before)
        spaces = len(after) - len(after.lstrip(" \t"))
        return each.start - (len(export[0]) if export else 0), each.end + spaces, ""

    def is_plain_place(self, mine: Assignment) -> bool:
        """Would python-dotenv read an assignment here as dotenv does?

        Not where something odd before it may, to python-dotenv, be a value that goes on (a line that is not an
        assignment, a quote left open, a backslash before a quote), nor where its line or a later one is odd.
        """
        at = 0
        for each in self.found[: self.found.index(mine) + 1]:
            if not all(_BLANK.fullmatch(line) for line in self.text[at : each.match_start].split("\n")):
                return False
            if each is not mine and _ODD.match(self.text[each.start : each.end]):
                return False
            at = each.match_end
        line, before, after = self.around(mine)
        before = before.removeprefix("\ufeff") if line == 0 else before
        similar = rf"^[^#\n]*(?<![A-Za-z0-9_.-]){mine.key}'?[{SPACE}]*="
        return (
            re.fullmatch(r"[ \t]*(export[ \t]+)?", before) is not None
            and re.fullmatch(r"[ \t]*(#[^\n]*)?\n?", after) is not None
            and not re.search(similar, self.text[mine.end :], re.MULTILINE)
        )


def _appended(original: str, assignment: str) -> str:
    ends = re.findall(r"\r\n|\r|\n", original)
    end = ends[-1] if ends else "\n"
    complete = original.endswith(("\r", "\n")) or original in ("", "\ufeff")
    return f"{original}{'' if complete else end}{assignment}{end}"


def _candidates(original: str, key: str, literal: str | None) -> list[str]:
    """Texts that may do, the best first: `key` once, set to `literal`; None leaves its last assignment as it is."""
    file = File(original)
    mine = [each for each in file.found if each.key == key]
    if any(re.match(rf"[\w.-]+[{SPACE}]*[=:][{SPACE}]*?\n", file.text[each.start : each.end]) for each in mine):
        raise Failure(f".env: {key} and its value are on different lines, so nothing was written; join the two lines")
    removals = [file.removal(each) for each in mine]
    if literal is None:
        return [file.spliced(removals[:-1])]
    assignment = f"{key}={literal}"
    at_end = _appended(file.spliced(removals), assignment)
    if not mine or not file.is_plain_place(mine[-1]):
        return [at_end]
    last = mine[-1]
    gap = " " if file.text[last.end : last.end + 1] == "#" else ""  # python-dotenv wants one before a comment
    return [file.spliced([*removals[:-1], (last.start, last.end, assignment + gap)]), at_end]


def edit(content: bytes, values: Mapping[str, str], literals: Mapping[str, str], once: Sequence[str]) -> bytes:
    """Set each of `values`, written as in `literals`; of each key of `once` keep the last one. Raises Failure."""
    text = files.text(content)
    for key in [*values, *once]:
        before = parse(line_feeds(text))
        wanted = {**before, key: values[key]} if key in values else before
        fitting = [each for each in _candidates(text, key, literals.get(key)) if parse(line_feeds(each)) == wanted]
        if not fitting:
            raise Failure(
                f".env: {key} cannot be set without changing what other lines mean, so nothing was written; "
                "is a quote left open?"
            )
        text = fitting[0]
    return files.content(text)


def judge(app: str, folder: str, *contents: bytes) -> list[dict[str, str]]:
    """What the dotenv of the application in `folder` reads in each of these files. Raises Failure."""
    question = json.dumps([base64.b64encode(content).decode() for content in contents]).encode()
    done = pm2.run_node(app, "node", "-e", _JUDGE, stdin=question, cwd=folder)
    if done.status != 0:
        why = done.line_with("Error")
        raise Failure(f"the application's own dotenv cannot be run, so nothing was written (`npm ci` there?): {why}")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def write(
    deploy: str,
    *,
    path: str,
    app: str,
    values: Mapping[str, str],
    literals: Mapping[str, str],
    once: Sequence[str],
    expected: str | None,
) -> None:
    """Write the edited `.env`. The application's own dotenv must read in it what we mean, and no other change."""
    old = files.read(path) or b""
    new = edit(old, values, literals, once)
    before, after = judge(app, os.path.dirname(path), old, new)
    if after != {**before, **values}:
        raise Failure(
            ".env: the application's own dotenv would read a different value from ours, so nothing was written"
        )
    services.replace_file(deploy, services.of(app), pm2.processes(app), path, new, expected, 0o600, pm2.owner(app).ids)
