"""How long each job takes, against others that do it: `bin/bench`, on a rehearsal host of its own.

Every contestant is run in turn with the others, cold (a new connection each time), through a relay that makes the host
distant. Exit code 1 when a target of the project is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from benchmarks import report
from benchmarks.places import LIGHT, Place, cpu_of, distances, light_hosts
from benchmarks.report import (
    CHANGING,
    CONTESTANTS,
    CONVERGING,
    FEW,
    FLEETS,
    LINGER,
    MANY,
    PATIENT,
    ROUND_TRIPS,
    USUAL,
    Run,
)
from channel import bundle
from operations import marked
from tests.rehearsal.host import Host, of_this_run
from tests.rehearsal.progress import step
from tests.rehearsal.story import ROOT, copy_of_repository, deploy, tokens, without_secrets

HERE = Path(__file__).parent
ANSIBLE = HERE / "ansible/.venv/bin/ansible-playbook"
MITOGEN = "lib/python*/site-packages/ansible_mitogen/plugins/strategy"  # in Ansible's .venv
FIREWALL = "ai_admin_benchmark"  # nothing answers at the relay's port 3000, as through a provider's firewall
IDLE_SECONDS = 4
SELDOM = dict.fromkeys(CHANGING[1:], FEW)

Tool = Callable[[Place], Run]


@dataclass
class Bench:
    """`folder` is a copy of the bundle without the operator's `.env`."""

    host: Host
    folder: Path
    scratch: Path
    times: int
    secrets: dict[str, str] = field(default_factory=tokens)
    runs: dict[tuple[str, int], dict[str, list[Run]]] = field(default_factory=dict)  # by job and round trip, or hosts

    def take_turns(
        self,
        job: str,
        parameter: int,
        contestants: Mapping[str, Callable[[], Run]],
        before: Callable[[], None] = lambda: None,
        fewer: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Each contestant `times` times, in turn; some fewer times. With the CPU that each run takes on the host."""
        runs = self.runs[job, parameter] = {name: [] for name in contestants}
        with step(f"{job}, {parameter}: {', '.join(contestants)}"):
            idle = self._idle()
            for turn in range(self.times):
                for name, contestant in contestants.items():
                    if turn < fewer.get(name, self.times):
                        before()
                        runs[name].append(self._with_host_cpu(contestant, idle))

    def _idle(self) -> float:
        """CPU seconds that the host uses in a second in which nobody asks it anything."""
        before = cpu_of(self.host)
        time.sleep(IDLE_SECONDS)
        return (cpu_of(self.host) - before) / IDLE_SECONDS

    def _with_host_cpu(self, contestant: Callable[[], Run], idle: float) -> Run:
        started, before = time.monotonic(), cpu_of(self.host)
        run = contestant()
        time.sleep(LINGER)
        used, seconds = cpu_of(self.host) - before, time.monotonic() - started
        return replace(run, host_cpu=used - idle * seconds)

    # --- contestants

    def tools(self) -> dict[str, Tool]:
        every = [self.quick_check, self.by_hand, self.verify, self.deploy, self.ansible, self.mitogen]
        return dict(zip(CONTESTANTS, every, strict=True))

    def quick_check(self, place: Place) -> Run:
        return self._run([*_ssh(place), (HERE / "quick_check.sh").read_text()])

    def by_hand(self, place: Place) -> Run:
        return self._run([*_ssh(place), "sh -s"], stdin=HERE / "by_hand.sh")

    def verify(self, place: Place, *arguments: str) -> Run:
        return self._run([sys.executable, "-m", "tests.verify", str(place.folder / "inventory.py"), *arguments])

    def deploy(self, place: Place, *arguments: str) -> Run:
        pyinfra = str(Path(sys.executable).with_name("pyinfra"))
        return self._run([pyinfra, str(place.folder / "inventory.py"), "deploy.py", "-y", *arguments])

    def mitogen(self, place: Place) -> Run:
        """As Mitogen is by default: it keeps one connection for the whole run by itself, and compresses it."""
        [plugins] = ANSIBLE.parent.parent.glob(MITOGEN)
        return self.ansible(place, {"ANSIBLE_STRATEGY_PLUGINS": str(plugins), "ANSIBLE_STRATEGY": "mitogen_linear"})

    def patient(self, place: Place) -> Run:
        return self.ansible(place, {}, "-e", "sure=5")

    def ansible(self, place: Place, strategy: Mapping[str, str] = MappingProxyType({}), *arguments: str) -> Run:
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            common = ["-F", "none", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s", *place.ssh_options]
            environment = {
                "ANSIBLE_CONFIG": str(HERE / "ansible/ansible.cfg"),
                "ANSIBLE_SSH_ARGS": " ".join(common),
                "ANSIBLE_SSH_CONTROL_PATH_DIR": name,
                "LANG": "C.UTF-8",
                **strategy,
            }
            inventory = str(place.folder / "hosts.ini")
            variables = f"@{self.scratch / 'variables.json'}"
            command = [str(ANSIBLE), "-i", inventory, "-e", variables, *arguments, str(HERE / "ansible/playbook.yml")]
            try:
                return self._run(command, environment)
            finally:
                for master in Path(name).iterdir():
                    subprocess.run(["ssh", "-o", f"ControlPath={master}", "-O", "exit", "x"], capture_output=True)

    def _run(self, command: list[str], environment: dict[str, str] | None = None, stdin: Path | None = None) -> Run:
        own = ("ANSIBLE_", "SSH_", "PYTHONDONTWRITEBYTECODE")  # of whoever runs this
        base = {key: value for key, value in without_secrets().items() if not key.startswith(own)}
        env = {**base, **self.secrets, **(environment or {})}
        with (stdin or Path(os.devnull)).open() as source, tempfile.TemporaryFile("w+") as output:
            started = time.monotonic()
            process = subprocess.Popen(
                command, cwd=self.folder, env=env, stdin=source, stdout=output, stderr=subprocess.STDOUT
            )
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            output.seek(0)
            text = output.read()
        if process.returncode:
            raise SystemExit(f"bench: {command} ended with {process.returncode}\n{text}")
        return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, text)

    # --- jobs

    def changing(self, place: Place) -> dict[str, Callable[[], Run]]:
        """The contestants of a job that changes something."""
        tools = {**self.tools(), PATIENT: self.patient}
        return {name: partial(tools[name], place) for name in CHANGING}

    def first_converge(self, place: Place) -> None:
        """From the pristine host, with npm's cache warm."""
        cache = self.scratch / "npm"
        shutil.copytree(place.host.root / "root/.npm", cache, symlinks=True)  # deploy.py's, of its first run
        place.host.reset()
        self.ansible(place)
        shutil.copytree(place.host.root / "root/.npm", cache, symlinks=True, dirs_exist_ok=True)

        def pristine() -> None:
            place.host.reset()
            shutil.copytree(cache, place.host.root / "root/.npm", symlinks=True, dirs_exist_ok=True)

        self.take_turns("first converge", place.round_trip, self.changing(place), pristine, fewer=SELDOM)

    def no_change(self, place: Place) -> None:
        contestants = {name: partial(_unchanged, tool, place) for name, tool in self.tools().items()}
        self.take_turns("no change", place.round_trip, contestants)

    def token_arrival(self, place: Place) -> None:
        def arrive() -> None:
            self.secrets = tokens()

        # -vvv: it shows how long the restart took
        tools = self.changing(place)
        tools["deploy.py"] = partial(self.deploy, place, "-vvv")
        self.take_turns("token arrival", place.round_trip, tools, arrive, fewer=SELDOM)

    def many(self, place: Place) -> None:
        tools = {name: partial(_unchanged, self.tools()[name], place) for name in CONVERGING}
        hosts = len(place.ports)
        self.take_turns("many hosts", hosts, tools, fewer=SELDOM if hosts >= MANY else {})

    def channels(self, place: Place) -> dict[str, int]:
        """SSH channels of one run each, as sshd counts them."""
        found = {}
        for name, tool in self.tools().items():
            before = _sessions(place.host)
            tool(place)
            found[name] = _sessions(place.host) - before - 1  # the counting has one itself
        return found


def _ssh(place: Place) -> list[str]:
    return ["ssh", "-F", "none", *place.ssh_options, f"root@{place.address}"]


def _unchanged(tool: Tool, place: Place) -> Run:
    """It must find nothing to change, or there is nothing to compare."""
    run = tool(place)
    if re.search(r"\] +Success|changed=[1-9]", run.output):
        raise SystemExit(f"bench: a run that should change nothing did\n{run.output}")
    return run


def _sessions(host: Host) -> int:
    """Channels that sshd has opened; it logs them at level VERBOSE. This one is of a connection of its own."""
    command = ["-o", "ControlPath=none", host.name, "journalctl -q -o cat -g 'Starting session' | wc -l"]
    return int(subprocess.run(["ssh", "-F", str(host.ssh_config), *command], check=True, capture_output=True).stdout)


def blocks_of(host: Host, variables: Path) -> None:
    """What Ansible is to put where: the blocks that deploy.py has put there."""
    files = {
        "routes": "/opt/ai-admin/src/api/routes/yclients-marketplace.js",
        "pool": "/opt/ai-admin/src/integrations/whatsapp/session-pool.js",
        "nginx": "/etc/nginx/sites-available/ai-admin.app",
        "room": "/etc/nginx/sites-available/ai-admin.app",  # the first one in it
    }
    blocks = {}
    for name, file in files.items():
        text = host.ssh(f"cat {file}").stdout
        find = text.index if name == "room" else text.rindex
        first, *body, last = text[find(marked.BEGIN) : find(marked.END) + len(marked.END)].split("\n")
        blocks[name] = "\n".join(body)
        begin, end = first, last[last.index(marked.END) :]
    values = {"app_dir": "/opt/ai-admin", "begin": begin, "end": end, "blocks": blocks}
    values["link"] = host.ssh("readlink /etc/nginx/sites-enabled/ai-admin.app").stdout.strip()
    values["tokens"] = list(tokens())
    variables.write_text(json.dumps(values))


def checks_of(bench: Bench, place: Place) -> int:
    """How many checks bin/verify makes."""
    file = bench.scratch / "verify.json"
    bench.verify(place, "--json", str(file))
    count: int = json.loads(file.read_text())[0]["checks"]
    return count


def measure(bench: Bench, host: Host) -> report.Measured:
    code = bundle()  # now: half an hour later it may be another
    done = deploy(host, environment=bench.secrets)
    if done.code:
        raise SystemExit(done.output)
    blocks_of(host, bench.scratch / "variables.json")
    with distances(host, ROUND_TRIPS, bench.scratch) as places:
        bench.first_converge(places[USUAL])
        host.reset()
        host.ssh("echo LogLevel VERBOSE > /etc/ssh/sshd_config.d/bench.conf && systemctl reload ssh")
        bench.deploy(places[USUAL])
        channels = bench.channels(places[0])
        checks = checks_of(bench, places[0])
        for place in places.values():
            bench.no_change(place)
        bench.token_arrival(places[USUAL])
        light_hosts(host)
        for hosts in FLEETS:
            bench.many(Place(host, USUAL, LIGHT[:hosts], bench.scratch / f"{hosts}hosts").write())
    return report.Measured(bench.runs, channels, checks, code)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="bin/bench", description=__doc__.partition("\n")[0])
    made.add_argument("--times", type=int, default=10, help="runs of each (10: about half an hour)")
    made.add_argument("--write", action="store_true", help="write docs/speed.md and docs/speed.svg")
    return made


def main() -> int:
    arguments = parser().parse_args()
    host = of_this_run("bench")
    rule = "type filter hook output priority 0; ip daddr 127.0.77.0/24 tcp dport 3000 drop;"
    firewall = f"table ip {FIREWALL} {{\nchain out {{ {rule} }}\n}}"
    with tempfile.TemporaryDirectory(prefix="bench-") as name, copy_of_repository(ROOT, None, None) as folder:
        host.reset()
        try:
            subprocess.run(["nft", "-f", "-"], input=firewall, text=True, check=True)
            measured = measure(Bench(host, folder, Path(name), arguments.times), host)
        finally:
            subprocess.run(["nft", "delete", "table", "ip", FIREWALL], capture_output=True)
            host.down()
    page, chart = measured.page(), measured.chart()
    if arguments.write:
        (ROOT / "docs/speed.md").write_text(page)
        (ROOT / "docs/speed.svg").write_text(chart)
    print(page)
    return 0 if all(target.met for target in measured.targets()) else 1


if __name__ == "__main__":
    sys.exit(main())
