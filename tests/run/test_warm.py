"""Forked from one process, others are what they would be by themselves, and end with whoever waits for them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lgffem_core.base.files import write_text
from lgffem_core.run import warm

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux alone")
SERVER = """
import signal, sys
from lgffem_core.run import warm
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a run, also where tests run behind &
warm.PACKAGES, warm.rehearse = ("imported",), lambda: None
warm.serve(sys.argv[1], int(sys.argv[2]))
"""
PROBE = """
import json, os, sys, time
sys.excepthook = lambda kind, *_: print(kind.__name__, file=sys.stderr)
told = {name: os.environ.get(name) for name in ("LGFFEM_STAGE", "OMP_NUM_THREADS")}
print(json.dumps([sys.argv[1:], os.getcwd(), told, "imported" in sys.modules, os.getpid()]), flush=True)
print("aside", file=sys.stderr)
kept = bytearray(int(sys.argv[2]) << 20)
time.sleep(float(sys.argv[3]))
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """That of a process of a run, with a module to run and one to import; the server's address is in it."""
    write_text(tmp_path / "probe.py", PROBE)
    write_text(tmp_path / "imported.py", "")
    monkeypatch.setenv(warm.VARIABLE, str(tmp_path / "warm"))
    return {**os.environ, "PYTHONPATH": str(tmp_path)} | dict.fromkeys(warm.THREADS, "1")


@pytest.fixture
def server(environment):
    words = [sys.executable, "-c", SERVER, environment[warm.VARIABLE], str(os.getpid())]
    started = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    while not Path(environment[warm.VARIABLE]).exists() and started.poll() is None:
        time.sleep(0.01)
    yield started
    started.kill()
    started.communicate()


def start(environment, code=0, memory=1, seconds=0, folder="/"):
    words = [sys.executable, "-m", "probe", str(code), str(memory), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(warm.warmed(words), env={**environment, "LGFFEM_STAGE": "07"}, cwd=folder, **pipes)


def test_what_is_forked_is_what_it_would_be_by_itself(server, environment, tmp_path):
    client = start(environment, code=3, memory=300, folder=tmp_path)
    said, aside = client.communicate(timeout=60)
    told = {"LGFFEM_STAGE": "07", "OMP_NUM_THREADS": "1"}
    assert json.loads(said)[:4] == [["3", "300", "0"], str(tmp_path), told, True]
    assert (client.returncode, aside) == (3, "aside\n")
    told = Path(f"{environment[warm.VARIABLE]}.{os.getpid()}")
    assert 300 << 10 < int(told.read_text()) <= warm.peak_memory()  # KiB; a client takes some ten thousand
    assert int(told.read_text()) < 2 << 20


@pytest.mark.parametrize("why", ["other threads", "no server", "a server that ended"])
def test_what_no_server_takes_starts_by_itself_and_says_so(request, environment, why):
    if why != "no server":
        started = request.getfixturevalue("server")
    if why == "a server that ended":
        started.kill()
        started.wait()
    client = start(environment | ({"OMP_NUM_THREADS": "2"} if why == "other threads" else {}), code=3)
    said, aside = client.communicate(timeout=60)
    assert client.returncode == 3 and json.loads(said)[3] is False
    assert aside.startswith("probe is forked from no server, it starts by itself") and aside.endswith("\naside\n")


def test_a_server_with_threads_forks_nothing(environment, tmp_path, request):
    """What they held, no thread of the fork would ever give back."""
    sleeps = "import threading, time; threading.Thread(target=time.sleep, args=(1,)).start()"
    write_text(tmp_path / "imported.py", sleeps)
    started = request.getfixturevalue("server")
    said, _ = start(environment, code=0).communicate(timeout=60)
    assert json.loads(said)[3] is False
    assert "2 threads run when imported is imported" in started.communicate(timeout=60)[1] and started.returncode == 1


REHEARSAL = """
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location("warm", sys.argv[1])
spec.loader.exec_module(warm := importlib.util.module_from_spec(spec))
import matplotlib, numpy, random
kept = [dict(matplotlib.rcParams), numpy.random.get_state()[1].tolist(), random.getstate()]
warm.rehearse()
warm.check_alone("afterwards")
same = kept == [dict(matplotlib.rcParams), numpy.random.get_state()[1].tolist(), random.getstate()]
print(json.dumps([same, [name for name in sys.modules if name.startswith("lgffem_core")]]))
"""


def test_what_is_rehearsed_leaves_no_trace():
    """No thread, no module of the study, no setting and no random number drawn, or forks would not be like others."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", REHEARSAL, warm.__file__], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [True, []]


def test_what_is_killed_kills_its_client(server, environment):
    client = start(environment, seconds=60)
    os.kill(json.loads(client.stdout.readline())[4], signal.SIGKILL)
    assert client.wait(10) == -signal.SIGKILL


def test_what_has_its_client_killed_ends(server, environment):
    client = start(environment, seconds=60)
    forked = psutil.Process(json.loads(client.stdout.readline())[4])
    guard = forked.parent()
    client.kill()
    assert psutil.wait_procs([forked, guard], timeout=10)[1] == []


def test_an_interrupt_reaches_what_was_forked(server, environment):
    client = start(environment, seconds=60)
    client.stdout.readline()
    client.stderr.readline()
    client.send_signal(signal.SIGINT)
    _, aside = client.communicate(timeout=10)
    assert (client.returncode, aside) == (-signal.SIGINT, "KeyboardInterrupt\n")


def test_a_server_ends_soon_after_the_run(environment):
    program = "import os, subprocess, sys; parent = str(os.getpid())\n"
    program += f"print(subprocess.Popen([sys.executable, '-c', {SERVER!r}, sys.argv[1], parent], stdout=2).pid)"
    words = [sys.executable, "-c", program, environment[warm.VARIABLE]]
    server = int(subprocess.run(words, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(server) and psutil.Process(server).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
