"""Which location of nginx's configuration takes each path, and where it passes it. Nothing else of it is sent.

Prints {name of a path: [[[addresses], seconds]]}, of the server of the domain at port 443 (where none names it, of the
only one): the addresses between which it divides the requests, as 127.0.0.1:3000 (none where that is not written
there), and the `proxy_read_timeout` in force. As nginx 1.26 chooses: see "location" in its manual. What a variable,
`try_files` or `rewrite` leads to is not followed.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

asked = json.loads(sys.argv[1])
UNITS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}
TOKEN = re.compile(r"""#[^\n]*|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[;{}]|(?:\$\{[^}]*\}|\\.|[^\s;{}\\])+""", re.DOTALL)
NAMES = r"^(localhost|\[::1\]|0\.0\.0\.0)(?=:|$)"


class Directive(NamedTuple):
    words: list[str]
    block: list[Directive]


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
                if name.count("/") == pattern.count("/"):  # a shell's `*` does not go down
                    yield from directives(tokens(files[name]))
        elif words:
            yield Directive(words, block)
        words = []


def called(block: list[Directive], name: str) -> list[Directive]:
    return [each for each in block if each.words[0] == name]


def timeout(block: list[Directive], above: float) -> float:
    for each in called(block, "proxy_read_timeout"):
        parts = re.findall(r"(\d+)(ms|[smhdwMy]?)", " ".join(each.words[1:]))
        above = sum(int(number) * UNITS[unit] for number, unit in parts)
    return above


class Location(NamedTuple):
    how: str  # `=`, `^~`, `~`, `~*`, or empty
    path: str
    block: list[Directive]


def takes(location: Location, path: str) -> bool:
    if location.how in ("~", "~*"):
        return matches(location.path, path, re.IGNORECASE if location.how == "~*" else 0)
    return path == location.path if location.how == "=" else path.startswith(location.path)


def chosen(block: list[Directive], path: str, seconds: float, passes: list[str]) -> tuple[list[str], float]:
    """Where the innermost location that takes the path passes it, and the time-out there."""
    seconds = timeout(block, seconds)
    parts = [
        (re.match(r"=|\^~|~\*|~|", whole := "".join(each.words[1:])), whole, each.block)
        for each in called(block, "location")
    ]
    known = [Location(how[0], whole[len(how[0]) :], inner) for how, whole, inner in parts if how]
    found = [each for each in known if takes(each, path)]
    prefixes = sorted((each for each in found if each.how in ("", "^~")), key=lambda each: len(each.path))
    best = next((each for each in found if each.how == "="), None)
    if best is None and not (prefixes and prefixes[-1].how == "^~"):
        best = next((each for each in found if each.how in ("~", "~*")), None)
    best = best or (prefixes[-1] if prefixes else None)
    if best is None:
        return passes, seconds
    return chosen(best.block, path, seconds, [each.words[-1] for each in called(best.block, "proxy_pass")])


def rank(server: Directive, domain: str) -> int | None:
    """How well it names the domain at port 443: 0 is best, as nginx prefers. None where it does not."""
    if not any(re.search(r"(^|:)443$", each.words[1]) for each in called(server.block, "listen")):
        return None
    names = {name.lower() for each in called(server.block, "server_name") for name in each.words[1:]}
    if domain in names:
        return 0
    above = [domain.split(".", count)[-1] for count in range(domain.count(".") + 1)]
    if names & {f".{domain}", *(f"{wild}{each}" for each in above[1:] for wild in (".", "*."))}:
        return 1
    return 2 if any(name.startswith("~") and matches(name[1:], domain) for name in names) else None


def matches(pattern: str, text: str, flags: int = 0) -> bool:
    """Raises re.error: Perl knows more than Python."""
    return re.search(re.sub(r"\(\?<(?![=!])", "(?P<", pattern), text, flags) is not None


def addresses(passes: list[str], upstreams: dict[str, list[str]]) -> list[str]:
    """Those in turn; neither a spare one nor one that is out of use."""
    place = re.fullmatch(r"https?://([^/$]*[^/$:])(?:[/$].*)?", passes[-1]) if passes else None
    of = upstreams.get(place[1], [place[1]]) if place else []
    return list(dict.fromkeys(re.sub(NAMES, "127.0.0.1", each) for each in of))


found: dict[str, list[tuple[list[str], float]]] = {name: [] for name in asked["paths"]}
if files:
    main = list(directives(tokens(next(iter(files.values())))))
    http = [each for block in called(main, "http") for each in block.block]
    upstreams = {
        each.words[1]: [
            server.words[1] for server in called(each.block, "server") if not {"backup", "down"} & {*server.words}
        ]
        for each in called(http, "upstream")
    }
    servers = called(http, "server")
    ranked = []
    for each in servers:
        with suppress(re.error):
            if (its := rank(each, asked["domain"])) is not None:
                ranked.append((its, each))
    best = [min(ranked, key=lambda each: each[0])[1]] if ranked else []  # of equals the first, as nginx does
    for server in best or (servers if len(servers) == 1 else []):
        for name, path in asked["paths"].items():
            with suppress(re.error):
                passes, seconds = chosen(server.block, path, timeout(http, 60), [])
                if passes:
                    found[name].append((addresses(passes, upstreams), seconds))
print(json.dumps(found))
