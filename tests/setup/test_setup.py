"""bin/setup on a Debian that has nothing: then every program is there that a command of bin/ and its tests call."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection
from functools import cache
from pathlib import Path

import pytest

from tests.detection.faults import FAULTS
from tests.rehearsal import image
from tests.setup.programs import ROOT, Found, Known, Sources, bin_commands, called, commands, listed

# What cannot be read from the source, and what it is.
KNOWN: Known = {
    ("bin/setup", "$candidate"): (),  # a python3 that it has looked for
    ("bin/venv", '"$1"'): ("python3",),
    ("bin/venv", '"$2/.venv/bin/pip"'): (),  # comes with the .venv
    ("bin/venv", '"$2/.venv/bin/$4"'): (),  # comes with the .venv
    ("benchmarks/speed.py", "command"): (),  # programs of the two .venvs, and ssh, which it also names
    ("remote/processes.py", "from subprocess import PIPE, Popen, TimeoutExpired"): (),  # what the host runs
    ("tests/verify/backend.py", "self._start"): ("ssh",),
    ("tests/unit/remote/conftest.py", "command"): (),  # this very Python
    ("tests/unit/remote/test_loading.py", "f'cd {app} && {change}'"): ("rm", "touch"),
    ("tests/unit/test_channel.py", "f'exec {channel.PYTHON.get_raw_value()}'"): ("python3",),
    ("tests/unit/test_bare.py", "command"): ("getent", "hostname"),  # what a bare host is asked, asked here
    ("tests/unit/test_completion.py", "TAB"): (),  # bash's own words
    ("tests/converge/test_bootstrap.py", "command"): ("git",),
    ("tests/converge/test_fleet.py", "command.replace('my.py', INVENTORY)"): (),  # README's commands: pyinfra
    ("credentials.py", "shlex.split(command)"): (),  # YCLIENTS_SECRETS_COMMAND, the operator's own
    ("tests/rehearsal/host.py", "f'{enter} exec {nspawn}'"): ("systemd-nspawn",),  # `enter` is echo
    ("tests/rehearsal/host.py", "tool"): (),  # asks for what programs.txt lists
    ("tests/detection/test_faults.py", "each.split()[0]"): (),  # whether a remedy's first word is a program
    ("tests/detection/conftest.py", "script"): [  # the faults that are planted on this machine
        word for fault in FAULTS if fault.where == "here" for word in commands(f"{fault.plant}\n{fault.undo}")[0]
    ],
}
MMDEBSTRAP = ("mmdebstrap", "--variant=minbase", "--dpkgopt=force-unsafe-io", image.SUITE)
PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}
LISTS = sorted({tuple(sorted(listed(command))) for command in bin_commands()})


@pytest.fixture(scope="module")
def minimal() -> Path:
    """The tree: apt, and what Debian cannot be without."""
    folder = image.IMAGES / f"minimal-{image.digest(*MMDEBSTRAP)}"
    if not folder.exists():
        image.build(folder, lambda target: image.run_logged([*MMDEBSTRAP, str(target)], image.IMAGES / "minimal.log"))
    return folder


@cache
def calls(command: str) -> Found:
    return called(command, KNOWN)


def absent(root: Path, programs: Collection[str]) -> set[str]:
    """Which of them the shell does not find there. The shell's own words are found."""
    look = 'for each in "$@"; do command -v "$each" >/dev/null || echo "$each"; done'
    command = ["chroot", str(root), "sh", "-c", look, "sh", *programs]
    return set(subprocess.run(command, env=PATH, capture_output=True, text=True, check=True).stdout.split())


def not_listed(found: Found, words: set[str], minimal: Path) -> dict[str, set[str]]:
    """What is called, and is neither in the list nor in the tree; and where."""
    return {
        program: found.programs[program] for program in absent(minimal, found.programs.keys() - words - {"python3"})
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", bin_commands())
def test_what_is_called_is_listed(minimal: Path, command: str) -> None:
    found = calls(command)
    assert found.unclear == set(), "which program is it? KNOWN must say"
    assert not_listed(found, listed(command), minimal) == {}


@pytest.mark.parametrize(
    ("source", "programs", "unclear"),
    [
        ("subprocess.run(['curl', '-s'])", {"curl"}, set()),
        ("subprocess.run([*('ip', 'link')] + [words])", {"ip"}, set()),
        ("subprocess.run(['sh', '-c', 'ls | while read x; do wc $x; done'])", {"sh", "ls", "read", "wc"}, set()),
        ("subprocess.run(['sh', '-c', words()])", {"sh"}, {"words()"}),
        ("def told(*words):\n    subprocess.run(words)\ntold('ps', '-e')\ntold('df')", {"ps", "df"}, set()),
        ("def words(): return ['dig'] if x else ['host']\nos.execvp('env', words())", {"env"}, set()),
        ("def words(): return ['dig'] if x else y\nsubprocess.run(words())", {"dig"}, {"y"}),
        ("[each for each in ('a', 'b') if shutil.which(each)]", set(), {"each"}),
        ("subprocess.Popen([sys.executable, '-m', 'x'])", set(), set()),
        ("from subprocess import run\nrun(['curl'])", set(), {"from subprocess import run"}),
        ("os.system('sleep 1')", {"sleep"}, set()),
    ],
)
def test_what_a_source_calls(tmp_path: Path, source: str, programs: set[str], unclear: set[str]) -> None:
    (tmp_path / "source.py").write_text(source)
    found = Sources(tmp_path, [tmp_path / "source.py"], {}).found
    assert found.programs.keys() == programs
    assert {expression for _, expression in found.unclear} == unclear


def test_every_exception_is_one() -> None:
    assert KNOWN.keys() - {key for command in bin_commands() for key in calls(command).used} == set()


@pytest.mark.slow
def test_a_word_missing_in_the_list_is_noticed(minimal: Path) -> None:
    places = not_listed(calls("test"), listed("test") - {"chromedriver"}, minimal)
    assert places.keys() == {"chromedriver"}
    assert [place.partition(":")[0] for place in places["chromedriver"]] == ["tests/detection/browser.py"]


@pytest.mark.slow
@pytest.mark.parametrize("words", LISTS, ids=lambda words: f"{len(words)} programs")
def test_setup_installs_what_is_listed(minimal: Path, words: tuple[str, ...]) -> None:
    """With the downloads of earlier runs; the Python packages are left out, not the Python that they need."""
    assert absent(minimal, [*words, "python3"]) - {"mount"} == {*words, "python3"} - {"mount"}, "not minimal"
    upper, downloads = image.IMAGES / "setup", image.IMAGES / "downloads"
    shutil.rmtree(upper, ignore_errors=True)
    (downloads / "partial").mkdir(parents=True, exist_ok=True)
    with image.layered([minimal], upper) as root:
        shutil.copytree(ROOT / "bin", root / "bundle/bin")
        (root / "bundle/bin/venv").write_text('#!/bin/sh\nexec "$1" -m venv "$2/.venv"\n')
        script = f"/bundle/bin/setup {' '.join(words)}\n/bundle/.venv/bin/pip --version\napt-get autoclean\n"
        done = subprocess.run(
            [
                *(
                    "systemd-nspawn",
                    "--quiet",
                    "--register=no",
                    "--keep-unit",
                    "--as-pid2",
                    "--pipe",
                    "--machine=aar-setup",
                ),
                *("--resolv-conf=copy-host", "--timezone=off", f"--bind={downloads}:/var/cache/apt/archives"),
                *("--directory", str(root), "sh", "-euc", script),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,  # seconds: a slow mirror; one that hangs is an error
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert absent(root, [*words, "python3"]) == set()
    shutil.rmtree(upper)
