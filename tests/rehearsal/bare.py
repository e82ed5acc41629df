"""The rehearsal hosts again, as hosts that bootstrap.py is to fill, with the stand-in application's folder."""

from tests.rehearsal.image import HERE
from tests.rehearsal.inventory import rehearsal as _all

_own = {"app_source": str(HERE / "app"), "outbound": []}  # no stand-in for servers elsewhere is on a bare host
bare = [(name, {**data, **_own}) for name, data in _all]
