"""Two small additions to the application's source, each a marked block.

The files are read with tree-sitter's grammar, not by pattern: a method in a comment is not a method.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from functools import cache

import tree_sitter_javascript
from pyinfra.api.operation import operation
from pyinfra.context import host
from tree_sitter import Language, Node, Parser

import remote
from facts.look import Wanted, look
from facts.source import ROUTES, SESSION_POOL, Source
from operations import marked
from operations.render import render
from operations.step import Step, say
from settings import BadInput, Settings

ROUTE = "/marketplace/health-check"
POOL_CLASS = "WhatsAppSessionPool"
METHODS = ("getQR", "getSession", "createSession", "getSessionStatus")


def changes(now: Source, settings: Settings) -> dict[str, bytes]:
    """The files that must become another, with their new text. Raises BadInput where a block has no place."""
    routes, pool = _text(now, ROUTES), _text(now, SESSION_POOL)
    wanted = {ROUTES: _routes(routes, settings.health_check), SESSION_POOL: _session_pool(pool)}
    return {file: text for file, text in wanted.items() if text != now.files[file]}


@cache  # asked for by preflight and by two operations, as _session_pool is
def _routes(old: bytes, health_check: bool) -> bytes:
    text = marked.without(old, ROUTES)
    root = _parse(text)
    by_hand = any(node.type == "string_fragment" and node.text == ROUTE.encode() for node in _nodes(root))
    if not health_check or by_hand:
        return text
    for statement in reversed(root.named_children):
        words = (statement.text or b"").decode(errors="replace").rstrip(";").split()
        if statement.type == "expression_statement" and words[:2] == ["module.exports", "="] and len(words) == 3:
            block = marked.wrap(render(f"opt/ai-admin/{ROUTES}", router=words[2]), "//", marked.eol_of(text))
            return text[: statement.start_byte] + block + text[statement.start_byte :]
    raise BadInput(
        f"{ROUTES}: no `module.exports = router;` to put the health check before; "
        "add it by hand or set health_check = False"
    )


@cache
def _session_pool(old: bytes) -> bytes:
    text = marked.without(old, SESSION_POOL)
    root = _parse(text)
    body = next(
        (
            node.child_by_field_name("body")
            for node in _nodes(root)
            if node.type in ("class_declaration", "class")
            and (name := node.child_by_field_name("name")) is not None
            and name.text == POOL_CLASS.encode()
        ),
        None,
    )
    if body is None:
        raise BadInput(f"{SESSION_POOL}: no class {POOL_CLASS}; is this the application of app-contract.md?")
    members = {_member(node): node for node in body.named_children} | _assigned(root)
    lacking = [name for name in METHODS if name not in members]
    if not lacking:
        return text
    maker = members.get("getOrCreateSession")
    if "createSession" in lacking and (
        maker is None or b"createSession" in (maker.text or b"").replace(b"getOrCreateSession", b"")
    ):
        raise BadInput(
            f"{SESSION_POOL}: createSession is missing and getOrCreateSession cannot stand in for it; "
            "the application's developers must add it"
        )
    eol = marked.eol_of(text)
    end = b"" if text.endswith((b"\n", b"\r")) else eol
    return text + end + marked.wrap(render(f"opt/ai-admin/{SESSION_POOL}", lacking=lacking), "//", eol)


def _text(now: Source, file: str) -> bytes:
    text = now.files[file]
    if text is None:
        raise BadInput(f"{file} is not in the application's folder; deploy the application first")
    return text


@cache
def _parser() -> Parser:
    return Parser(Language(tree_sitter_javascript.language()))


def _parse(text: bytes) -> Node:
    return _parser().parse(text).root_node


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node.named_children:
        yield from _nodes(child)


def _member(node: Node) -> str:
    """The name of a method or a field of a class; a static one is not on the pool."""
    name = node.child_by_field_name("name") or node.child_by_field_name("property")
    static = any(child.type == "static" for child in node.children)
    return "" if name is None or static else (name.text or b"").decode(errors="replace")


def _assigned(root: Node) -> dict[str, Node]:
    """`WhatsAppSessionPool.prototype.name = …` at the top level."""
    start = f"{POOL_CLASS}.prototype."
    found = {}
    for node in _nodes(root):
        left = node.child_by_field_name("left") if node.type == "assignment_expression" else None
        target = (left.text or b"").decode(errors="replace") if left is not None else ""
        if target.startswith(start):
            found[target.removeprefix(start)] = node
    return found


@operation()
def blocks(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted).source
    change = changes(now, wanted.settings)
    if not change:
        host.noop("source: the blocks are as they should be")
        return
    for file, text in change.items():
        old = now.files[file] or b""
        verb = "put in" if marked.BEGIN.encode() in text else "take out"
        say(host, [f"source: {verb} our block, {len(text) - len(old):+d} bytes: {file}"])
    files = [
        {"file": file, "content": remote.pack(text), "expected": remote.sha256(now.files[file] or b"")}
        for file, text in change.items()
    ]
    yield Step("source", "writeSource", wanted, files=files)
