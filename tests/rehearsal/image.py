"""The rehearsal host's file system: Debian 13 plus the stand-in application, cached by recipe.

Two layers, each a directory named by the hash of what it was made from: `base` (Debian's packages,
about 50 s) and `app` (everything in `app/`, `root/` and `provision.sh`, about 40 s). A change of the
application rebuilds the second alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rehearsal.progress import step

HERE = Path(__file__).parent
IMAGES = Path("/var/cache/ai-admin-rehearsal")
LOCAL_CA = Path("/usr/local/share/ca-certificates")

SUITE = "trixie"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "nginx-light", "postgresql", "pgbouncer", "redis-server"),
    *("nodejs", "npm", "ca-certificates", "openssl", "iproute2", "procps", "curl", "acl", "sudo", "python3-minimal"),
)
BARE_PACKAGES = ("systemd", "systemd-sysv", "dbus", "openssh-server")  # the least that a provider's image can have


def layers() -> list[Path]:
    """The two layers, uppermost first, as overlayfs wants its lower directories; built when absent, one at a time."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs that built side by side took each other's files away
        return _layers()


def _layers() -> list[Path]:
    base = IMAGES / f"base-{digest(SUITE, *PACKAGES)}"
    if not base.exists():
        with step("build Debian 13 (once, about 1 minute)"):
            build(base, _debootstrap)
    recipe = [HERE / "provision.sh", HERE / "app", HERE / "root", LOCAL_CA]
    app = IMAGES / f"app-{digest(base.name, *recipe)}"
    if not app.exists():
        with step("install the stand-in application (once per change of it)"):
            build(app, lambda target: _provision(base, target))
    _forget_old(keep={base.name, app.name})
    return [app, base]


def bare(suite: str) -> list[Path]:
    """The one layer of a Debian of this suite with nothing on it but systemd, sshd and apt; built when absent."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = IMAGES / f"bare-{digest(suite, *BARE_PACKAGES, LOCAL_CA, BARE)}"
        if not folder.exists():
            with step(f"build a bare Debian, {suite} (once, about 1 minute)"):
                build(folder, lambda target: _bare(suite, target))
        _forget_old(keep={folder.name})
    return [folder]


# This machine's own way to the registries, as a company's proxy would be: Node's own build does not read Debian's CAs
BARE = """
echo cafile=/etc/ssl/certs/ca-certificates.crt > /root/.npmrc
echo rehearsal > /etc/hostname
echo force-unsafe-io > /etc/dpkg/dpkg.cfg.d/rehearsal  # no fsync for each file: a rehearsal's disk is thrown away
systemctl enable systemd-networkd.service ssh.service
"""


def _bare(suite: str, target: Path) -> None:
    command = ["mmdebstrap", "--variant=minbase", f"--include={','.join(BARE_PACKAGES)}", suite, str(target)]
    run_logged(command, IMAGES / "bare.log")
    shutil.copytree(LOCAL_CA, target / LOCAL_CA.relative_to("/"), dirs_exist_ok=True)
    run_logged(["chroot", str(target), "sh", "-euc", BARE], IMAGES / "bare.log")


def digest(*parts: str | Path) -> str:
    """Changes with every change of these texts, files and folders."""
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            found.update(part.encode() + b"\0")
            continue
        for file in sorted(part.rglob("*")) if part.is_dir() else [part]:
            if file.is_file() and file.parent.name != "__pycache__":
                found.update(str(file.relative_to(part)).encode() + b"\0")
                found.update(oct(file.stat().st_mode & 0o111).encode() + file.read_bytes() + b"\0")
    return found.hexdigest()[:16]


def build(target: Path, make: object) -> None:
    """Make the layer beside its final name and rename it, so that a killed build is never used."""
    assert callable(make)
    IMAGES.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    make(partial)
    partial.rename(target)


def _debootstrap(target: Path) -> None:
    log = IMAGES / "build.log"
    run_logged(
        ["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target)],
        log,
    )


def _provision(base: Path, target: Path) -> None:
    """Run provision.sh in base with an empty layer above it; the layer is the result."""
    with layered([base], target) as root:
        shutil.copytree(HERE / "root", root, dirs_exist_ok=True, symlinks=True)
        shutil.copytree(HERE / "app", root / "opt/ai-admin")
        shutil.copytree(LOCAL_CA, root / LOCAL_CA.relative_to("/"), dirs_exist_ok=True)
        shutil.copy(HERE / "provision.sh", root / "root/provision.sh")
        run_logged(
            [
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--as-pid2"),
                *("--resolv-conf=copy-host", "--timezone=off", "--directory", str(root)),
                *("sh", "-eu", "/root/provision.sh"),
            ],
            IMAGES / "build.log",
        )
        (root / "root/provision.sh").unlink()


@contextmanager
def layered(lower: list[Path], upper: Path) -> Iterator[Path]:
    """A root made of these layers, until the block ends. What is written in it goes to `upper`, which is made."""
    scratch = upper.with_name(f"{upper.name}.mounted")
    work, root = scratch / "work", scratch / "root"
    unmount(root)
    shutil.rmtree(scratch, ignore_errors=True)
    for folder in (upper, work, root):
        folder.mkdir(parents=True)
    mount_overlay(root, lower, upper, work)
    try:
        yield root
    finally:
        unmount(root)
        shutil.rmtree(scratch, ignore_errors=True)


def mount_overlay(at: Path, lower: list[Path], upper: Path, work: Path) -> None:
    # redirect_dir: without it a folder of a lower layer cannot be renamed (EXDEV), which any real disk can do
    options = f"lowerdir={':'.join(map(str, lower))},upperdir={upper},workdir={work},redirect_dir=on"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)


def unmount(at: Path) -> None:
    """Unmount if mounted; a mount that stays busy for 60 s is an error, not a lazy unmount."""
    deadline = time.monotonic() + 60
    while os.path.ismount(at):
        root = at.stat()
        Path(f"/run/systemd/nspawn/locks/inode-{root.st_dev}:{root.st_ino}").unlink(missing_ok=True)  # nspawn leaves it
        done = subprocess.run(["umount", "--recursive", str(at)], capture_output=True, text=True)
        if done.returncode and time.monotonic() > deadline:
            raise SystemExit(f"rehearse: {at} stays mounted: {done.stderr.strip()}")
        time.sleep(0 if done.returncode == 0 else 0.1)


def run_logged(command: list[str], log: Path) -> None:
    """Run with its output in `log`; on failure show the log's end."""
    with log.open("w") as output:
        done = subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"rehearse: {command[0]} failed ({done.returncode}); whole log: {log}\n{tail}")


def _forget_old(keep: set[str]) -> None:
    """Of each kind keep the newest six besides the one in use: branches are switched to and fro."""
    for kind in ("base-", "app-", "minimal-", "bare-"):
        mounted = Path("/proc/self/mounts").read_text()  # a host that runs may still stand on an old one
        old = [path for path in IMAGES.glob(f"{kind}*") if path.name not in keep and str(path) not in mounted]
        for path in sorted(old, key=lambda path: path.stat().st_mtime)[:-6]:
            shutil.rmtree(path, ignore_errors=True)
