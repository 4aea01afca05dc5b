"""``python -m lgffem_core``: see ``run.cli``. Its imports take seconds, in which a signal is heeded too."""

import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave(*_) -> None:
    """End without a traceback through the middle of some import; nothing is open that would have to be closed."""
    os.write(2, b"stopped; nothing was started.\n")
    os._exit(130)


if __name__ == "__main__":
    before = {sign: signal.getsignal(sign) for sign in SIGNALS}
    for sign, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(sign, leave)
    from lgffem_core.run.cli import main

    code = main()
    for sign, handler in before.items():
        signal.signal(sign, handler)
    sys.exit(code)
