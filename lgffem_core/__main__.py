"""``python -m lgffem_core``: see ``cli``."""

import sys

from lgffem_core.run.cli import main

if __name__ == "__main__":
    sys.exit(main())
