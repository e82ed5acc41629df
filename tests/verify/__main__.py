"""Is the integration ready? Checks the host and its site, changes nothing, and prints a table of ten components: what
was seen, and what to type if it is not ready.

exit codes:
  0    all ready (--drift: the host is as deploy would make it)
  1    something is broken or could not be checked; wrong usage
  2    nothing is broken, tokens are pending
  3    --drift only: the host differs from what deploy would make
  130  stopped by Ctrl-C
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from first_contact import first_contact
from settings import BadInput
from tests.verify.target import HERE, ROOT, Target, targets

CALLED_FROM = Path(os.environ.get("CALLED_FROM", ""))  # bin/verify works in the bundle's folder
STOPPED = 130  # exit code, as shells have it for Ctrl-C
LIVE_QR = """also start a WhatsApp session for this salon through the API, as its owner would, and check that a QR code
comes. The session is left waiting for a scan, and may disturb a running one: use a test salon, or one that is being
connected. Never done by default. Neither the token nor the QR code leaves the host."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit code 1, not argparse's 2, which means pending tokens here."""
        self.exit(1, f"verify: {message}; see bin/verify --help\n")


def _inventory(word: str) -> str:
    """A file is one of the folder that bin/verify was called from; else it is of the bundle, or no file."""
    file = CALLED_FROM / word
    if word.endswith(".py") and not (file.exists() or Path(word).exists()):
        raise argparse.ArgumentTypeError(f"there is no inventory {word}")
    return str(file) if file.exists() else word


def _new_file(word: str) -> Path:
    file = CALLED_FROM / word
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.parent}")
    if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{file} cannot be written: name a file, in a folder of yours")
    return file


def parser() -> Parser:
    about, _, codes = (__doc__ or "").partition("\n\n")
    made = Parser(
        prog="bin/verify", description=about, epilog=codes, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "inventory", nargs="?", default="inventory.py", type=_inventory, help="as for pyinfra; default: production's"
    )
    made.add_argument(
        "--limit",
        metavar="HOST",
        action="append",
        default=[],
        help="a host, a group or a name pattern; may be repeated",
    )
    made.add_argument("--data", metavar="KEY=VALUE", action="append", default=[], help="as for pyinfra: for this run")
    made.add_argument("--json", metavar="FILE", type=_new_file, help="also write everything that was checked")
    made.add_argument("--junit", metavar="FILE", type=_new_file, help="also write JUnit's XML, for a CI")
    made.add_argument("--html", metavar="FILE", type=_new_file, help="also write one page to send to someone")
    made.add_argument(
        "--live", action="store_const", const=True, help="also ask YClients whether it accepts the partner token"
    )
    made.add_argument("--live-qr", metavar="SALON_ID", type=int, help=LIVE_QR)
    made.add_argument("--drift", action="store_true", help="instead: list what deploy would change")
    return made


def parse() -> argparse.Namespace:
    known = parser()
    arguments = known.parse_args()
    asked = [name for name in ("json", "junit", "html", "live", "live_qr") if getattr(arguments, name) is not None]
    if arguments.drift and asked:
        known.error(f"--drift cannot be combined with --{asked[0].replace('_', '-')}")
    return arguments


def main() -> int:
    arguments = parse()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # ✗ where the encoding has none
    signal.signal(signal.SIGINT, _stopped)
    try:
        if arguments.drift:
            from tests.verify import drift

            hosts = targets(arguments.inventory, arguments.limit, arguments.data)
            return drift.find(arguments.inventory, hosts, arguments.data)
        return verify(arguments)
    except BadInput as error:
        print(f"verify: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _stopped(number: int, frame: object) -> NoReturn:
    del number, frame
    os.write(2, b"\nverify: stopped; nothing was changed\n")
    os._exit(STOPPED)


def started(arguments: argparse.Namespace) -> list[Target]:
    """The hosts, each being connected to by now. Raises BadInput."""
    hosts = targets(arguments.inventory, arguments.limit, arguments.data)
    for target in hosts:
        target.start()
    return hosts


def _login(target: Target) -> str:
    """The ssh command of the inventory, as a person types it: without what keeps ssh from asking."""
    silent = ("BatchMode=", "StrictHostKeyChecking=", "LogLevel=", "ConnectTimeout=")
    words = [word for word in target.command[:-1] if word not in ("-o", "--") and not word.startswith(silent)]
    return shlex.join([f"-o{word}" if "=" in word else word for word in words])


def _option(target: Target, name: str) -> str | None:
    return next((word.partition("=")[2] for word in target.command if word.startswith(f"{name}=")), None)


def _shown(arguments: argparse.Namespace) -> str:
    """The inventory, as it is typed in the bundle's folder."""
    file = Path(arguments.inventory)
    inside = file.resolve().is_relative_to(ROOT)
    return str(file.resolve().relative_to(ROOT)) if file.exists() and inside else arguments.inventory


def verify(arguments: argparse.Namespace) -> int:
    """Run the checks, print the tables and write the reports. Raises BadInput."""
    starting = ThreadPoolExecutor(1).submit(started, arguments)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins of other projects take 0.1 s
    import pytest

    from tests.verify.plugin import Verification

    hosts = starting.result()
    live = [*(["live_token.py"] if arguments.live else []), *(["live_qr.py"] if arguments.live_qr is not None else [])]
    verification = Verification(hosts, _shown(arguments), arguments.live_qr, bool(arguments.limit))
    code = pytest.main(
        [
            *("-p", "no:terminal", "--assert=plain"),
            *(f"--rootdir={HERE}", "-c", str(HERE / "pytest.ini"), str(HERE)),
            *("-o", " ".join(["python_files=test_*.py", *live])),
            *([f"--junitxml={arguments.junit.resolve()}"] if arguments.junit else []),
        ],
        plugins=[verification],
    )
    tables = list(verification.tables.values())
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"verify: the checks did not run (pytest: {code!r})", file=sys.stderr)
        return 1
    if wanting := [name for name, table in verification.tables.items() if table.wants_deploy]:
        from tests.verify.drift import unchanged

        # "deploy" is no remedy where it would do nothing
        for name in unchanged(arguments.inventory, wanting, arguments.data):
            verification.tables[name].without_deploy()
    for target, table in zip(hosts, tables, strict=True):
        target.backend.close()
        if target.backend.round_trips:
            table.print(sys.stdout)
        else:
            port, known_hosts = (_option(target, name) for name in ("Port", "UserKnownHostsFile"))
            advice = first_contact(target.backend.said, _login(target), target.address, port, known_hosts)
            if "permission denied" in target.backend.said.lower():
                advice.append("bin/verify uses no passphrase, and no password of the inventory: type ssh-add")
            print(f"verify: {target.unreachable}", *advice, sep="\n  ", file=sys.stderr)
    data = [table.data() for table in tables]
    if arguments.json:
        arguments.json.write_text(json.dumps(data, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    if arguments.html:
        from tests.verify.report import page

        arguments.html.write_text(page(data), encoding="utf-8")
    codes = {table.exit_code for table in tables}
    return 1 if 1 in codes else max(codes)


if __name__ == "__main__":
    sys.exit(main())
