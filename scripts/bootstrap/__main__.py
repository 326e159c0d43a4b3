"""python3 -m scripts.bootstrap COMMAND: what `make COMMAND` runs."""

import sys

from scripts.bootstrap.commands import main
from scripts.machine.processes import end

end(lambda: main(sys.argv[1:]))
