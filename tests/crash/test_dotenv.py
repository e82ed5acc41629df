"""`.env` is the old file or the new one, wherever its writer is killed or its disk fails; the next run heals."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from remote.files import sha256
from tests.crash.strike import ROOT, Point, Work
from tests.rehearsal import image

pytestmark = pytest.mark.slow

OLD = "# наш\nA='1'\nYCLIENTS_APP_ID=1 # номер\nB=2\n".encode()
NEW = "# наш\nA='1'\nYCLIENTS_APP_ID=18289 # номер\nB=2\n".encode()
ERRORS = ("EIO", "ENOSPC", "EROFS", "EINTR")


def prepared(folder: Path, bundle: Path = ROOT) -> Work:
    """An application's folder with the real dotenv, and the write of one key in its `.env`."""
    app = folder / "app"
    (app / "node_modules").mkdir(parents=True)
    (app / "node_modules/dotenv").symlink_to(image.layers()[0] / "opt/ai-admin/node_modules/dotenv")
    (app / ".env").touch(0o640)
    (app / ".env").write_bytes(OLD)
    change = {"values": {"YCLIENTS_APP_ID": "18289"}, "literals": {"YCLIENTS_APP_ID": "18289"}, "once": []}
    arguments = {"path": str(app / ".env"), "app": "ai-admin-api", "expected": sha256(OLD), **change}
    return Work(folder, "remote.dotenv_edit.write", arguments, bundle)


def wrong(work: Work) -> list[str]:
    """What must never be, after a strike and before anybody's help."""
    env = work.folder / "app/.env"
    now = env.read_bytes() if env.exists() else b"(gone)"
    kept = [file for file in work.folder.glob("backups/*/**/.env") if file.read_bytes() == OLD]
    found = [] if now in (OLD, NEW) else [f".env is torn: {now!r}"]
    if now == NEW and not kept:
        found.append("the new file is there, and no backup of the old one")
    if now == NEW and not (work.folder / "state/api.json").exists():
        found.append("the new file is there, and no note that the API must be restarted")
    if env.exists() and stat.S_IMODE(env.stat().st_mode) != 0o640:
        found.append(f".env has mode {stat.S_IMODE(env.stat().st_mode):o}")
    return found


def healed(work: Work) -> list[str]:
    """What must not be after the next run."""
    env = work.folder / "app/.env"
    again = Work(work.folder, work.function, {**work.arguments, "expected": sha256(env.read_bytes())}, work.bundle)
    done = again.run()
    left = [file.name for file in (work.folder / "app").glob(".*ai-admin-deploy*")]
    found = [] if done.returncode == 0 and env.read_bytes() == NEW else [f"the next run fails: {done.stderr}"]
    return found + [f"left behind: {name}" for name in left]


def at_every_point(folder: Path, strike: Callable[[Work, Point], object], bundle: Path = ROOT) -> dict[str, list[str]]:
    """By point, what was wrong after a strike there."""
    points = prepared(folder / "all", bundle).points()

    def trial(number: int, point: Point) -> tuple[str, list[str]]:
        work = prepared(folder / str(number), bundle)
        strike(work, point)
        found = wrong(work)
        return str(point), found or healed(work)

    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(trial, range(len(points)), points))


def test_killed_at_every_system_call(tmp_path: Path) -> None:
    found = at_every_point(tmp_path, Work.killed_at)
    assert {point: problems for point, problems in found.items() if problems} == {}
    assert {"openat", "write", "fsync", "rename", "fchmod", "mkdir"} <= {point.split()[0] for point in found}
    assert len(found) > 30, f"too few points to prove much: {list(found)}"


@pytest.mark.parametrize("error", ERRORS)
def test_every_system_call_fails(tmp_path: Path, error: str) -> None:
    found = at_every_point(tmp_path, lambda work, point: work.failing_at(point, error))
    assert {point: problems for point, problems in found.items() if problems} == {}


def test_a_write_in_place_is_caught(tmp_path: Path) -> None:
    """The guard taken out: a `write_whole` that writes into the file itself."""
    mutant = tmp_path / "mutant"
    shutil.copytree(ROOT / "remote", mutant / "remote")
    files = mutant / "remote/files.py"
    atomic = "        os.replace(new, path)\n    except"
    assert atomic in files.read_text()
    in_place = "        with open(path, 'wb', 16) as file:\n            file.write(content)\n        remove(new)\n"
    files.write_text(files.read_text().replace(atomic, in_place + "    except"))
    found = at_every_point(tmp_path, Work.killed_at, mutant)
    assert any("torn" in problem for problems in found.values() for problem in problems)
