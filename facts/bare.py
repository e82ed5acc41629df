"""What a host is before there is anything on it. Read by the shell alone: Python comes with bootstrap.py."""

from typing import TypedDict, cast

from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.facts import FactBase

MADE = "/var/lib/ai-admin-bootstrap"  # names the folder that bootstrap.py fills; written before all else
_LOOK = """
. /etc/os-release; echo "system=$ID ${VERSION_ID%%.*}"
echo "made=$(cat {made} 2>/dev/null)"
echo "folder=$(ls -A -- "$1" 2>/dev/null | tr '\\n' ' ')"
echo "apt=$(command -v apt-get)"
for address in $(hostname -I); do echo "own=$address"; done
getent -s dns ahosts "$2" | while read -r address rest; do echo "domain=$address"; done
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r n local remote state rest; do
  if [ "$state" = 0A ]; then echo "port=$((0x${local##*:}))"; fi
done
"""


class Bare(TypedDict):
    """`system`: as "debian 12". `made`: the folder that bootstrap.py fills here, `folder` what is in app_dir. `own` and
    `domain`: addresses of the host, and those of the domain as DNS has them: an
    installer writes the host's own name into /etc/hosts. `port`: TCP ports listened at."""

    system: list[str]
    made: list[str]
    folder: list[str]
    apt: list[str]
    own: list[str]
    domain: list[str]
    port: list[str]


class BareHost(FactBase[Bare]):
    def command(self, app_dir: str, domain: str) -> StringCommand:
        look = _LOOK.replace("{made}", MADE)
        return StringCommand("sh", "-c", QuoteString(look), "sh", QuoteString(app_dir), QuoteString(domain))

    def process(self, output: list[str]) -> Bare:
        pairs = [line.partition("=") for line in output]
        found = {key: [value for name, _, value in pairs if name == key and value] for key in Bare.__annotations__}
        return cast(Bare, found)
