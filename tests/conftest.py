"""Fixtures that many tests share. Checks on shared material skip, saying so, where it is absent."""

import gc
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes are the parallelism; read when torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    gc.disable()  # until all is collected, of which nothing can be freed: it would be looked through again and again

import nbformat
import numpy as np
import pytest
from PIL import Image

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run import warm

ADDRESS = re.compile(r"""@import[^;]*|url\(\s*["']?(?!data:|#)[^)]*""")  # in a style
SHARED = Path(__file__).resolve().parents[2] / "shared"
STEP = re.compile(r"^\*(\w+) `([^`\n]+)`:\*\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READS = "tests/data/reads.json"
LONG = (
    "test_end_to_end", "test_stages", "test_backbone", "test_launch", "test_kills", "test_speed", "test_golden_losses",
    "test_resume", "test_docs", "test_bad_inputs", "test_projection", "test_new_loss", "test_precision",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest files first: whoever runs files in parallel should not wait for one of them at the end."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish():
    """What was imported and collected stays, and need not be looked through while tests run either."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk():
    """Only a machine that loses its power, as no test's does, forgets what was written and not synchronised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which also refuses what is no open file
        yield


@pytest.fixture(scope="session")
def shared():
    """The folder of real tiles and weights that lies beside the checkout on some machines."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared (real tiles and weights) is not on this machine")
    return SHARED


class Loads(HTMLParser):
    """Collects what a browser fetches, or would run, when it opens a page: everything that is not in the page."""

    def __init__(self):
        super().__init__()
        self.found, self.prose, self.inside = [], [], []

    def handle_starttag(self, tag, attributes):
        self.inside += [tag] if tag in ("script", "style", "code", "pre") else []
        self.found += ["<script>"] if tag == "script" else []
        for name, value in attributes:
            fetched = name in ("src", "srcset", "data", "poster", "background") or (name == "href" and tag != "a")
            if fetched and not value.startswith(("data:", "#")):
                self.found.append(value)
            if name == "style":
                self.found += ADDRESS.findall(value)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, text):
        if "style" in self.inside:
            self.found += ADDRESS.findall(text)
        elif not self.inside:
            self.prose.append(text)


@pytest.fixture(scope="session")
def self_contained():
    """Asserts that a page loads nothing and runs nothing, and that its text holds no equation left as TeX."""

    def check(html):
        page = Loads()
        page.feed(html)
        assert page.found == []
        prose = "".join(page.prose)
        assert "<math" in html and not re.search(r"\$|\\[a-zA-Z]+", prose), re.findall(r".{30}[$\\].{30}", prose)[:3]
        assert "untranslated" not in html
        # What MathML Core has left out, browsers ignore: letters would come out plain.
        assert set(re.findall(r'mathvariant="([^"]*)"', html)) <= {"normal"}

    return check


def steps(section: str) -> list[tuple[str, str, str]]:
    """(what to do, where, the text) of each step of a section of docs/extending.md, in its order."""
    page = (PROJECT / "docs" / "extending.md").read_text(encoding="utf-8")
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return STEP.findall(body)


def changed(text: str, hunk: str) -> str:
    """``text`` with a hunk of a diff applied; what it finds must stand there once."""
    lines = [line if line.strip() else " \n" for line in hunk.splitlines(keepends=True)]
    old, new = ("".join(line[1:] for line in lines if line[0] in kept) for kept in (" -", " +"))
    assert text.count(old) == 1, f"docs/extending.md changes what is not there once:\n{old}"
    return text.replace(old, new)


def as_notebook(text: str) -> nbformat.NotebookNode:
    """A notebook from its cells, each behind a line "# %%"."""
    cells = []
    for kind, source in re.findall(r"^# %% ?([^\n]*)\n(.*?)(?=^# %%|\Z)", text, re.MULTILINE | re.DOTALL):
        if kind == "[markdown]":
            cells.append(nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", source.strip(), flags=re.MULTILINE)))
        else:
            tags = {"metadata": {"tags": [kind]}} if kind else {}
            cells.append(nbformat.v4.new_code_cell(source.strip(), **tags))
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=kernel)


def take(root: Path, what: str, where: str, text: str) -> None:
    """Take one step of docs/extending.md in a copy of the project."""
    path = root / where
    if what == "new":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    elif what == "append":
        path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")
    elif what == "change":
        for hunk in text.split("@@\n"):
            path.write_text(changed(path.read_text(encoding="utf-8"), hunk), encoding="utf-8")
    elif what == "notebook":
        nbformat.write(as_notebook(text), path)
    elif what == "keep" and (root / READS).is_file():
        reads = json.loads((root / READS).read_text(encoding="utf-8")) | {where: json.loads(text)}
        (root / READS).write_text(json.dumps(reads, indent=2, sort_keys=True) + "\n", encoding="utf-8")


#: Serves as a run's server does (lgffem_core/run/warm.py), also programs behind -c, on the code that PYTHONPATH names.
SERVER = """
import importlib.util, os, sys
from types import SimpleNamespace
spec = importlib.util.spec_from_file_location("warm", sys.argv[1])  # by itself: of the study nothing may be loaded
spec.loader.exec_module(warm := importlib.util.module_from_spec(spec))
def become(words, folder, environment, files, ordinary=warm.become):
    sys.path.insert(0, environment["PYTHONPATH"])
    if words[0] == "-c":
        warm.runpy = SimpleNamespace(run_module=lambda program, **_: exec(program, {"__name__": "__main__"}))
    ordinary(words, folder, environment, files)
warm.become = become
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as in the server of a run
for name in warm.PACKAGES:
    importlib.import_module(name)  # before there is an address: who asks then need not wait for long
warm.serve(sys.argv[2], int(sys.argv[3]))
"""


def start_server(address: Path) -> subprocess.Popen:
    words = [sys.executable, "-c", SERVER, warm.__file__, str(address), str(os.getpid())]
    own = os.environ | dict.fromkeys(warm.THREADS, "1")
    server = subprocess.Popen(words, env=own, stdin=subprocess.DEVNULL, start_new_session=True)
    while not address.exists() and server.poll() is None:
        time.sleep(0.01)
    return server


@pytest.fixture(scope="session")
def forked():
    """Python with these words in a folder, on the code there: on Linux from one process that has imported torch."""
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder, "warm")) if sys.platform == "linux" else None
        told = dict.fromkeys(warm.THREADS, "1") | ({warm.VARIABLE: f"{folder}/warm"} if server else {})
        client = ["-IS", warm.__file__] if server else []

        def run(root: Path, *words: str) -> subprocess.CompletedProcess:
            environment = os.environ | told | {"PYTHONPATH": str(root)}
            command = [sys.executable, *client, *words]
            return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)

        yield run
        if server:
            server.kill()
            server.wait()


@pytest.fixture(scope="session")
def extended(tmp_path_factory, request):
    """Makes a copy of the project in which sections of docs/extending.md were followed to the letter."""

    def make(
        *sections, copied=("lgffem_core", "notebooks", "params", "requirements.lock", "Snakefile", "README.md")
    ) -> Path:
        root = tmp_path_factory.mktemp("extended")
        for name in copied:
            copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
            ignored = {"ignore": shutil.ignore_patterns("__pycache__", ".*")} if copy is shutil.copytree else {}
            copy(PROJECT / name, root / name, **ignored)
        for section in sections:
            for step in steps(section):
                take(root, *step)
        return root

    make.steps, make.changed = steps, changed
    make.run = lambda *words: request.getfixturevalue("forked")(*words)  # started where it is first asked for
    return make


@pytest.fixture
def small_files():
    """Within ``small_files(n)``, no file can grow beyond n bytes: writers fail half-way, as on a full disk."""

    @contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def released_file():
    """Writes a checkpoint as the authors' train_*.py do, with few weights; keyword arguments replace its parts."""
    import torch
    from pytorch_metric_learning.losses import SubCenterArcFaceLoss
    from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

    neck = {
        "neck_layer_0.p1_down_channel.pwconv1.weight": torch.zeros(2, 4, 1, 1),
        "neck_layer_0.p1_2_weight": torch.tensor([0.5, 1.0]),
        "neck_layer_0.p12_gca_p10.gc.gamma": torch.zeros(1, 2, 1, 1),
        "neck_layer_1.p1_2_weight": torch.tensor([0.25, 2.0]),
    }
    norm = {"h1.bn.running_mean": torch.zeros(4), "h1.bn.num_batches_tracked": torch.tensor(7)}

    def write(path, classes=24, steps=4, epoch=2, amsgrad=False, schedule=CosineAnnealingWarmRestarts, **parts):
        layer, loss = torch.nn.Linear(2, 2), SubCenterArcFaceLoss(num_classes=classes, embedding_size=16, sub_centers=6)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=1e-5, amsgrad=amsgrad)
        layer(torch.ones(1, 2)).sum().backward()
        scheduler = schedule and schedule(
            optimizer, 3 if schedule is CosineAnnealingWarmRestarts else 300, eta_min=1e-4
        )
        for _ in range(steps):
            optimizer.step()
        stored = {
            "model_neck_state_dict": neck,
            "model_head_state_dict": {"h1.gem.p": torch.tensor([4.5]), "h1.fc.weight": torch.zeros(4, 4)} | norm,
            "loss_state_dict": loss.state_dict(),
            "optimizer_state_dict": optimizer.state_dict(),
            "loss_optimizer_state_dict": torch.optim.AdamW(loss.parameters(), lr=1e-4).state_dict(),
            "scheduler_state_dict": scheduler and scheduler.state_dict(),
            "epoch": epoch,
            "best_loss": np.mean(np.array([torch.tensor(1.0), torch.tensor(2.0)])),
            "fn_cfg_model_neck": "config/files/model/neck/02_neck_512_3.yaml",
        }
        torch.save({**stored, **parts}, path)
        return path

    return write


#: A study small enough to train in a second: four classes of flat colours with noise, tiny images.
SMALL = {
    "profile": "tiny",
    "model.image_size": 32,
    "model.neck.channels": 8,
    "model.neck.layers": 1,
    "model.backbone.name": "convnextv2_atto",
    "model.backbone.options": {"depths": [1, 1, 1, 1], "dims": [16, 32, 64, 128]},  # a fifth of its time
    "training.batch_size": 8,
    "training.loss.lr": 1e-2,
    "training.a.epochs": 2,
    "training.b.epochs": 2,
    "training.c.epochs": 3,
    "compute.workers": 0,
    "compute.threads": 1,
    "data.kimia.scans": 4,
    "data.pannuke.tissues": "any",
    "retrieval.bootstrap": 200,
}
COLOURS = [(220, 80, 120), (90, 60, 160), (230, 200, 215), (150, 110, 90)]


def write_patch(path, colour, rng):
    noise = rng.normal(0, 25, size=(32, 32, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """One folder for each data set, in its layout."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for k, colour in enumerate(COLOURS):
        for i in range(6):
            write_patch(root / "imagenet" / "train" / f"n{k}" / f"{i}.JPEG", colour, rng)
            write_patch(root / "pannuke" / "images" / f"fold{i % 3 + 1}_{6 * k + i}_T{k}.png", colour, rng)
            write_patch(root / "kimia" / "train" / f"s{k}" / f"{i}.jpg", colour, rng)
        for i in range(3):
            write_patch(root / "kimia" / "test" / f"s{k}" / f"s{k}_{i}.jpg", colour, rng)
    return root


@pytest.fixture
def tiny_study(tiny_data, tmp_path):
    """Makes a study in ``tmp_path`` on the tiny data; keyword arguments set parameters ("__" for ".")."""

    def make(folder="run", **changes):
        overrides = {
            **SMALL,
            **{f"data.{d}.root": str(tiny_data / d) for d in ("imagenet", "pannuke", "kimia")},
        }
        overrides |= {key.replace("__", "."): value for key, value in changes.items()}
        return Study.load(PROJECT / "params" / "smoke.yaml", overrides, root=tmp_path / folder)

    make.settings = SMALL
    return make


@pytest.fixture
def manifest():
    """The manifest of a small run of profile "tiny" as its file holds it, but for the seal."""
    machine = {"processor": "Xeon", "architecture": "x86_64", "gpu": None, "driver": None}
    stage = {"producer": "notebooks/07.ipynb", "seed": None, "seconds": 1.0, "peak_memory_mib": 100, "key": "k"}
    return {
        "label": "profile tiny: given data",
        "profile": "tiny",
        "request": {"params": "params/tiny.yaml", "overrides": {}, "sha256": "0"},
        "parameters": {"training": {"c": {"epochs": 18}}, "data": {"kimia": {"root": None}}},
        "weights": {"model.backbone": {"source": "hub", "sha256": "c"}, "baselines.ma_ms": {"source": "random"}},
        "inputs": {"kimia": {"synthetic": True, "files": 100, "files_sha256": "f", "index_sha256": "a"}},
        "commit": {"id": "c0ffee", "changed_files": False, "changes_sha256": None},
        "code_sha256": "b",
        "lock": {"name": "requirements.lock", "sha256": "1"},
        "locks": {"requirements.lock": "1", "requirements-gpu.lock": "2"},
        "python": "3.11.9",
        "packages": {"torch": "2.12.0", "numpy": "2.0.0"},
        "machine": machine,
        "stages": {"07": {**stage, "inputs": {}, "machine": machine.copy()}},
        "measures": {"09": {"hits": [{"found": 46}], "trust": 0.9, "undefined": float("nan")}},
        "artefacts": {},
    }


@pytest.fixture
def slide_file():
    """Writes a pyramidal TIFF in tiles, as scanners do: ``image`` uint8 (H, W, 3) at ``mpp`` µm a pixel.

    ``description`` is that of the first level; with ``sub`` the others are within it, as in OME-TIFF.
    """
    import tifffile

    def write(path, image, mpp=0.5, levels=3, description=None, sub=False, unit="CENTIMETER"):
        path.parent.mkdir(parents=True, exist_ok=True)
        dots = {"CENTIMETER": 1e4, "INCH": 25400}[unit]
        with tifffile.TiffWriter(path, ome=False) as file:
            for level in range(levels):
                options = {"resolution": (dots / mpp / 2**level,) * 2, "resolutionunit": unit} if mpp else {}
                options |= {"description": description.encode()} if description and not level else {}
                options |= {"subifds": levels - 1} if sub and not level else {"subfiletype": int(level > 0)}
                file.write(
                    image, photometric="rgb", tile=(64, 64), compression="zlib", metadata=None, software=None, **options
                )
                height, width = (length // 2 * 2 for length in image.shape[:2])
                halves = image[:height, :width].reshape(height // 2, 2, width // 2, 2, 3)
                image = np.rint(halves.mean(axis=(1, 3))).astype(np.uint8)
        return path

    return write


@pytest.fixture
def dyed():
    """Draws a slide, uint8 (height, width, 3): glass with its noise, and boxes (top, left, bottom, right) of tissue."""

    def draw(height, width, *boxes, seed=0):
        rng = np.random.default_rng(seed)
        image = np.full((height, width, 3), (243.0, 242, 244)) + rng.normal(0, 2, (height, width, 1))
        for top, left, bottom, right in boxes:
            image[top:bottom, left:right] = (200, 110, 170) + rng.normal(0, 25, (bottom - top, right - left, 3))
        return np.clip(image, 0, 255).astype(np.uint8)

    return draw
