"""Before the first step: can every step do its work here?

With `-y` pyinfra 3.10 asks an operation for its commands only when the ones before it are done. So what an operation
refuses is refused here too, while nothing is changed.
"""

from __future__ import annotations

from pyinfra.api.host import Host

from facts.look import Wanted, look
from operations import migration, nginx, source


def check(host: Host, wanted: Wanted) -> None:
    """Raises HostUnfit or BadInput, in one line."""
    now = look(host, wanted)
    migration.check(now.migration, host.name)
    source.changes(now.source, wanted.settings)
    nginx.desired(now.nginx, wanted.settings)
