"""A command that does not outlive whoever started it, be that killed: this file, as a program, stands above it.

It leads the process group in which the command and what that starts are. Linux alone, which can tell a process of the
end of another; elsewhere, and where a kernel refuses, what a killed run started goes on, until the next run ends it.
"""

import os
import select
import signal
import subprocess
import sys

PATIENCE = 15  # seconds from an interrupt to a kill


def leashed(command: list[str]) -> list[str]:
    """``command``, to be started in a session of its own, on the leash of this process."""
    return [sys.executable, "-IS", __file__, str(os.getpid()), *command] if sys.platform == "linux" else command


def lead(owner: int, command: list[str]) -> int:
    """Run ``command`` and give its status; where ``owner`` ends first, interrupt the group, then kill what stays."""
    signal.signal(signal.SIGINT, lambda *_: None)  # it comes to the whole group, and ends the command
    process = subprocess.Popen(command)
    try:
        ended, gone = os.pidfd_open(process.pid), os.pidfd_open(owner)
    except OSError as error:  # a dead owner, or a kernel that cannot
        if isinstance(error, ProcessLookupError):
            end_group(process)
        return process.wait()
    if ended not in select.select([ended, gone], [], [])[0]:
        end_group(process)
    return process.wait()


def end_group(process: subprocess.Popen) -> None:
    """Interrupt all that is in this process's group; kill it, and so this process, where the command stays."""
    os.killpg(0, signal.SIGINT)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    status = lead(int(sys.argv[1]), sys.argv[2:])
    if status < 0:  # by a signal, of which the owner is told as if nothing stood between
        if -status == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)
