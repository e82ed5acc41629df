"""bin/rehearse: drive the disposable host. Exit codes: 0 done, 1 failed (one line says why), 2 usage."""

from __future__ import annotations

import argparse
import os
import sys

from tests.rehearsal.host import Host, known


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="bin/rehearse", description="A disposable Debian 13 host that looks like production."
    )
    made.add_argument("-n", "--name", default="main", help="which host (up to twelve at once)")
    made.add_argument(
        "--bare", default="", choices=("bookworm", "trixie"), help="up, reset: a Debian with nothing on it"
    )
    commands = made.add_subparsers(dest="command")
    commands.add_parser("up", help="build (cached) and boot")
    commands.add_parser("reset", help="back to the pristine state")
    commands.add_parser("down", help="end it and leave nothing behind")
    commands.add_parser("status", help="which hosts there are")
    ssh = commands.add_parser("ssh", help="a shell on it, or run CMD")
    ssh.add_argument("cmd", nargs=argparse.REMAINDER)
    return made


def main() -> int:
    arguments = parser().parse_args()
    host = Host(arguments.name, arguments.bare)

    match arguments.command:
        case "up":
            host.up()
        case "reset":
            host.reset()
        case "down":
            host.down()
        case "status":
            for each in known():
                state = "up" if each.is_up else f"dead ({each.typed('down')})"
                print(f"{each.name:<10} {each.address:<14} {state}")
            if not known():
                print("no rehearsal host; start one: bin/rehearse up")
        case "ssh":
            if not host.is_up:
                raise SystemExit(f"rehearse: {host.name} is not up: {host.typed('up')}")
            sys.stdout.flush()
            os.execvp("ssh", [*host.ssh_command(), *arguments.cmd])
        case _:
            from tests.rehearsal.story import run

            return run(host)
    return 0


if __name__ == "__main__":
    sys.exit(main())
