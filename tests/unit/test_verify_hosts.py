"""bin/verify takes hosts, data and global arguments from an inventory exactly as pyinfra does."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pyinfra.api.config import Config
from pyinfra.api.host import Host
from pyinfra.api.inventory import Inventory
from pyinfra.api.state import State
from pyinfra.context import ctx_config, ctx_inventory, ctx_state

from settings import BadInput, Settings
from tests.rehearsal.story import ROOT
from tests.verify import hosts
from tests.verify.target import Target, targets

PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
DEFAULTS = (ROOT / "group_data/all.py").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with this bundle's group_data/all.py, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    write(tmp_path, {"group_data/all.py": DEFAULTS})
    with ctx_state.use(State()), ctx_config.use(Config()), ctx_inventory.use(Inventory.empty()):
        yield tmp_path


def write(folder: Path, files: dict[str, str]) -> None:
    sys.modules["pyinfra_cli.util"].PYTHON_CODES.clear()  # compiled files, by their relative names
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(dedent(text), encoding="utf-8")


FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "a list": ("inventory.py", {"inventory.py": "web = ['a.example', ('b.example', {'api_port': 3100})]"}),
    "a tuple of hosts": ("inventory.py", {"inventory.py": "web = (['a.example'], {})\n_hidden = ['c.example']"}),
    "a group with data": (
        "inventory.py",
        {"inventory.py": "web = (['a.example', ('b.example', {'api_port': 3100})], {'api_port': 3200})"},
    ),
    "all with data": (
        "inventory.py",
        {"inventory.py": "all = (['a.example', 'b.example'], {'api_port': 3300})\nweb = ['b.example']"},
    ),
    "a host in two groups": (
        "inventory.py",
        {
            "inventory.py": "one = ['a.example']\ntwo = (['a.example'], {'api_port': 3400})",
            "group_data/one.py": "api_port = 3500\ndomain = 'one.example'",
            "group_data/two.py": "domain = 'two.example'",
        },
    ),
    "nested data": (
        "inventory.py",
        {
            "inventory.py": "web = ['a.example', ('b.example', {'packages': {'ws': '^8'}})]",
            "group_data/web.py": "packages = {'socket.io': '^4', '@scope/name': '^1'}",
        },
    ),
    "group data beside the inventory": (
        "inventories/prod.py",
        {
            "inventories/prod.py": "web = ['a.example', 'b.example']",
            "inventories/group_data/web.py": "api_port = 3600",
            "inventories/group_data/all.py": "domain = 'beside.example'",
            "group_data/web.py": "api_port = 3700\nnginx_site = 'here.example'",
            "group_data/prod.py": "api_app = 'of-the-file-name'",  # an inventory's file is a group, too
        },
    ),
    "group data that computes": (
        "inventory.py",
        {
            "inventory.py": "from pathlib import Path\nweb = [str(Path('a.example'))]",
            "group_data/web.py": "from pyinfra import inventory\nimport os\napi_port = 3000 + len(inventory.hosts)",
        },
    ),
    "this machine": ("@local", {"group_data/@local.py": "api_port = 3800"}),
    "a connector's name": ("@ssh/127.0.0.1", {}),
    "a host's name": ("localhost", {}),
    "names with commas": ("localhost,127.0.0.1", {}),
    "a module's function": (
        "dynamic.hosts",
        {"dynamic.py": "def hosts():\n    return {'web': (['a.example'], {'api_port': 3900})}"},
    ),
}
FUNCTION_HAS_NO_GROUP_DATA = "a module's function"  # pyinfra 3.10 reads group_data for inventory files only


def by_pyinfra(inventory: str) -> list[dict[str, Any]]:
    done = subprocess.run([PYINFRA, inventory, "debug-inventory", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return sorted(found, key=lambda host: str(host["name"]))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_as_by_pyinfra(bundle: Path, form: str) -> None:
    inventory, files = FORMS[form]
    write(bundle, files)
    ours = [{"name": host.name, "groups": host.groups, "data": host.data.dict()} for host in hosts.read(inventory, [])]
    assert ours
    assert sorted(ours, key=lambda host: str(host["name"])) == by_pyinfra(inventory)
    if form != FUNCTION_HAS_NO_GROUP_DATA:
        assert all(host["data"]["health_check"] is True for host in ours)


GROUPS = "web = ['web1.example', 'web2.example']\ndb = ['db1.example', 'web2.example']"


@pytest.mark.parametrize(
    ("limits", "names"),
    [
        ([], ["web1", "web2", "db1"]),
        (["web2.example"], ["web2"]),
        (["db"], ["web2", "db1"]),
        (["web*"], ["web1", "web2"]),
        (["db1.*", "web1.*"], ["web1", "db1"]),
        (["nothing"], []),
    ],
)
def test_limit(bundle: Path, limits: list[str], names: list[str]) -> None:
    write(bundle, {"inventory.py": GROUPS})
    assert [host.name for host in hosts.read("inventory.py", limits)] == [f"{name}.example" for name in names]


def test_data_of_a_run_is_that_of_the_verification_after_it(bundle: Path) -> None:
    """`--data verify=true --data api_port=3001`: else the other application of the host is verified, and ready."""
    write(bundle, {"inventory.py": GROUPS})
    [target] = map(made, hosts.read("inventory.py", ["db1*"], ["api_port=3001", "domain=b.example", "outbound=[]"]))
    assert (target.settings.api_port, target.settings.domain, list(target.settings.outbound)) == (3001, "b.example", [])


BROKEN = {
    "inventory.py": ("raise RuntimeError('no network')", "no network"),
    "syntax.py": ("web = [", "SyntaxError"),
    "connector.py": ("web = ['@nonsense/a']", "Invalid connector: nonsense"),
    "folder/x.py": ("web = []", "IsADirectoryError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_pyinfra_refuses_is_refused_in_one_line(bundle: Path, name: str) -> None:
    text, reason = BROKEN[name]
    write(bundle, {name: text})
    with pytest.raises(BadInput) as raised:
        hosts.read(name.partition("/")[0], [])
    assert reason in str(raised.value) and "\n" not in str(raised.value)


def made(host: Host) -> Target:
    found = hosts.describe(host)
    return Target(**{**found, "settings": Settings(**found["settings"])})


def described(bundle: Path, data: dict[str, object], **files: str) -> Target:
    write(bundle, {"inventory.py": f"web = [('a.example', {data!r})]", **files})
    [host] = hosts.read("inventory.py", [])
    return made(host)


PYTHON = hosts.PYTHON.get_raw_value()


def inside(words: str, script: str = PYTHON) -> str:
    """The words, and the script as one more."""
    return f"{words} {shlex.quote(script)}"


ARGUMENTS: list[tuple[dict[str, object], str]] = [
    ({}, inside("sh -c")),
    ({"_sudo": True}, inside("sudo -H -n sh -c")),
    ({"_sudo": True, "_sudo_user": "app"}, inside("sudo -H -n -u app sh -c")),
    ({"_sudo": True, "_use_sudo_login": True}, inside("sudo -H -n -i sh -c")),
    ({"_sudo": True, "_preserve_sudo_env": True}, inside("sudo -H -n -E sh -c")),
    ({"_su_user": "app"}, inside("su app -c", inside("sh -c"))),
    ({"_doas": True, "_doas_user": "app"}, inside("doas -n -u app sh -c")),
    ({"_dzdo": True}, inside("dzdo -H -n sh -c")),
    ({"_env": {"A": "b c"}}, inside("sh -c", f"export 'A=b c' && {PYTHON}")),
    ({"_chdir": "/opt"}, inside("sh -c", f"cd /opt && {PYTHON}")),
    ({"_shell_executable": "bash"}, inside("bash -c")),
]


@pytest.mark.parametrize(("data", "command"), ARGUMENTS)
def test_global_arguments(bundle: Path, data: dict[str, object], command: str) -> None:
    target = described(bundle, data)
    assert (target.command[-1], target.preamble) == (command, "")


CONFIG = "from pyinfra import config\nconfig.SUDO = True\nconfig.ENV = {'A': '1'}"


def test_config_and_data_have_pyinfras_precedence(bundle: Path) -> None:
    config = {"config.py": CONFIG}
    assert described(bundle, {}, **config).command[-1].startswith("sudo -H -n sh -c 'export A=1 ")
    assert described(bundle, {"_sudo": False}, **config).command[-1].startswith("sh -c 'export A=1 ")
    group = {"group_data/web.py": "_sudo_user = 'app'"}
    assert "sudo -H -n -u app" in described(bundle, {}, **config, **group).command[-1]
    assert "sudo -H -n -u root" in described(bundle, {"_sudo_user": "root"}, **config, **group).command[-1]


def test_the_sudo_password_is_on_standard_input_only(bundle: Path) -> None:
    target = described(bundle, {"_sudo": True, "_sudo_password": "pa ss'word"})
    assert target.command[-1].startswith("sudo -H -S -p '' -k sh -c ")
    assert "pa ss" not in " ".join(target.command) + repr(target)
    assert target.preamble.startswith("pa ss'word\n")


FAKE_SUDO = """\
#!/bin/bash
while [ "$1" != sh ]; do shift; done
for _ in $(seq {reads}); do IFS= read -r line; [ "$line" = secret ] || exit 1; done
exec "$@"
"""


@pytest.mark.parametrize("reads", [0, 1, 3])
def test_the_program_is_never_mixed_up_with_the_password(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, reads: int
) -> None:
    """Whether sudo asks for it or not."""
    write(bundle, {"sudo": FAKE_SUDO.format(reads=reads)})
    (bundle / "sudo").chmod(0o755)
    monkeypatch.setenv("PATH", str(bundle), prepend=":")
    write(bundle, {"inventory.py": "web = [('@local', {'_sudo': True, '_sudo_password': 'secret'})]"})
    [host] = hosts.read("inventory.py", [])
    target = made(host)
    done = target.host.run("echo this\necho that\n")
    assert (done.stdout, done.stderr, done.rc) == ("this\nthat\n", "", 0)
    target.backend.close()


def test_local_needs_no_ssh(bundle: Path) -> None:
    write(bundle, {"group_data/all.py": f"{DEFAULTS}\n_env = {{'COLOUR': 'sky blue'}}\n_chdir = '/usr'\n"})
    [host] = hosts.read("@local", [])
    target = made(host)
    assert target.address == ""
    assert target.host.run('echo "$COLOUR"; pwd').stdout == "sky blue\n/usr\n"
    assert target.host.run("printf %s 'a b'").stdout == "a b"
    target.backend.close()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.example", {"_su_user": "app", "_su_password": "x"}, "cannot use _su_password"),
        ("@chroot/x", {}, "works over ssh and with @local"),
        ("a.example", {"api_prot": 3000}, "there is no setting 'api_prot'"),
    ],
)
def test_what_cannot_work_is_refused(bundle: Path, name: str, data: dict[str, object], reason: str) -> None:
    write(bundle, {"inventory.py": f"web = [({name!r}, {data!r})]"})
    [host] = hosts.read("inventory.py", [])
    with pytest.raises(BadInput, match=reason):
        hosts.describe(host)


def test_ssh_options(bundle: Path) -> None:
    data = {"ssh_hostname": "192.0.2.1", "ssh_port": 2222, "ssh_user": "op", "ssh_key": "/k", "ssh_config_file": "conf"}
    target = described(bundle, data, conf="Host 192.0.2.1\n  HostName 192.0.2.9\n")
    assert target.address == "192.0.2.9"
    command = " ".join(target.command)
    assert command.startswith("ssh -F conf -o User=op -o Port=2222 -o IdentityFile=/k -o IdentitiesOnly=yes ")
    assert " -o StrictHostKeyChecking=yes " in command
    assert command.endswith(f" -- 192.0.2.1 {inside('sh -c')}")


def test_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    """What the inventory prints is not taken for the answer."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    write(bundle, {"inventory.py": f"print('[]')\n{GROUPS}", "empty.py": ""})
    assert [target.name for target in targets("inventory.py", ["db"])] == ["web2.example", "db1.example"]
    with pytest.raises(BadInput, match=r"inventory.py has no host that matches nobody"):
        targets("inventory.py", ["nobody"])
    with pytest.raises(BadInput, match=r"empty.py has no host at all"):
        targets("empty.py", [])
