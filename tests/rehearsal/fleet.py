"""Three rehearsal hosts, as an operator of several servers names them: in groups, the canary in one of its own."""

from tests.rehearsal.host import of_this_run
from tests.rehearsal.inventory import rehearsal as _all  # with another name it would be a group of this inventory too

_others = {of_this_run(name).name for name in ("web1", "web2")}

canary = [each for each in _all if each[0] == of_this_run("conv").name]
web = [each for each in _all if each[0] in _others]
