"""Take a lock for the caller, on its file descriptor 9: ``python take_lock.py PROCESS WHAT``; for run_all.sh.

flock(1) is not on every system; Python's is. The lock belongs to the open file, which the caller and all that it
starts have in common, and goes with the last of them: it stays when this script ends, and no killed process leaves it.
"""

import fcntl
import os
import signal
import sys


def take(file: int, process: str, what: str) -> None:
    """Lock ``file``, whose content names the process that has it; say so where that is another, and wait for it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.pread(file, 20, 0).decode().strip() or "unknown"
        print(f"another call (process {other}) is setting up {what}; waiting for it", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems
        print(f"no lock ({error.strerror}): start no other call until {what} is set up", file=sys.stderr)
    os.ftruncate(file, 0)
    os.pwrite(file, f"{process}\n".encode(), 0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C while it waits ends it without a traceback
    take(9, *sys.argv[1:])
