"""Two small additions to the application's source, each a marked block.

The files are read with tree-sitter's grammar, not by pattern: a method in a comment is not a method.
"""

from collections.abc import Generator, Iterator, Mapping
from functools import cache

import tree_sitter_javascript
from pyinfra.api.operation import operation
from pyinfra.context import host
from tree_sitter import Language, Node, Parser

import remote.source
from channel import Channel, Step
from facts.look import ask
from operations import marked
from operations.render import render
from remote.files import content, sha256, text
from rules import HEALTH_CHECK, METHODS, POOL_CLASS, ROUTES, SESSION_POOL
from settings import BadInput


def changes(now: Mapping[str, str | None], health_check: bool) -> dict[str, bytes]:
    """The files that must become another, with their new content. Raises BadInput where a block has no place."""
    old = {file: _content(file, whole) for file, whole in now.items()}
    wanted = {ROUTES: _routes(old[ROUTES], health_check), SESSION_POOL: _pool(old[SESSION_POOL])}
    return {file: new for file, new in wanted.items() if new != old[file]}


@cache  # asked for by preflight and by the operation, as _pool is
def _routes(old: bytes, health_check: bool) -> bytes:
    text = marked.without(old, ROUTES)
    root = _parse(text)
    by_hand = any(node.type == "string_fragment" and node.text == HEALTH_CHECK.encode() for node in _nodes(root))
    if not health_check or by_hand:
        return text
    for statement in reversed(root.named_children):
        parts = (statement.text or b"").decode(errors="replace").rstrip(";").split()
        if statement.type == "expression_statement" and parts[:2] == ["module.exports", "="] and len(parts) == 3:
            block = marked.wrap(render(f"opt/ai-admin/{ROUTES}", router=parts[2]), "//", marked.eol_of(text))
            return text[: statement.start_byte] + block + text[statement.start_byte :]
    raise BadInput(
        f"{ROUTES}: no `module.exports = router;` to put the health check before; "
        "add it by hand or set health_check = False"
    )


@cache
def _pool(old: bytes) -> bytes:
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
        raise BadInput(f"{SESSION_POOL}: no class {POOL_CLASS}; is this the application?")
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


def _content(file: str, whole: str | None) -> bytes:
    if whole is None:
        raise BadInput(f"{file} is not in the application's folder; deploy the application first")
    return content(whole)


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
def blocks(app: str, app_dir: str, health_check: bool) -> Generator[Step[...]]:
    """`app` is the pm2 app that loads the files; without `health_check` its route is taken out again."""
    now = ask(host, remote.source.read, app_dir=app_dir, paths=[ROUTES, SESSION_POOL])
    change = changes(now, health_check)
    if not change:
        host.noop("source: the blocks are as they should be")
        return
    old = {file: content(now[file] or "") for file in change}
    lines = []
    for file, new in change.items():
        verb = "put in" if marked.BEGIN.encode() in new else "take out"
        lines.append(f"source: {verb} our block, {len(new) - len(old[file]):+d} bytes: {file}")
    Channel.of(host).say(lines, "api", "source")
    contents = {file: text(new) for file, new in change.items()}
    expected = {file: sha256(old[file]) for file in change}
    yield Step(remote.source.write, app=app, app_dir=app_dir, contents=contents, expected=expected)
