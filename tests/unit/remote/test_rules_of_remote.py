"""The three rules of remote/__init__.py."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remote import wire
from tests.unit.conftest import ROOT
from tests.unit.remote.conftest import on_host

MODULES = {
    "remote" if file.stem == "__init__" else f"remote.{file.stem}": file.read_text(encoding="utf-8")
    for file in sorted((ROOT / "remote").glob("*.py"))
}

# Imports what the modules need, then them, and says what Python's audit hook saw of the world meanwhile.
PROBE = """
import importlib, json, sys
HARMLESS = ("import", "compile", "exec", "object.", "sys._getframe", "code.__new__", "builtins.")
def probe(*, standard, ours):
    for name in standard:
        importlib.import_module(name)
    seen = []
    sys.addaudithook(lambda event, arguments: event.startswith(HARMLESS) or seen.append([event, repr(arguments)]))
    for name in ours:
        importlib.import_module(name)
    found = list(seen)
    print(json.dumps({"version": sys.version_info[:2], "seen": found}))
"""


def imported(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            found.add(node.module or "")
    return found


def probed(modules: dict[str, str], path: str | None = None) -> dict[str, Any]:
    standard = sorted({each for source in modules.values() for each in imported(source)} - {*modules})
    sources = {**modules, "remote.probe": PROBE}
    arguments = {"standard": standard, "ours": sorted(modules)}
    done = on_host(f"{wire.pack(sources)} {wire.pack(['remote.probe.probe', arguments])}\n", path)
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", MODULES)
def test_only_the_standard_library_and_ours(name: str) -> None:
    foreign = {each for each in imported(MODULES[name]) if each.partition(".")[0] not in sys.stdlib_module_names}
    assert foreign <= {*MODULES}, f"{name} imports {foreign - {*MODULES}}"


def test_no_module_does_anything_when_it_is_imported() -> None:
    assert len(MODULES) > 15
    assert probed(MODULES)["seen"] == []


def test_the_probe_sees_a_file_that_is_read() -> None:
    altered = {**MODULES, "remote.files": MODULES["remote.files"] + "\nopen('/dev/null').close()\n"}
    assert [event for event, _ in probed(altered)["seen"]] == ["open"]


def test_python_3_10_imports_all() -> None:
    folders = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin"))
    if not folders:
        pytest.skip("there is no Python 3.10 in ~/.pyenv/versions")
    assert probed(MODULES, str(folders[-1])) == {"version": [3, 10], "seen": []}


# What 3.11 added where remote could use it: 3.10 compiles it, and fails only when it is called.
LATER = {
    "strict_mode",  # binascii.a2b_base64
    "process_group",  # subprocess.Popen
    "delete_on_close",  # tempfile.NamedTemporaryFile, 3.12
    "onexc",  # shutil.rmtree, 3.12
}


@pytest.mark.parametrize("name", MODULES)
def test_no_argument_that_python_3_10_does_not_know(name: str) -> None:
    calls = [node for node in ast.walk(ast.parse(MODULES[name])) if isinstance(node, ast.Call)]
    assert not {keyword.arg for call in calls for keyword in call.keywords} & LATER


SLOW = {"dataclasses", "inspect", "shutil", "asyncio", "pathlib"}


def test_a_look_imports_nothing_slow(tmp_path: Path) -> None:
    """Each of these takes the host some milliseconds of CPU, at every look."""
    nouns = ("npm", "migration", "nginx", "pm2", "dotenv", "source")
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import remote.look, remote.session, remote.step
for noun in {nouns}:
    __import__("remote." + noun)
print(*sorted(sys.modules))
"""
    python = [sys.executable, "-I", "-S", "-c", script]
    found = subprocess.run(python, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()
    assert SLOW & {*found} == set()
