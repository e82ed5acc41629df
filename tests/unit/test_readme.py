"""README.md and README.ru.md say the same: headings, commands, tables. `--help` knows what they name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rehearsal.story import ROOT

ENGLISH, RUSSIAN = ROOT / "README.md", ROOT / "README.ru.md"
RUNBOOK = ROOT / "docs/runbook.ru.md"
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def shape(text: str) -> dict[str, list[object]]:
    """What must be the same in any language."""
    prose = BLOCK.sub("", text)
    rows = [line for line in prose.splitlines() if line.startswith("|")]
    return {
        "headings": [len(each) for each in re.findall(r"^(#+) ", prose, re.MULTILINE)],
        "commands": [re.sub(r" +#.*", "", each) for _, each in BLOCK.findall(text)],
        "tables": [tuple(sorted(SPAN.findall(cell)) for cell in row.split("|")[1:-1]) for row in rows],
        "numbers": [re.findall(r"\b\d+\b", row) for row in rows],
        "points": [sorted(SPAN.findall(each)) for each in re.split(r"\n(?=- |\d\. |#|\n)", prose)],
        "links": re.findall(r"\]\(([^)]+)\)", prose),
    }


def test_the_two_readmes_have_one_shape() -> None:
    english, russian = (shape(file.read_text(encoding="utf-8")) for file in (ENGLISH, RUSSIAN))
    for what, found in english.items():
        assert found == russian[what], what


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("## Секреты\n", "", "headings"),
        ("bin/setup && .", "bin/setup; .", "commands"),
        ("| 75: ", "| 76: ", "numbers"),
        ("`bin/verify --drift` |", "`bin/verify --dri` |", "tables"),
        ("`--data lock_wait=60`", "`lock_wait=60`", "points"),
        ("(docs/load.md)", "(docs/speed.md)", "links"),
    ],
)
def test_a_difference_is_noticed(old: str, new: str, what: str) -> None:
    russian = RUSSIAN.read_text(encoding="utf-8")
    assert old in russian
    assert shape(russian.replace(old, new))[what] != shape(ENGLISH.read_text(encoding="utf-8"))[what]


@pytest.mark.parametrize("file", [ENGLISH, RUSSIAN, RUNBOOK, ROOT / "CONTRIBUTING.md"], ids=lambda file: file.name)
def test_what_is_named_is_there(file: Path) -> None:
    """Links, commands of bin/ and files of this project."""
    text = file.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    words = {word for span in SPAN.findall(text) for word in span.split()[:3]}
    names = {
        word for word in words if re.fullmatch(r"(bin|docs|tests|operations|facts|remote)/[\w./-]+|[a-z]+\.py", word)
    }
    missing = [
        name for name in {*links, *names} - {"my.py"} if not list(ROOT.rglob(name)) and not (ROOT / name).exists()
    ]
    assert missing == []


MODULES = {
    "verify": "tests.verify",
    "rehearse": "tests.rehearsal",
    "faults": "tests.resilience",
    "bench": "benchmarks.speed",
}


def help_of(command: str) -> subprocess.CompletedProcess[str]:
    """Without bin/setup, which would install what the command needs."""
    words = [sys.executable, "-m", MODULES[command], "--help"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("command", MODULES)
def test_help_is_there_and_knows_what_readme_names(command: str) -> None:
    shown = help_of(command)
    assert shown.returncode == 0, shown.stderr
    named = {
        word
        for file in (ENGLISH, RUNBOOK)
        for span in SPAN.findall(file.read_text(encoding="utf-8"))
        if span.startswith(f"bin/{command} ")
        for word in re.findall(r"--[a-z-]+", span)
    }
    assert [word for word in named if word not in shown.stdout] == []


def test_the_exit_codes_of_readme_are_those_of_help() -> None:
    codes = re.findall(r"^  (\d+) ", help_of("verify").stdout, re.MULTILINE)
    row = next(line for line in ENGLISH.read_text(encoding="utf-8").splitlines() if line.startswith("| `bin/verify` |"))
    assert codes == ["0", "1", "2", "3", "130"]
    assert "130" in row
