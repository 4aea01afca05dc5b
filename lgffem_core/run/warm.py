"""Stages and their kernels need not import torch and its like: they are forked from one process that has, in a run.

The *server*, one a run, imports packages, none of the study's own modules, and waits. What was asked for is forked from
it by a *guard*, which kills it when nobody waits for it any more. The *client*, this file as a program, stands in its
place: Snakemake or Jupyter starts, interrupts and kills it like any process, and it ends as what was forked ended.
Without a server it becomes an ordinary Python: more slowly, to the same results. Linux alone; elsewhere libraries do
not bear a fork.
"""

import gc
import importlib
import io
import json
import os
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys

VARIABLE = "LGFFEM_WARM"  # the server's address, a file in a folder that only this user can read
#: What takes long to import and is used by most stages.
PACKAGES = (
    "numpy", "matplotlib.pyplot", "seaborn", "pandera.pandas", "IPython", "jupyter_client", "albumentations", "timm",
    "faiss", "lightning_fabric", "pytorch_metric_learning.losses", "sklearn.neighbors", "ipywidgets", "papermill",
    "nbconvert",
)  # fmt: skip
#: As Snakemake sets them for a job; libraries read them when they are loaded.
THREADS = ("OMP_NUM_THREADS", "GOTO_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
LONGEST = 1 << 20  # bytes of a request
PATIENCE = 120  # seconds that a client waits for a server that is still importing, or was stopped
TAKEN = b"taken"


# -- for whoever runs stages -----------------------------------------------------------------------------------


def start_server(environment: dict[str, str], folder: str, threads: int, log) -> dict[str, str]:
    """Start a server for processes of ``threads`` threads; gives what its address is told by, nothing without a server.

    It ends soon after this process, if not with what is left of the run. One that cannot serve says so in ``log``.
    """
    if sys.platform != "linux" or threads != 1:  # numpy would start the others where it is imported
        return {}
    address = os.path.join(folder, "warm")
    own = environment | dict.fromkeys(THREADS, str(threads))
    command = [sys.executable, __file__, "serve", address, str(os.getpid())]
    subprocess.Popen(command, env=own, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    return {VARIABLE: address}


def warmed(command: list[str]) -> list[str]:
    """``python -m …``, through the server where there is one."""
    return [command[0], "-IS", __file__, *command[1:]] if VARIABLE in os.environ and command[1] == "-m" else command


def peak_memory() -> int:
    """The most memory that a process had which this one waited for, as ``getrusage`` counts: on Linux in KiB."""
    peaks = [resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss]
    if os.path.isfile(told := f"{os.environ.get(VARIABLE)}.{os.getpid()}"):
        with open(told) as file:
            peaks.append(int(file.read()))
    return max(peaks)


# -- the server ------------------------------------------------------------------------------------------------


def serve(address: str, parent: int) -> None:
    """Import, then fork a guard for each request, as long as ``parent`` is there; returns in what was forked alone."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as a kernel has it
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        try:
            listener.bind(address)
        except OSError as error:  # a long path has no room in an address
            sys.exit(f"nothing is forked, all starts by itself: {error}")
        listener.listen()  # who comes now waits until the packages are there
        for name in PACKAGES:
            importlib.import_module(name)
            if os.getppid() != parent:
                return
            check_alone(f"when {name} is imported")
        rehearse()
        check_alone("after a page and a picture")
        gc.freeze()  # memory stays shared
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        listener.settimeout(1)
        while os.getppid() == parent:
            try:
                channel = listener.accept()[0]
            except TimeoutError:
                continue
            if os.fork() == 0:
                listener.close()
                return guard(channel)
            channel.close()


def check_alone(when: str) -> None:
    """End where this process has other threads, which a fork would lose."""
    if (threads := len(os.listdir("/proc/self/task"))) > 1:
        sys.exit(f"{threads} threads run {when}: nothing is forked, all starts by itself")


def rehearse() -> None:
    """Write a page and draw a picture, for nobody: libraries prepare expressions and fonts when first used."""
    from matplotlib.figure import Figure
    from nbconvert import HTMLExporter
    from nbformat import v4

    cells = [v4.new_markdown_cell("$x$ and [more](#more)"), v4.new_code_cell("x = 1")]
    HTMLExporter().from_notebook_node(v4.new_notebook(cells=cells))
    figure = Figure()
    figure.subplots().set_title("$x$")
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind)


def guard(channel: socket.socket) -> None:
    """Fork what was asked for, hand on interrupts, and tell its status and peak memory at its end; returns in it."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    channel.setblocking(True)
    message, files, _, _ = socket.recv_fds(channel, LONGEST, 3)
    request = json.loads(message)
    if any(request["environment"].get(name) != os.environ[name] for name in THREADS):
        os._exit(0)  # the client goes on by itself
    channel.send(TAKEN)
    if (forked := os.fork()) == 0:
        channel.close()
        return become(**request, files=files)
    ended = os.pidfd_open(forked)
    while ended not in select.select([ended, channel], [], [])[0]:
        try:
            said = channel.recv(LONGEST)  # nothing comes of a dead client
        except ConnectionError:
            said = b""
        os.kill(forked, signal.SIGINT if said else signal.SIGKILL)
    _, status, used = os.wait4(forked, 0)
    try:
        channel.send(json.dumps([status, used.ru_maxrss]).encode())
    finally:
        os._exit(0)


def become(words: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Be what ``python words…`` would be, with the folder, environment and files of whoever asked."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment | {"JPY_PARENT_PID": str(os.getppid())})
    _, module, *sys.argv[1:] = words
    runpy.run_module(module, run_name="__main__", alter_sys=True)


# -- the client ------------------------------------------------------------------------------------------------


def ask(words: list[str]) -> None:
    """Have ``python words…`` forked, and end as it ends; where no server takes it, become it."""
    request = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as channel:
        channel.settimeout(PATIENCE)
        try:
            channel.connect(os.environ[VARIABLE])
            socket.send_fds(channel, [json.dumps(request).encode()], [0, 1, 2])
            taken = channel.recv(LONGEST)
        except OSError as error:
            taken = str(error).encode()
        channel.settimeout(None)
        if taken != TAKEN:
            why = taken.decode() or "it has other threads"
            print(f"{words[1]} is forked from no server, it starts by itself: {why}", file=sys.stderr)
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *words])
        signal.signal(signal.SIGINT, lambda *_: channel.send(b"interrupt"))
        try:
            status, peak = json.loads(channel.recv(LONGEST))
        except (OSError, ValueError):  # the guard was killed
            status, peak = signal.SIGKILL, 0
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open(f"{os.environ[VARIABLE]}.{os.getppid()}", "w") as file:
        file.write(str(peak))
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        ask(sys.argv[1:])
