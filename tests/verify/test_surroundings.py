"""What the application needs around it: redis, its own database, and servers elsewhere."""

from __future__ import annotations

from typing import Any

from tests.verify.plugin import DEPLOY, Seen, Unfit, component, needs
from tests.verify.target import Target
from tests.verify.test_data import lacks

# How redis (8.0) refuses a write -> what to do.
OF_REDIS = {
    "MISCONF": "see why it cannot save (a full disk, rights): tail -n 20 /var/log/redis/redis-server.log",
    "READONLY": "it is a replica: point REDIS_HOST in the app's .env to the primary, or promote it (REPLICAOF)",
    "NOREPLICAS": "bring back its replicas, or lower `min-replicas-to-write` in /etc/redis/redis.conf",
    "OOM": "its memory is full: raise `maxmemory` in /etc/redis/redis.conf, then systemctl restart redis-server",
}
RESET = {"user": 'ALTER ROLE \\"{role}\\"', "database": 'ALTER DATABASE \\"{name}\\"'}


@component("endpoints")
def test_redis_takes_writes(surroundings: dict[str, Any]) -> None:
    """/health may only ping it."""
    said = surroundings["redis"]
    remedy = OF_REDIS.get(said.partition(" ")[0])  # another refusal, of the password for one, is /health's to tell
    if remedy:
        raise Unfit(f"redis refuses writes: {said}", remedy)


def _asked(surroundings: dict[str, Any]) -> dict[str, Any] | None:
    """What the application's own database says; None where it has none that can be asked, which /health would say."""
    found: dict[str, Any] | None = surroundings["database"]
    return None if found is None or "refused" in found else found


@component("database", f"put DATABASE_URL with the application's own database into your .env; then {DEPLOY}")
def test_the_applications_own_database_can_be_asked(target: Target, surroundings: dict[str, Any]) -> None:
    """Where it is elsewhere, and deploy migrates the host's own, nobody knows whether that is the right one."""
    refused = (surroundings["database"] or {}).get("refused")
    assert not refused or target.psql == "psql", (
        f"the application's database is not the host's own, and cannot be queried: {refused}"
    )


@component("database")
def test_the_applications_sessions_can_write(target: Target, surroundings: dict[str, Any]) -> None:
    found = _asked(surroundings) or {"readonly": "", "standby": False}
    if found["standby"]:
        raise Unfit("the application's database is a standby, and read-only", "name its primary in .env")
    if how := found["readonly"]:
        altered = RESET.get(how, "ALTER SYSTEM").format(**found)
        reset = f'{target.psql_by_hand} -c "{altered} RESET default_transaction_read_only"'
        raise Unfit(f"the application's sessions are read-only, set for its {how}", f"{reset}; {{pm2}} restart {{app}}")


@component("database", f"put DATABASE_URL with the application's own database into your .env; then {DEPLOY}")
def test_the_applications_own_database_is_migrated(target: Target, surroundings: dict[str, Any]) -> None:
    """It may be another than the one that is deployed to. Without a table `companies` it is not what the API uses."""
    needs(lacks(target) == "complete", "the database that is deployed to is not migrated either")
    found = _asked(surroundings) or {"companies": False}
    assert not found["companies"] or not found["lacking"], (
        f"the application's own database, {found['name']}, is another one and not migrated: companies is without "
        f"{', '.join(found['lacking'])}"
    )


@component("endpoints")
def test_the_host_reaches_what_the_api_needs(surroundings: dict[str, Any], seen: Seen) -> None:
    if surroundings["proxied"]:
        seen("what it reaches was not tried: it goes through a proxy")
    for place, (code, why) in surroundings["failed"].items():
        host, _, port = place.rpartition(":")
        if code in ("ENOTFOUND", "EAI_AGAIN"):
            raise Unfit(f"the host cannot resolve {host}, which the API needs", "correct /etc/resolv.conf on the host")
        if code.startswith("E") and code not in ("EPROTO",):
            remedy = f"let the host out to {place} (tcp) in its firewall and the provider's"
            raise Unfit(f"the host does not reach {host} at port {port}, which the API needs: {why}", remedy)
        remedy = "update-ca-certificates (where somebody intercepts TLS: add their certificate first)"
        raise Unfit(f"TLS to {place}, which the API needs, fails: {why}", remedy)
