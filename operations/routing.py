"""What nginx does with a request, read from what `nginx -T` printed: which server has the name, which location takes a
path, where that passes it.

As nginx 1.26 does it (ngx_http_core_module, ngx_http_proxy_module). Parsed with crossplane, which reads no file here:
includes are taken from what nginx itself loaded.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import crossplane

ETC = "/etc/nginx"


@dataclass(frozen=True, eq=False)
class Directive:
    """`block` has what was included in the place of each include; `file` and `line` are where it really stands."""

    name: str
    args: Sequence[str]
    file: str
    line: int
    block: "Sequence[Directive]"

    @property
    def place(self) -> str:
        return f"{self.file} line {self.line}"

    def all(self, name: str) -> "list[Directive]":
        return [each for each in self.block if each.name == name]

    def files(self) -> set[str]:
        return {self.file}.union(*(each.files() for each in self.block))


# Blocks around one another, the outermost first: http, server, location.
Levels = tuple[Directive, ...]


def files_of(dump: bytes) -> dict[str, bytes]:
    """What `nginx -T` printed, by file; the main one is the first."""
    parts = re.split(rb"^# configuration file (.+):\n", dump, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {name.decode(errors="surrogateescape"): text.removesuffix(b"\n") for name, text in pairs}


def parse(files: Mapping[str, bytes]) -> Directive:
    """The whole configuration."""
    main = next(iter(files), "")
    return Directive("", [], main, 0, list(_directives(_parsed(files.get(main, b"")), main, files)))


def _directives(block: list[dict[str, Any]], file: str, files: Mapping[str, bytes]) -> Iterator[Directive]:
    for each in block:
        if each["directive"] == "include":
            pattern = str(PurePosixPath(ETC, each["args"][0]))
            for name in sorted(name for name in files if PurePosixPath(name).match(pattern)):
                yield from _directives(_parsed(files[name]), name, files)
        else:
            inner = list(_directives(each.get("block", []), file, files))
            yield Directive(each["directive"], each["args"], file, each["line"], inner)


@cache
def _parsed(text: bytes) -> list[dict[str, Any]]:
    parsed = crossplane.parse_string(
        text.decode(errors="replace"), single=True, check_ctx=False, check_args=False, catch_errors=False
    )
    block: list[dict[str, Any]] = parsed["config"][0]["parsed"]
    return block


# --- servers


def named(root: Directive, domain: str) -> list[Levels]:
    """Every server that has the domain among its names, as nginx reads them."""
    names = (domain.lower(), f".{domain.lower()}")
    return [
        (http, server)
        for http in root.all("http")
        for server in http.all("server")
        if any(name.lower() in names for each in server.all("server_name") for name in each.args)
    ]


def stands_in(root: Directive, domain: str, port: int) -> Directive | None:
    """The server that answers for the domain on 443 though none has its name: by a pattern, or, where it has no name of
    its own, as the one that passes requests to this port."""
    servers = [server for http in root.all("http") for server in http.all("server") if [*addresses(server)]]
    for server in servers:
        names = [name for each in server.all("server_name") for name in each.args]
        if any(_fits(name, domain) for name in names):
            return server
        if not {*names} - {"_", "", "localhost"} and any(_passes(each, port) for each in server.block):
            return server
    return None


def _fits(name: str, domain: str) -> bool:
    """`*.app`, `ai-admin.*` or `~^ai-admin`, as nginx reads them."""
    if name.startswith("~"):
        with suppress(re.error):  # PCRE knows more
            return bool(re.search(name[1:], domain, re.IGNORECASE))
        return False
    is_below = name.startswith("*.") and domain.endswith(name[1:])
    return is_below or (name.endswith(".*") and domain.startswith(name[:-1]))


def _passes(directive: Directive, port: int) -> bool:
    is_it = directive.name == "proxy_pass" and re.match(rf"https?://[^/]*:{port}\b", directive.args[0])
    return bool(is_it) or any(_passes(each, port) for each in directive.block)


def serving(root: Directive, domain: str) -> dict[str, Levels]:
    """By address, the server that answers for the domain on port 443 there: of several, nginx takes the first."""
    found: dict[str, Levels] = {}
    for levels in named(root, domain):
        for address in addresses(levels[-1]):
            found.setdefault(address, levels)
    return found


def addresses(server: Directive) -> Iterator[str]:
    """Where it listens on port 443; `*` is every IPv4 address, `[::]` every IPv6 one."""
    for listen in server.all("listen"):
        parts = re.fullmatch(r"(?:(.+):)?443", listen.args[0])
        if parts and "quic" not in listen.args:
            yield "*" if parts[1] in (None, "0.0.0.0") else parts[1]  # noqa: S104 (nothing is bound here)


# --- locations


def matcher(location: Directive) -> tuple[str, str]:
    """(`=`, `^~`, `~`, `~*`, `@` or nothing; what it is matched with). `^~/x` is the same as `^~ /x`."""
    kind, pattern = re.fullmatch(r"(=|\^~|~\*|~|@|)(.*)", "".join(location.args), re.DOTALL).groups()  # type: ignore[union-attr]
    return kind, pattern


def take(levels: Levels, path: str) -> Levels:
    """The levels down to the location that takes `path`; the same levels where none does.

    The longest prefix, unless a regular expression matches: these come first, in their order, but after `=` and `^~`.
    """
    prefixes = []
    for each in levels[-1].all("location"):
        kind, prefix = matcher(each)
        if kind == "=" and prefix == path:
            return (*levels, each)
        if kind in ("", "^~") and path.startswith(prefix):
            prefixes.append((len(prefix), kind, each))
    _, kind, best = max(prefixes, key=lambda found: found[0], default=(0, "", None))
    taken = take((*levels, best), path) if best else levels
    if kind == "^~" or (taken != levels and matcher(taken[-1])[0] in ("=", "~", "~*")):
        return taken
    expression = next((each for each in levels[-1].all("location") if _matches(each, path)), None)
    return take((*levels, expression), path) if expression else taken


def _matches(location: Directive, path: str) -> bool:
    """One that only PCRE understands counts as not matching."""
    kind, pattern = matcher(location)
    try:
        return kind in ("~", "~*") and re.search(pattern, path, re.IGNORECASE if kind == "~*" else 0) is not None
    except re.error:
        return False


def fallback(levels: Levels) -> Levels:
    """The named location that its try_files ends with, where it does; else the same levels."""
    named = {each.args[-1] for each in levels[-1].all("try_files")}
    found = next((each for each in levels[1].all("location") if "".join(each.args) in named), None)
    return (*levels[:2], found) if found and levels[2:] else levels


def is_meant(location: Directive, path: str) -> bool:
    """Was it written for this very path, and not for others that it happens to take too?"""
    kind, pattern = matcher(location)
    if kind in ("~", "~*"):
        word = re.escape(path.strip("/"))
        return re.search(rf"\b{word}\b", pattern.replace("\\", ""), re.IGNORECASE) is not None
    return pattern.rstrip("/") == path.rstrip("/")


# --- where it passes the request


def passes_to(levels: Levels, path: str, port: int) -> bool:
    """Does the last of the levels pass `path`, unchanged, to this port? A variable in the address may be anything."""
    for each in levels[-1].all("proxy_pass"):
        parts = re.fullmatch(r"https?://(\[[^]]*\]|[^:/$]+)(?::(\d+))?([/$].*)?", each.args[0])
        if not parts:
            return "$" in each.args[0]
        kind, prefix = matcher(levels[-1])
        uri = parts[3] or "$"
        if kind in ("~", "~*", "@") or "$" in uri or uri + path[len(prefix) :] == path:
            group = [block for block in levels[0].all("upstream") if block.args[0] == parts[1]]
            servers = [server.args[0] for block in group for server in block.all("server")]
            return any(to.rpartition(":")[2] == str(port) for to in servers or [f"{parts[1]}:{parts[2] or 80}"])
    return False


def in_force(levels: Levels, name: str) -> list[Directive]:
    """The directives of this name at the innermost level that has any: outer ones hold only where an inner has none."""
    return next((found for level in reversed(levels) if (found := level.all(name))), [])
