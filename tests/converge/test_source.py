"""Application source: a marked block each in two files, and nothing else in them changes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.converge.conftest import APP, converge, only, read, refuse, write
from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT

STEP = "Application source"
ROUTES = f"{APP}/src/api/routes/yclients-marketplace.js"
POOL = f"{APP}/src/integrations/whatsapp/session-pool.js"
BEGIN, END = b">>> ai-admin-deploy", b"<<< ai-admin-deploy"
LATE = b"app.use('/', marketplace); // after the older router of YClients\n"
BY_HAND = b"router.get('/marketplace/health-check', (req, res) => res.json({ status: 'ok' }));\n"


@pytest.fixture(scope="module")
def original(host: Host) -> dict[str, bytes]:
    return {file: read(host, file) for file in (ROUTES, POOL)}


@pytest.fixture(autouse=True)
def as_found(host: Host, original: dict[str, bytes]) -> None:
    for file, text in original.items():
        write(host, file, text)


def outside_block(text: bytes) -> bytes:
    assert text.count(BEGIN) == text.count(END) == 1
    lines = text.splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if BEGIN in line)
    end = next(number for number, line in enumerate(lines) if END in line)
    return b"".join(lines[:begin] + lines[end + 1 :])


def parses(host: Host, file: str) -> bool:
    return host.ssh(f"node --check {file}", check=False).returncode == 0


def methods(host: Host) -> str:
    script = f"const P = require('{POOL}').WhatsAppSessionPool.prototype; console.log(typeof P.getQR); process.exit()"
    return host.ssh("cd /tmp && node", "-e", f'"{script}"').stdout.splitlines()[-1]


def test_every_other_line_stays(host: Host, original: dict[str, bytes]) -> None:
    assert methods(host) == "undefined"
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    for file, text in original.items():
        assert outside_block(read(host, file)) == text
        assert parses(host, file)
    assert methods(host) == "function"


def test_health_check_is_taken_out_again(host: Host, original: dict[str, bytes]) -> None:
    converge(host, runbook=only(STEP))
    assert converge(host, "--data", "health_check=false", runbook=only(STEP)).changed == [STEP]
    assert read(host, ROUTES) == original[ROUTES]
    assert BEGIN in read(host, POOL)


def test_class_with_all_methods_gets_no_block(host: Host, original: dict[str, bytes]) -> None:
    """Also where it had ours: the application's developers have added the method meanwhile."""
    whole = original[POOL].replace(
        b"  getSession(",
        b"  getQR(id) {\n    return this.qrCodes.get(id);\n  }\n\n  initSession(id) {\n  }\n\n  getSession(",
    )
    assert whole != original[POOL]
    converge(host, runbook=only(STEP))
    ours = read(host, POOL)[len(original[POOL]) :]
    write(host, POOL, whole + ours)
    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert read(host, POOL) == whole


def test_what_we_cannot_add_is_named(host: Host, original: dict[str, bytes]) -> None:
    """With its place in the source, at every run: verification is red until the developers have added it."""
    index, config = read(host, f"{APP}/src/index.js"), read(host, f"{APP}/src/config.js")
    write(host, f"{APP}/src/config.js", config.replace(b"YCLIENTS_APP_ID", b"YCLIENTS_APPLICATION_ID"))
    write(host, ROUTES, original[ROUTES].replace(b"sessionPool.getQR(", b"sessionPool.scanQR("))
    write(host, f"{APP}/src/index.js", index.replace(b"app.use('/', marketplace);\n", b"") + LATE)
    try:
        output = converge(host, runbook=only(STEP)).output
    finally:
        write(host, f"{APP}/src/index.js", index)
        write(host, f"{APP}/src/config.js", config)
    assert "no file in src reads YCLIENTS_APP_ID" in output and "reads JWT_SECRET" not in output
    assert "yclients-marketplace.js line 50 calls scanQR() on the session pool, which has no such method" in output
    assert "src/api/routes/yclients.js line 6 answers /auth/yclients/redirect before" in output
    assert b"initSession(sessionId)" in read(host, POOL), "a method that the requirements do not list, and we know"
    assert b"scanQR" not in read(host, POOL)


@pytest.mark.parametrize("file", [ROUTES, POOL])
def test_crlf_stays_crlf(host: Host, original: dict[str, bytes], file: str) -> None:
    text = original[file].replace(b"\n", b"\r\n")
    write(host, file, text)
    converge(host, runbook=only(STEP))
    after = read(host, file)
    assert outside_block(after) == text
    assert after.count(b"\r\n") == after.count(b"\n")
    assert parses(host, file)


def test_route_by_hand_is_not_doubled(host: Host, original: dict[str, bytes]) -> None:
    text = original[ROUTES].replace(b"module.exports", BY_HAND + b"module.exports")
    write(host, ROUTES, text)
    converge(host, runbook=only(STEP))
    assert read(host, ROUTES) == text


@pytest.mark.parametrize("file", [ROUTES, POOL])
def test_broken_file_is_left_alone(host: Host, original: dict[str, bytes], file: str) -> None:
    broken = original[file].replace(b"const path", b"const const path")
    assert broken != original[file]
    write(host, file, broken)
    output = refuse(host, runbook=only(STEP))
    assert f"{file.removeprefix(APP)[1:]}: with our block it is not valid JavaScript (SyntaxError" in output, output
    assert {each: read(host, each) for each in original} == {**original, file: broken}


def test_block_cut_by_hand_is_refused(host: Host) -> None:
    converge(host, runbook=only(STEP))
    cut = read(host, ROUTES).replace(END, b"")
    write(host, ROUTES, cut)
    assert "a marker of ours without its partner; remove the marker lines by hand" in refuse(host, runbook=only(STEP))
    assert read(host, ROUTES) == cut


def test_git_pull_on_the_server(host: Host, original: dict[str, bytes], tmp_path: Path) -> None:
    """It refuses, and README's command and a deploy put that right. This machine's git works in the host's folder."""
    app, upstream = host.root / APP.lstrip("/"), tmp_path / "upstream"

    def git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", *who, "-C", folder, *words], capture_output=True, text=True)

    for words in (["init", "-q"], ["add", "src"], ["commit", "-qm", "as found"]):
        assert git(app, *words).returncode == 0
    git(tmp_path, "clone", "-q", str(app), str(upstream))
    for words in (["remote", "add", "origin", str(upstream)], ["fetch", "-q"]):
        git(app, *words)
    git(app, "branch", "-u", "origin/" + git(app, "branch", "--show-current").stdout.strip())
    theirs = upstream / Path(ROUTES).relative_to(APP)
    theirs.write_bytes(original[ROUTES].replace(b"module.exports", b"// a later version\nmodule.exports"))
    git(upstream, "commit", "-qam", "a later version")
    converge(host, runbook=only(STEP))

    pulled = git(app, "pull", "--no-rebase")
    assert pulled.returncode != 0 and "would be overwritten" in pulled.stderr, pulled.stderr
    [typed] = re.findall(r"`(git checkout -- src && git pull)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    for command in typed.split(" && "):
        done = git(app, *command.split()[1:])
        assert done.returncode == 0, done.stderr
    assert read(host, ROUTES) == theirs.read_bytes()

    assert converge(host, runbook=only(STEP)).changed == [STEP]
    assert outside_block(read(host, ROUTES)) == theirs.read_bytes()
    assert methods(host) == "function"
    host.ssh(f"rm -r {APP}/.git")
