"""bin/completion, in a real bash: what TAB offers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.rehearsal.story import ROOT

# As bash calls it for a TAB behind these words.
TAB = r"""
PATH="$PWD/.venv/bin:$PATH"
. "$1" && shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
how=$(complete -p "$1") how=${how#* -F } COMPREPLY=()
compopt() { :; }
${how% *} "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "bash"
    file.write_bytes(subprocess.run(["sh", ROOT / "bin/completion", "bash"], check=True, capture_output=True).stdout)
    return file


def offered(script: Path, *words: str) -> set[str]:
    done = subprocess.run(["bash", "-c", TAB, "bash", script, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line.strip() for line in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (("bin/verify", "--j"), {"--json", "--junit"}),
        (("bin/rehearse", "re"), {"reset"}),
        (("bin/faults", "--hi"), {"--histories", "--history"}),
        (("bin/bench", "--w"), {"--write"}),
        (("pyinfra", "--dr"), {"--dry"}),
    ],
)
def test_what_tab_offers(script: Path, words: tuple[str, ...], some: set[str]) -> None:
    assert offered(script, *words) == some


def test_a_shell_must_be_named() -> None:
    done = subprocess.run(["sh", ROOT / "bin/completion"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
