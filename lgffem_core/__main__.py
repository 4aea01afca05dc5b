"""``python -m lgffem_core``: see ``run.cli``. Its imports take seconds, in which a signal is heeded too."""

import os
import sys
from pathlib import Path


def leave(*_) -> None:
    """End without a traceback through the middle of some import; nothing is open that would have to be closed."""
    os.write(2, b"stopped; nothing was started.\n")
    os._exit(130)


if __name__ == "__main__":
    try:
        from lgffem_core.base.signals import on_stop

        with on_stop(leave):
            from lgffem_core.run.cli import main

            code = main()
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # UNREADABLE of the next module
        from lgffem_core.base.sources import first_fault

        if (fault := first_fault(Path(__file__).parent)) is None:  # of a module, which a command may import late
            raise
        sys.exit(f"error: {fault}")
    sys.exit(code)
