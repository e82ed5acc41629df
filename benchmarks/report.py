"""docs/speed.md and docs/speed.svg: what `bin/bench` measured, and whether the targets are met."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

ROUND_TRIPS = [0, 50, 150]  # milliseconds
USUAL = 50  # the round trip where only one is measured
FLEETS = [1, 3, 10, 30]  # hosts
LINGER = 0.3  # seconds, for what a run leaves to end on the host: sshd's session, a backend of PostgreSQL
FEW = 3  # runs of each peer where something changes, and from MANY hosts on: they take long
MANY = 3
CONTESTANTS = {  # name: what it is
    "quick check": "the requirements' own check, one `ssh` (7 things looked at)",
    "by hand": "`benchmarks/by_hand.sh`: what deploy.py looks at, read by hand in one `ssh`",
    "bin/verify": "this project's verification",
    "deploy.py": "this project's deploy",
    "Ansible": "`benchmarks/ansible/playbook.yml`, ansible-core 2.19: pipelining, ControlPersist, no facts gathered",
    "Ansible with Mitogen": "the same playbook and ansible-core, strategy `mitogen_linear` of Mitogen 0.3.54",
}
PEERS = ("Ansible", "Ansible with Mitogen")  # they do the whole job, as deploy.py does
CONVERGING = ("deploy.py", *PEERS)
PATIENT = "Ansible, always 5 s"  # as the playbook was when the targets were set, before it got deploy.py's own rule
CHANGING = (*CONVERGING, PATIENT)
COLOURS = {
    **dict(zip(CONTESTANTS, ("#bbbbbb", "#888888", "#66aa77", "#2266aa", "#cc7722", "#ddaa66"), strict=True)),
    PATIENT: "#aa4400",
}


@dataclass(frozen=True)
class Run:
    """One run: seconds on the clock; of the client's processes CPU seconds, and MiB of the largest; what it printed.

    `host_cpu`: CPU seconds of all processes of the host, less what an idle host uses in that time.
    """

    seconds: float
    cpu: float
    memory: float
    output: str
    host_cpu: float = 0.0

    @property
    def restart_seconds(self) -> float:
        """What the step that restarts the API says that the restart took, until the API had proved stable."""
        return sum(map(float, re.findall(r'"restart_seconds": ?([\d.]+)', self.output)))


@dataclass(frozen=True)
class Target:
    """`measured` must be at most `limit`, or with `least` at least that."""

    what: str
    measured: float
    limit: float
    unit: str = " times"
    least: bool = False

    @property
    def met(self) -> bool:
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        mark = "✓" if self.met else "✗"
        return f"{mark} {self.what}: {self.measured:.3g}{self.unit} ({bound} {self.limit:g})"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    cores = Path("/proc/cpuinfo").read_text().count("processor\t")
    return f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores of {model}, client and hosts on the same machine"


@dataclass(frozen=True)
class Measured:
    """`runs` by job, then round trip (or number of hosts), then contestant; `channels` of one run without a change."""

    runs: dict[tuple[str, int], dict[str, list[Run]]]
    channels: dict[str, int]
    checks: int
    code: str

    def seconds(self, job: str, parameter: int, name: str) -> float:
        return median(run.seconds for run in self.runs[job, parameter][name])

    def ratio(self, job: str, name: str, parameter: int = USUAL) -> float:
        """How many times as long as deploy.py it takes."""
        return self.seconds(job, parameter, name) / self.seconds(job, parameter, "deploy.py")

    def spread(self, job: str, parameter: int, name: str) -> str:
        """The median, and the fastest and the slowest."""
        seconds = [run.seconds for run in self.runs[job, parameter][name]]
        return f"{median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"

    def host_cpu(self, job: str, parameter: int, name: str) -> float:
        return median(run.host_cpu for run in self.runs[job, parameter][name])

    def without_wait(self) -> float:
        return median(run.seconds - run.restart_seconds for run in self.runs["token arrival", USUAL]["deploy.py"])

    def memory(self, hosts: int) -> float:
        return max(run.memory for run in self.runs["many hosts", hosts]["deploy.py"])

    def targets(self) -> list[Target]:
        names = ("deploy.py", "quick check", "bin/verify", *PEERS)
        ours, check, verify, ansible, mitogen = (self.seconds("no change", USUAL, name) for name in names)
        cpu = median(run.cpu for run in self.runs["no change", USUAL]["deploy.py"])
        many = self.seconds("many hosts", FLEETS[-1], "deploy.py") / self.seconds("many hosts", 1, "deploy.py")
        changing = [
            target
            for job, seconds, ratio in (("token arrival", 6.5, 2.5), ("first converge", 11, 1.7))
            for target in (
                Target(job, self.seconds(job, USUAL, "deploy.py"), seconds, " s"),
                Target(f"{job}: Ansible to deploy.py", self.ratio(job, "Ansible"), ratio, least=True),
                Target(f"{job}: {PATIENT} to deploy.py", self.ratio(job, PATIENT), ratio, least=True),
            )
        ]
        return [
            Target("no change: deploy.py to the quick check", ours / check, 0.9),
            Target("no change: Ansible to deploy.py", ansible / ours, 5, least=True),
            Target("no change: Ansible with Mitogen to deploy.py", mitogen / ours, 3.5, least=True),
            Target("no change: CPU of the client", cpu, 0.6, " s"),
            Target("no change: CPU of the host", self.host_cpu("no change", USUAL, "deploy.py"), 0.18, " s"),
            Target("bin/verify to the quick check", verify / check, 1.5),
            Target("bin/verify: checks", self.checks, 40, "", least=True),
            *changing,
            Target("token arrival without the API's restart to no change", self.without_wait() / ours, 2),
            Target(f"{FLEETS[-1]} hosts to one", many, 4),
            Target(f"{FLEETS[-1]} hosts: memory of the client", self.memory(FLEETS[-1]), 250, " MiB"),
        ]

    def chart(self) -> str:
        jobs = [*(("no change", each) for each in ROUND_TRIPS), ("token arrival", USUAL), ("first converge", USUAL)]
        groups = {
            f"{job}, {each} ms": {name: self.seconds(job, each, name) for name in self.runs[job, each]}
            for job, each in jobs
        }
        return chart("Seconds, median; less is better", groups)

    def page(self) -> str:
        times = len(self.runs["no change", USUAL]["deploy.py"])
        idle = []
        for name, what in CONTESTANTS.items():
            medians = [self.seconds("no change", each, name) for each in ROUND_TRIPS]
            trips = (medians[-1] - medians[0]) / (ROUND_TRIPS[-1] - ROUND_TRIPS[0]) * 1000
            cpu = median(run.cpu for run in self.runs["no change", USUAL][name])
            spreads = [self.spread("no change", each, name) for each in ROUND_TRIPS]
            cpus = [f"{cpu:.2f}", f"{self.host_cpu('no change', USUAL, name):.2f}"]
            idle.append([f"{name}: {what}", *spreads, f"{trips:.0f}", str(self.channels[name]), *cpus])
        busy = [[job, *self._against_peers(job, USUAL, CHANGING)] for job in ("token arrival", "first converge")]
        many = [[str(each), *self._against_peers("many hosts", each), *self._costs(each)] for each in FLEETS]
        peers, changing = (
            [*names, *(f"{each} to deploy.py" for each in names[1:])] for names in (CONVERGING, CHANGING)
        )
        distances = [f"{each} ms" for each in ROUND_TRIPS]
        return f"""# How long it takes

`bin/bench --times {times} --write` of {self.code}, {machine()}.
Seconds: the median of {times} runs, with the fastest and the slowest.
All run in turn, each over a new connection, through a TCP relay that adds the round trip.

![chart](speed.svg)

## Nothing to change

{table(["who", *distances, "round trips", "channels", "client's CPU, s", "host's CPU, s"], idle)}

Channels: SSH's, as the host's sshd counts them. Round trips: the slope from the first to the last column.
CPU: the median at {USUAL} ms. The host's is that of all its processes (sshd and PostgreSQL's backend too), from the
start of a run until {LINGER} s after its end, less what the idle host uses in that time.
Ansible's playbook changes nothing on a host that deploy.py made (all are checked to report no change).

## Something to change, {USUAL} ms

{table(["job", *changing], busy)}

Token arrival includes the API's restart and the wait until it has proved stable (by far the most of it: pm2's 1.6 s to
end the old process, its start, and 1 s, or 5 s of `settle_time` where it wrote to its error log; the handler of
Ansible's playbook has the same rule, except in the column “always 5 s”).
Without it deploy.py takes {self.without_wait():.2f} s.
First converge: from the pristine rehearsal host, npm's cache warm. In both jobs each Ansible variant was run
{min(FEW, times)} times.

## Many hosts at once, {USUAL} ms, nothing to change

{table(["hosts", *peers, "host's CPU, s", "client's memory, MiB"], many)}

Ansible has 30 forks. From {MANY} hosts on it was run {min(FEW, times)} times, with and without Mitogen. CPU and memory
are deploy.py's; the host's CPU is that of all hosts together. Each host is a real sshd with locks of its own; what is
behind them (the application, nginx, PostgreSQL) is one rehearsal host's, on the same cores as the client.

## Targets

{chr(10).join(f"- {target}" for target in self.targets())}
"""

    def _against_peers(self, job: str, parameter: int, names: tuple[str, ...] = CONVERGING) -> list[str]:
        ratios = [f"{self.ratio(job, name, parameter):.1f}" for name in names[1:]]
        return [*(self.spread(job, parameter, name) for name in names), *ratios]

    def _costs(self, hosts: int) -> list[str]:
        return [f"{self.host_cpu('many hosts', hosts, 'deploy.py'):.2f}", f"{self.memory(hosts):.0f}"]


def chart(title: str, groups: dict[str, dict[str, float]]) -> str:
    """Horizontal bars, in groups, as SVG; a colour for each contestant."""
    width, bar, left = 760, 16, 150
    longest = max(value for group in groups.values() for value in group.values())
    root = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg")
    root.set("font-family", "sans-serif")
    root.set("font-size", "12")

    def add(tag: str, body: str = "", **attributes: str | float) -> None:
        svg = {key.replace("_", "-"): str(value) for key, value in attributes.items()}
        ElementTree.SubElement(root, tag, svg).text = body

    y = 24
    add("text", title, x=8, y=y, font_size=14, font_weight="bold")
    for name, group in groups.items():
        y += 26
        add("text", name, x=8, y=y, font_weight="bold")
        for each, value in group.items():
            y += bar + 4
            length = round((width - left - 60) * value / longest, 1)
            add("text", each, x=left - 6, y=y, text_anchor="end")
            add("rect", x=left, y=y - bar + 4, width=length, height=bar, fill=COLOURS[each])
            add("text", f"{value:.2f}", x=left + length + 5, y=y)
    height = y + 16
    root.set("viewBox", f"0 0 {width} {height}")
    root.insert(0, ElementTree.Element("rect", width=str(width), height=str(height), fill="white"))
    return ElementTree.tostring(root, encoding="unicode") + "\n"
