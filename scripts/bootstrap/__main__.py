"""python3 -m scripts.bootstrap COMMAND: what `make COMMAND` runs."""

import sys

from scripts.bootstrap.commands import main

sys.exit(main(sys.argv[1:]))
