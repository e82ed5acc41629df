from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import remote

PROGRAM = '(i => require("fs").writeFileSync(i.f, "ран"))'


def run(stdin: bytes, folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["sh", "-c", remote.NODE.get_raw_value()], input=stdin, capture_output=True, cwd=folder)


def test_a_program_cut_anywhere_runs_nothing(tmp_path: Path) -> None:
    whole = remote.stdin((), PROGRAM, {"f": "F"}).encode()
    assert len(whole) > 80

    with ThreadPoolExecutor(4) as pool:
        cut = list(pool.map(lambda length: run(whole[:length], tmp_path), range(len(whole))))
    assert {done.returncode for done in cut} == {remote.CUT_SHORT}
    assert {done.stderr for done in cut} == {b"the connection was cut: nothing was done\n"}
    assert not list(tmp_path.iterdir())

    done = run(whole, tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "F").read_text() == "ран"


def test_no_program_holds_the_separator() -> None:
    for file in [*remote.HERE.glob("facts/*.js"), *remote.HERE.glob("operations/*.js")]:
        assert remote.SEPARATOR not in file.read_text()


def test_values_cannot_hold_the_separator() -> None:
    """JSON writes a line end as \\n, so nothing in the input can look like one."""
    assert remote.stdin((), "f", {"x": remote.SEPARATOR}).count(remote.SEPARATOR) == 2


def test_pack_and_unpack() -> None:
    content = bytes(range(256)) * 40
    assert remote.unpack(remote.pack(content)) == content
    assert remote.pack(content) == remote.pack(content)
