"""The rehearsal hosts again, as hosts that bootstrap.py is to fill, with the stand-in application's folder."""

from tests.rehearsal.image import HERE
from tests.rehearsal.inventory import rehearsal as _all

bare = [(name, {**data, "app_source": str(HERE / "app")}) for name, data in _all]
