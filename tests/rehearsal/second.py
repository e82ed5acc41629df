"""A second application on the same hosts, as an operator's inventory names it: settings alone."""

from tests.rehearsal.host import HOSTS
from tests.rehearsal.inventory import rehearsal as _first

FOLDER, APP, PORT, DOMAIN, DATABASE = "/srv/salons/bot", "salon_bot", 3100, "salons.example", "salons"

second = [
    (
        name,
        {
            **data,
            "app_dir": FOLDER,
            "api_app": APP,
            "api_port": PORT,
            "domain": DOMAIN,
            "nginx_site": "salons",
            "verify_ca": str(HOSTS / name / f"root/etc/letsencrypt/live/{DOMAIN}/fullchain.pem"),
        },
    )
    for name, data in _first
]
