"""Which programs the bundle calls on this machine, read from its sources, and which its set-up must install.

Not seen: what a library or another program calls by itself (testinfra's ssh, chromedriver's chromium).
"""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

ROOT = Path(__file__).parent.parent.parent
OWN = ".venv/bin/"  # comes with requirements.lock
STARTS = {  # where a program's name, or a list that begins with it, is the first argument
    "subprocess": {"run", "Popen", "call", "check_call", "check_output"},
    "os": {
        "execl",
        "execle",
        "execlp",
        "execlpe",
        "execv",
        "execve",
        "execvp",
        "execvpe",
        "posix_spawn",
        "posix_spawnp",
    },
    "shutil": {"which"},
    "asyncio": {"create_subprocess_exec"},
}
RUNS_TEXT = {  # where it is a line for the shell
    "subprocess": {"getoutput", "getstatusoutput"},
    "os": {"system", "popen"},
    "asyncio": {"create_subprocess_shell"},
}
BY_NAME = ("deploy.py", "rollback.py", "bootstrap.py")  # what README.md says to run after a bin/setup without arguments

Known = dict[tuple[str, str], Iterable[str]]  # (file, expression): programs


@dataclass
class Found:
    """Programs by the places that call them; and the calls whose program cannot be read from the source."""

    programs: dict[str, set[str]] = field(default_factory=dict)
    unclear: set[tuple[str, str]] = field(default_factory=set)
    used: set[tuple[str, str]] = field(default_factory=set)  # entries of `known`

    def add(self, words: Iterable[str], place: str) -> None:
        for word in words:
            self.programs.setdefault(word, set()).add(place)


# --- shell


def commands(text: str) -> tuple[set[str], set[str]]:
    """The commands of a shell script, its own functions excepted; and those that only running it would show."""
    found: set[str] = set()
    unclear: set[str] = set()
    functions: set[str] = set()
    for node in _below(Parser(Language(tree_sitter_bash.language())).parse(text.encode()).root_node):
        if node.type == "ERROR":
            unclear.add(_text(node))
        elif node.type == "function_definition" and (name := node.child_by_field_name("name")):
            functions.add(_text(name))
        elif node.type == "command" and (name := node.child_by_field_name("name")):
            if _text(name) == "exec":
                name = node.child_by_field_name("argument") or name
            plain = not any(each.type.endswith(("expansion", "substitution")) for each in _below(name))
            (found if plain else unclear).add(_text(name))
    return found - functions, unclear


def _below(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children:
        yield from _below(child)


def _text(node: Node) -> str:
    return (node.text or b"").decode()


# --- Python


class Sources:
    """The Python files that run when `entries` do: what they import, and what they name in a string to start it."""

    def __init__(self, root: Path, entries: Iterable[Path], known: Known) -> None:
        self.root, self.known, self.found = root, known, Found()
        self.trees: dict[Path, ast.Module] = {}
        self.above: dict[ast.AST, ast.AST] = {}
        self.file_of: dict[ast.Module, Path] = {}
        todo = list(entries)
        while todo:
            file = todo.pop()
            if file not in self.trees and file.parent != root / "tests/verify/programs":  # those run on the host
                tree = self.trees[file] = ast.parse(file.read_text(encoding="utf-8"))
                self.file_of[tree] = file
                self.above.update((child, node) for node in ast.walk(tree) for child in ast.iter_child_nodes(node))
                todo += self._referred(tree)
        for tree in self.trees.values():
            self._read(tree)

    def _referred(self, tree: ast.Module) -> list[Path]:
        found: list[Path] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found += [file for name in node.names for file in self._module(name.name)]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
                found += [file for name in names for file in self._module(name)]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found += named(self.root, node.value)
        return found

    def _module(self, name: str) -> list[Path]:
        path = self.root / name.replace(".", "/")
        return [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]

    def _read(self, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (first := _first(node)):
                if _is_one_of(node.func, STARTS):
                    self.found.add(self._programs(first, frozenset()), self._place(node))
                elif _is_one_of(node.func, RUNS_TEXT):
                    self.found.add(self._script(first), self._place(node))
            elif isinstance(node, ast.ImportFrom) and node.module in STARTS:
                hidden = {name.name for name in node.names} & (STARTS[node.module] | RUNS_TEXT.get(node.module, set()))
                if hidden:
                    self._unclear(node)
            elif isinstance(node, ast.Import) and any(name.name in STARTS and name.asname for name in node.names):
                self._unclear(node)

    def _programs(self, node: ast.expr, seen: frozenset[ast.AST]) -> set[str]:
        """The programs that a string, or the first word of a list, can be."""
        if node in seen:
            return set()
        values: list[ast.expr] | None = None
        match node:
            case ast.Constant(value=str(word)):
                return set() if OWN in word else {word}
            case ast.Attribute(value=ast.Name(id="sys"), attr="executable"):
                return set()
            case ast.List(
                elts=[ast.Constant(value="sh" | "bash" as shell), ast.Constant(value=str(flags)), script, *_]
            ) if re.fullmatch("-[a-z]*c", flags):
                return {shell} | self._script(script)
            case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]) | ast.Starred(value=first):
                values = [first]
            case ast.BinOp(op=ast.Add(), left=part) | ast.BinOp(op=ast.Div(), right=part):
                values = [part]
            case ast.IfExp(body=one, orelse=other):
                values = [one, other]
            case ast.Call(func=ast.Name(id="str" | "Path" | "list"), args=[value]):
                values = [value]
            case ast.Call(func=ast.Attribute(value=ast.Call() as value, attr="with_name")):
                values = [value]  # of the .venv: Path(sys.executable).with_name("pyinfra")
            case ast.Call(func=ast.Name(id=name)) | ast.Call(func=ast.Attribute(attr=name)):
                values = self._returned(node, name)
            case ast.Name(id=name):
                values = self._values(node, name)
        if not values:
            return self._unclear(node)
        return {word for value in values for word in self._programs(value, seen | {node})}

    def _script(self, node: ast.expr) -> set[str]:
        if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
            return self._unclear(node)
        found, unclear = commands(node.value)
        return found | (self._unclear(node) if unclear else set())

    def _unclear(self, node: ast.AST) -> set[str]:
        key = (str(self._file(node).relative_to(self.root)), ast.unparse(node))
        if key in self.known:
            self.found.used.add(key)
            return set(self.known[key])
        self.found.unclear.add(key)
        return set()

    def _values(self, node: ast.AST, name: str) -> list[ast.expr] | None:
        """What a name stands for, in the innermost scope that gives it a value. None: cannot be read."""
        scope = self._scope(node)
        while True:
            if isinstance(scope, ast.FunctionDef) and name in _parameters(scope):
                return self._passed(scope, name)
            if values := [value for each in self._inside(scope) for value in _given(each, name)]:
                return values
            if isinstance(scope, ast.Module):
                return self._imported(scope, name)
            scope = self._scope(scope)

    def _imported(self, tree: ast.Module, name: str) -> list[ast.expr]:
        files = [
            file
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and name in {each.name for each in node.names}
            for file in self._module(node.module)
        ]
        return [value for file in files for each in self.trees[file].body for value in _given(each, name)]

    def _returned(self, node: ast.AST, name: str) -> list[ast.expr]:
        """What the functions of this name return: those of this file, else those of any other."""
        everywhere = [
            each
            for tree in self.trees.values()
            for each in ast.walk(tree)
            if isinstance(each, ast.FunctionDef) and each.name == name
        ]
        here = [each for each in everywhere if self._file(each) == self._file(node)]
        return [
            inner.value
            for function in here or everywhere
            for inner in self._inside(function)
            if isinstance(inner, ast.Return) and inner.value
        ]

    def _passed(self, function: ast.FunctionDef, name: str) -> list[ast.expr] | None:
        """What the function's callers pass as this parameter."""
        positional = [each.arg for each in (*function.args.posonlyargs, *function.args.args)]
        method = positional[:1] == ["self"]
        index = len(positional) if function.args.vararg and function.args.vararg.arg == name else positional.index(name)
        found = []
        for call in self._calls(function, method):
            keywords = [each.value for each in call.keywords if each.arg == name]
            passed = keywords or call.args[index - method :][:1]
            if not passed:
                return None
            found += passed
        return found

    def _calls(self, function: ast.FunctionDef, method: bool) -> Iterator[ast.Call]:
        home = self._file(function)
        for file, tree in self.trees.items():
            imports = {each.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names}
            for node in ast.walk(tree):
                match node:
                    case ast.Call(func=ast.Name(id=function.name)) if file == home or function.name in imports:
                        yield node
                    case ast.Call(func=ast.Attribute(attr=function.name)) if method:
                        yield node
                    case ast.Call(func=ast.Attribute(value=ast.Name(id=home.stem), attr=function.name)):
                        yield node

    def _scope(self, node: ast.AST) -> ast.AST:
        above = self.above[node]
        return above if isinstance(above, ast.FunctionDef | ast.Module) else self._scope(above)

    def _inside(self, scope: ast.AST) -> Iterator[ast.AST]:
        """The nodes of this scope, not those of functions in it."""
        return (node for node in ast.walk(scope) if node in self.above and self._scope(node) is scope)

    def _file(self, node: ast.AST) -> Path:
        while not isinstance(node, ast.Module):
            node = self.above[node]
        return self.file_of[node]

    def _place(self, node: ast.Call) -> str:
        return f"{self._file(node).relative_to(self.root)}:{node.lineno}"


def named(root: Path, words: str) -> list[Path]:
    """The Python files that a string names: `deploy.py`, `tests.verify` (a package: all of it)."""
    if re.fullmatch(r"[\w/]+\.py", words) and (root / words).is_file():
        return [root / words]
    if re.fullmatch(r"\w+(\.\w+)+", words):
        path = root / words.replace(".", "/")
        return [path.with_suffix(".py")] if path.with_suffix(".py").is_file() else sorted(path.rglob("*.py"))
    return []


def _first(call: ast.Call) -> ast.expr | None:
    return next(iter([*call.args, *(each.value for each in call.keywords if each.arg == "args")]), None)


def _is_one_of(function: ast.expr, names: dict[str, set[str]]) -> bool:
    match function:
        case ast.Attribute(value=ast.Name(id=module), attr=name):
            return name in names.get(module, set())
    return False


def _parameters(function: ast.FunctionDef) -> set[str]:
    every = function.args
    listed = [*every.posonlyargs, *every.args, *every.kwonlyargs, *([every.vararg] if every.vararg else [])]
    return {each.arg for each in listed}


def _given(node: ast.AST, name: str) -> list[ast.expr]:
    """What this statement gives the name."""
    match node:
        case ast.Assign(targets=[ast.Name(id=target)], value=value) if target == name:
            return [value]
        case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value) if target == name:
            return [value]
    return []


# --- the commands of bin/


def bin_commands() -> list[str]:
    """All but what the others call for their set-up; `setup` itself is what comes before a bare pyinfra."""
    return sorted({file.name for file in (ROOT / "bin").iterdir()} - {"venv"})


def listed(command: str) -> set[str]:
    """What bin/setup installs for bin/COMMAND: its own words, and those that it is given."""
    given = "" if command == "setup" else _rest_of_line(command, "bin/setup")
    line = f"echo {_rest_of_line('setup', 'set --')}; echo {given}"
    return set(subprocess.run(["sh", "-c", 'eval "$0"', line], cwd=ROOT, capture_output=True, text=True).stdout.split())


def _rest_of_line(command: str, begin: str) -> str:
    """Of the one line that begins so. A comment ends it."""
    lines = re.findall(rf"^{begin}(?: |$)([^#\n]*)", (ROOT / "bin" / command).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(lines) == 1, f"bin/{command} has {len(lines)} lines that begin with {begin!r}"
    return str(lines[0])


def called(command: str, known: Known) -> Found:
    """What bin/COMMAND and the Python that it starts call."""
    found = Found()
    todo, done, entries = [f"bin/{command}"], set(), [ROOT / name for name in BY_NAME if command == "setup"]
    while todo:
        script = todo.pop()
        done.add(script)
        text = (ROOT / script).read_text(encoding="utf-8")
        words, unclear = commands(text)
        for word in unclear:
            (found.used if (script, word) in known else found.unclear).add((script, word))
            found.add(known.get((script, word), ()), script)
        todo += [word for word in words if word.startswith("bin/") and word not in done]
        found.add((word for word in words if "/" not in word), script)
        modules = re.findall(r"-m ([\w.]+)", text)
        entries += [file for module in modules for file in named(ROOT, module)]
        if "pytest" in modules:
            paths = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["testpaths"]
            entries += [file for path in paths for file in (ROOT / path).rglob("*.py")]
    python = Sources(ROOT, entries, known).found
    for program, places in python.programs.items():
        found.programs.setdefault(program, set()).update(places)
    found.unclear |= python.unclear
    found.used |= python.used
    return found
