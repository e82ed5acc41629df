"""Which location of nginx's configuration takes each path, and where it passes it. Nothing else of it is sent.

Prints {path: [[addresses], seconds]} with an entry for each server of the domain (of any, where none names it):
the addresses between which it divides the requests, as 127.0.0.1:3000 (none where that is not written there), and
the `proxy_read_timeout` in force. As nginx 1.26 chooses: see "location" in its manual.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

asked = json.loads(sys.argv[1])
UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
TOKEN = re.compile(r"""#[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[;{}]|(?:\$\{[^}]*\}|\\.|[^\s;{}\\])+""", re.DOTALL)
NAMES = r"^(localhost|\[::1\]|0\.0\.0\.0)(?=:|$)"


class Directive(NamedTuple):
    words: list[str]
    block: list[Directive]


class Location(NamedTuple):
    how: str  # `=`, `^~`, `~`, `~*`, or empty
    path: str
    passes: list[str]
    seconds: float


said = subprocess.run(["nginx", "-T"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace")
_, *parts = re.split(r"^# configuration file (.*):$", said.stdout, flags=re.MULTILINE)
files = dict(zip(parts[::2], parts[1::2], strict=True))


def tokens(text: str) -> Iterator[str]:
    return (token for token in TOKEN.findall(text) if not token.startswith("#"))


def directives(rest: Iterator[str]) -> Iterator[Directive]:
    words: list[str] = []
    for token in rest:
        if token == "}":
            return
        if token not in (";", "{"):
            words.append(token[1:-1] if token[0] in "\"'" else token)
            continue
        block = list(directives(rest)) if token == "{" else []
        if words[:1] == ["include"]:
            pattern = os.path.join(os.path.dirname(next(iter(files))), words[-1])
            for name in fnmatch.filter(files, pattern):
                yield from directives(tokens(files[name]))
        elif words:
            yield Directive(words, block)
        words = []


def called(block: list[Directive], name: str) -> list[Directive]:
    return [each for each in block if each.words[0] == name]


def timeout(block: list[Directive], above: float) -> float:
    for each in called(block, "proxy_read_timeout"):
        given = re.fullmatch(r"(\d+)(\w*)", each.words[-1])
        above = int(given[1]) * UNITS.get(given[2], 1.0) if given else above
    return above


def locations(server: Directive, seconds: float) -> Iterator[Location]:
    for each in called(server.block, "location"):
        passes = [inner.words[-1] for inner in called(each.block, "proxy_pass")]
        yield Location("".join(each.words[1:-1]), each.words[-1], passes, timeout(each.block, seconds))


def takes(location: Location, path: str) -> bool:
    if location.how in ("~", "~*"):
        try:
            return re.search(location.path, path, re.IGNORECASE if location.how == "~*" else 0) is not None
        except re.error:  # Perl knows more than Python
            return False
    return path == location.path if location.how == "=" else path.startswith(location.path)


def chosen(all_: list[Location], path: str) -> Location | None:
    found = [each for each in all_ if takes(each, path)]
    prefixes = sorted((each for each in found if each.how in ("", "^~")), key=lambda each: len(each.path))
    exact = next((each for each in found if each.how == "="), None)
    if exact is None and prefixes and prefixes[-1].how == "^~":
        return prefixes[-1]
    return exact or next((each for each in found if each.how in ("~", "~*")), prefixes[-1] if prefixes else None)


def addresses(passes: list[str], upstreams: dict[str, list[str]]) -> list[str]:
    """Those in turn; neither a spare one nor one that is out of use."""
    place = re.fullmatch(r"https?://([^/$]+)(?:[/$].*)?", passes[-1]) if passes else None
    of = upstreams.get(place[1], [place[1]]) if place else []
    return list(dict.fromkeys(re.sub(NAMES, "127.0.0.1", each) for each in of))


if files:
    http = [
        each for block in called(list(directives(tokens(next(iter(files.values()))))), "http") for each in block.block
    ]
    upstreams = {
        each.words[1]: [
            server.words[1] for server in called(each.block, "server") if not {"backup", "down"} & {*server.words}
        ]
        for each in called(http, "upstream")
    }
    servers = called(http, "server")
    named = [
        each
        for each in servers
        if any(asked["domain"] in names.words[1:] for names in called(each.block, "server_name"))
    ]
    found: dict[str, list[tuple[list[str], float]]] = {path: [] for path in asked["paths"]}
    for server in named or servers:
        known = list(locations(server, timeout(server.block, timeout(http, 60.0))))
        for path in asked["paths"]:
            location = chosen(known, path)
            if location is not None and location.passes:
                found[path].append((addresses(location.passes, upstreams), location.seconds))
    print(json.dumps(found))
else:
    print(json.dumps({}))
