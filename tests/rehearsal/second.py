"""A second application on the same hosts, as an operator's inventory names it: settings alone."""

from tests.rehearsal.host import HOSTS
from tests.rehearsal.inventory import rehearsal as _first
from tests.rehearsal.salons import APP, DOMAIN, FOLDER, PORT

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
