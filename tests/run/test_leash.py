"""What is on a leash ends as it would by itself, and ends where its owner was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lgffem_core.run.leash import leashed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the leash is of Linux")

#: Starts a command on its leash, tells its process and the command's, and is then killed.
OWNER = """
import os, signal, subprocess, sys
from lgffem_core.run.leash import leashed
process = subprocess.Popen(leashed([sys.executable, "-c", sys.argv[1]]), stdout=subprocess.PIPE, start_new_session=True)
print(process.pid, process.stdout.readline().decode().strip(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
#: A command with a child in its group; both sleep, and the first ends by an interrupt.
SLEEPS = (
    "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '60']);"
    "print(os.getpid(), child.pid, flush=True); time.sleep(60)"
)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_where_the_owner_is_killed_the_whole_group_ends():
    done = subprocess.run([sys.executable, "-c", OWNER, SLEEPS], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in done.stdout.split()]
    assert done.returncode == -signal.SIGKILL and len(pids) == 3
    assert all_gone(pids, 10)


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ("sys.exit(7)", 7),
        ("pass", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
    ],
)
def test_a_command_ends_on_it_as_it_would_by_itself(end, status):
    command = leashed([sys.executable, "-c", f"import os, signal, sys; print('said'); sys.stdout.flush(); {end}"])
    done = subprocess.run(command, stdout=subprocess.PIPE, start_new_session=True)
    assert (done.returncode, done.stdout) == (status, b"said\n")


def test_an_interrupt_of_the_group_ends_the_command_and_the_leash_waits_for_it():
    cleans_up = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (time.sleep(0.5), print('tidy'), sys.exit(5)))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = leashed([sys.executable, "-c", cleans_up])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=20)[0] == b"tidy\n" and process.returncode == 5
