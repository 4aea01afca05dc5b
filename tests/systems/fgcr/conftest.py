"""Small slides in record form, and a small model of either reading."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.config.systems import Fgcr
from lgffem_core.data.records import Record, anchors
from lgffem_core.systems.fgcr.batches import item
from lgffem_core.systems.fgcr.model import FGCRModel
from lgffem_core.systems.fgcr.readings import READINGS
from lgffem_core.systems.fgcr.tokenizer import Tokenizer

WORDS = "glands with necrosis in the centre and lymphocytes around them"
PROMPTS = ("glands", "lymphocytes", "necrosis")
SMALL = Fgcr(
    width=8, layers=2, heads=2, head_width=4, hidden_width=8, word_width=4, text_layers=1, text_heads=2, dropout=0.0,
    batch_size=4, epochs=4, lr=1e-2, tokens=12,
)  # fmt: skip


def record(patches, report=WORDS, prompts=("glands",), number=0, most=25, features=6):
    """A slide of so many patches on a strip five wide."""
    rng = np.random.default_rng(number)
    positions = np.stack(np.divmod(np.arange(patches), 5), axis=1).astype(np.float32)
    values = rng.standard_normal((patches, features)).astype(np.float32)
    made = anchors(positions, most=most)
    return Record(f"s{number}", values, positions, made, report=report, prompts=tuple(prompts), label="a")


#: A profile with nothing but FGCR: a few slides of few patches.
FEW = {
    "systems": ["fgcr"], "seeds": [0], "data.reports.test_fraction": 0.5, "data.synthetic.datasets": ["reports"],
    "data.synthetic.reports_slides": 24, "data.synthetic.reports_patches": 30,
}  # fmt: skip


@pytest.fixture
def small():
    """Settings, words, prompts, and what makes a slide."""
    return SimpleNamespace(settings=SMALL, words=WORDS, prompts=PROMPTS, record=record)


@pytest.fixture
def tokenizer():
    return Tokenizer.of([WORDS], PROMPTS, longest=12)


@pytest.fixture
def items(tokenizer):
    """Slides of 1 to 2,048 patches, 6 to 25 anchors, reports empty to longest."""
    reports = (WORDS, "", "necrosis", " ".join(WORDS.split()[:6] * 2))
    slides = [record(n, text, number=i) for i, (n, text) in enumerate(zip((40, 1, 7, 300), reports, strict=True))]
    return [item(slide, tokenizer, most=2048) for slide in slides]


@pytest.fixture(params=READINGS)
def reading(request):
    return READINGS[request.param]


@pytest.fixture
def model(tokenizer, reading):
    torch.manual_seed(0)
    return FGCRModel(6, tokenizer, SMALL, reading).eval()


@pytest.fixture
def study(tmp_path):
    return Study.load(PROJECT / "params" / "smoke.yaml", FEW, root=tmp_path)
