"""Roll back: the files that one deploy changed become what they were before it, and nginx and the API run them."""

from collections.abc import Sequence

from remote import Failure, backups, nginx, pm2, restart, services
from remote.readings import Api


def roll_back(deploy: str, *, undo: str, api: Api, status: str, shadowed: Sequence[str]) -> None:
    """Put back what the deploy `undo` changed; what stands there now is kept first. Raises Failure."""
    manifest = backups.manifest(undo)
    if not manifest:
        raise Failure(f"there is no backup of deploy {undo}: it was pruned, or never was")
    of_nginx = {file: kept for file, kept in manifest.items() if file.startswith(nginx.ETC)}
    of_api = {file: kept for file, kept in manifest.items() if file not in of_nginx}
    running = pm2.processes(api["app"])
    for service, processes, old in (("nginx", nginx.workers(), of_nginx), ("api", running, of_api)):
        if old:
            services.before_change(service, processes, {file: backups.keep(deploy, file, spare=undo) for file in old})
        for file, kept in old.items():
            backups.restore(file, kept)
    if of_nginx:
        nginx.reload(deploy, timeout=api["start_timeout"])
    if of_api:
        restart.restart(deploy, api=api, status=status, shadowed=shadowed)
