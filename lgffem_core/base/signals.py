"""The signals by which a user, a closed terminal or a scheduler stops the command."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def on_stop(handler: Callable | signal.Handlers) -> Iterator[dict]:
    """Have ``handler`` called for each of them inside, but for those that were ignored: nohup stays nohup.

    Gives what was called before, which it is again afterwards. In the main thread alone, as Python has it.
    """
    before = {sign: signal.getsignal(sign) for sign in STOPPING}
    for sign, previous in before.items():
        if previous != signal.SIG_IGN:
            signal.signal(sign, handler)
    try:
        yield before
    finally:
        for sign, previous in before.items():
            signal.signal(sign, previous)
