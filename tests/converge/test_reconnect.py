"""A browser's WebSocket over a restart of the API: the real socket.io client comes back by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable

import pytest

from tests.rehearsal.host import Host
from tests.rehearsal.story import deploy, tokens

pytestmark = pytest.mark.slow

# The bundle that socket.io serves to browsers; all that Node 20 lacks for it is WebSocket. Without a token, in the
# default namespace: that has no side effect.
CLIENT = """
globalThis.WebSocket = require('/opt/ai-admin/node_modules/ws');
const { io } = require('/opt/ai-admin/node_modules/socket.io/client-dist/socket.io.js');
const socket = io('https://ai-admin.app', { transports: ['websocket'], rejectUnauthorized: false });
const say = (word) => console.log(word, socket.io.engine?.transport?.name ?? '');
socket.on('connect', () => say('connect')).on('disconnect', (why) => say('disconnect: ' + why));
socket.on('connect_error', (error) => say('error: ' + error.message));
setTimeout(() => process.exit(0), 600000); // ends it where the test does not: longer than a deploy takes on any machine
"""


def heard_until(lines: Iterable[str], last: str) -> list[str]:
    """The client's output up to this; it must come before the client ends."""
    heard: list[str] = []
    for line in lines:
        heard.append(line.strip())
        if heard[-1] == last:
            return heard
    pytest.fail(f"the client never said {last!r}, but {heard}")


def test_the_client_reconnects_over_a_restart(leak_host: Host) -> None:
    assert deploy(leak_host, "--data", "settle_time=1").code == 0
    leak_host.ssh("grep -q ai-admin.app /etc/hosts || echo 127.0.0.1 ai-admin.app >> /etc/hosts")
    command = [*leak_host.ssh_command(), "NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1", "node", "-"]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin and client.stdout
    client.stdin.write(CLIENT)
    client.stdin.close()
    heard_until(client.stdout, "connect websocket")

    done = deploy(leak_host, "--data", "settle_time=1", environment=tokens())
    assert done.changed == ["Secrets in .env", "API restart"]
    heard = heard_until(client.stdout, "connect websocket")
    assert heard[0].startswith("disconnect"), heard
    client.terminate()
    client.wait(60)
