"""The trainer with other systems' parts, batches and samplers, against the same training written out in plain torch."""

from functools import partial

import pytest
import torch
from lightning_fabric import Fabric
from torch.nn.utils.rnn import pad_sequence

from lgffem_core.base.files import sha256_file
from lgffem_core.config.params import Compute
from lgffem_core.data.loading import TrainingBatches
from lgffem_core.training import loop
from lgffem_core.training.checkpoint import load_checkpoint
from lgffem_core.training.loop import Recipe, Trainer

PAIRS, BATCH, EPOCHS, RATE, OWN_RATE, NORM = 10, 4, 3, 0.5, 0.1, 0.05


class SlidesAndReports(torch.utils.data.Dataset):
    """Bags of 2 to 4 vectors, each with a text of 1 to 5 words: nothing has a label, and no two have one length."""

    def __len__(self):
        return PAIRS

    def __getitem__(self, key):
        _, row = key
        draw = torch.Generator().manual_seed(row)
        words = torch.randint(1, 9, (1 + row % 5,), generator=draw)
        return {"slide": torch.randn(2 + row % 3, 6, generator=draw), "report": words}


def padded(items):
    slides, reports = ([item[key] for item in items] for key in ("slide", "report"))
    return {"bags": slides, "words": pad_sequence(reports, batch_first=True)}


class Slides(torch.nn.Module):
    """A tower on a frozen layer, which is in no checkpoint."""

    def __init__(self):
        super().__init__()
        self.frozen, self.top = torch.nn.Linear(6, 5).requires_grad_(False), torch.nn.Linear(5, 4)

    def forward(self, bags):  # bags of (n, 6) -> (N, 4)
        return torch.stack([self.top(self.frozen(bag)).mean(dim=0) for bag in bags])

    def trainable_state(self):
        return {name: tensor for name, tensor in self.state_dict().items() if name.startswith("top.")}

    def load_trainable_state(self, state):
        self.load_state_dict(state, strict=False)


class Contrast(torch.nn.Module):
    """Which report belongs to which slide, at a temperature that is learned."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, slides, reports):
        assert slides.dtype == reports.dtype == torch.float32
        own = torch.arange(len(slides))
        return torch.nn.functional.cross_entropy(self.scale * slides @ reports.T, own)


def make_parts():
    torch.manual_seed(0)
    reports = torch.nn.Sequential(torch.nn.Embedding(9, 3, padding_idx=0), torch.nn.Flatten(), torch.nn.LazyLinear(4))
    reports(torch.zeros(1, 5, dtype=torch.int64))
    return {"slides": Slides(), "reports": reports, "loss": Contrast()}


def whole(words):
    """Padded to 5 words: (N, up to 5) -> (N, 5)."""
    return torch.nn.functional.pad(words, (0, 5 - words.shape[1]))


def contrast(batch, slides, reports, loss):
    return loss(slides(batch["bags"]), reports(whole(batch["words"])))


class InOrder(TrainingBatches):
    """A sampler of another system: the same neighbours in every epoch, and no drawing of lots."""

    def __iter__(self):
        for step in range(self.first, self.epochs * self.steps):
            epoch, start = step // self.steps, step % self.steps * self.batch_size
            rows = range(start, min(start + self.batch_size, self.size))
            yield [(epoch, row) for row in rows][self.rank :: self.world]


RECIPE = Recipe(
    name="towers",
    title="towers",
    lr_key="",
    epochs=EPOCHS,
    batch_size=BATCH,
    rate=lambda step, steps: RATE / (1 + step),
    optimizer=partial(torch.optim.SGD, lr=9.0, momentum=0.9),
    settings={"loss": {"lr": OWN_RATE, "momentum": 0.0}},
    clip_norm=NORM,
    clipped="reports",
    drop_last=False,
    sampler=InOrder,
    collate=padded,
)


def train(folder, every=None):
    parts = make_parts()
    trainer = Trainer(Fabric(accelerator="cpu", devices=1), RECIPE, parts, contrast, 0)
    compute = Compute(device="cpu", precision="32-true", workers=0, checkpoint_steps=every)
    return parts, trainer.fit(SlidesAndReports(), folder, "f", compute)


def by_hand():
    """The same training in plain torch: two rates, one clipped gradient, batches of 4, 4 and 2."""
    parts, data, losses = make_parts(), SlidesAndReports(), []
    towers = [{"params": parts[name].parameters(), "lr": RATE} for name in ("slides", "reports")]
    own = {"params": parts["loss"].parameters(), "lr": OWN_RATE, "momentum": 0.0}
    optimizer = torch.optim.SGD([*towers, own], lr=9.0, momentum=0.9, fused=True)
    for step in range(9):
        items = [data[0, row] for row in range(PAIRS)[step % 3 * BATCH : step % 3 * BATCH + BATCH]]
        loss = contrast(padded(items), **parts)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts["reports"].parameters(), NORM)
        for group in optimizer.param_groups[:2]:
            group["lr"] = RATE / (1 + step)
        optimizer.step()
        losses.append(loss.item())
    return parts, losses


def test_two_towers_on_bags_and_texts_train_as_in_plain_torch(tmp_path):
    (expected, losses), (found, history) = by_hand(), train(tmp_path)
    assert [entry["loss"] for entry in history] == [sum(losses[i : i + 3]) / 3 for i in (0, 3, 6)]
    assert losses[-1] < losses[2] and [entry["lr"] for entry in history] == [RATE / 3, RATE / 6, RATE / 9]
    for name, part in expected.items():
        there = found[name].state_dict()
        assert all(torch.equal(tensor, there[key]) for key, tensor in part.state_dict().items())


def test_a_checkpoint_names_each_part_and_leaves_out_what_is_frozen(tmp_path):
    parts, _ = train(tmp_path)
    tensors = load_checkpoint(tmp_path / "step_000000009.safetensors").tensors
    names = {"slides/top.weight", "slides/top.bias", "reports/0.weight", "reports/2.weight", "reports/2.bias"}
    assert {name for name in tensors if not name.startswith("optimizer/")} == names | {"loss/scale"}
    assert torch.equal(tensors["reports/0.weight"], parts["reports"][0].weight)


class StopHereError(Exception):
    """Stands in for a kill."""


def test_two_towers_stopped_at_every_step_come_to_the_same_bits(tmp_path, monkeypatch):
    _, expected = train(tmp_path / "whole", every=1)
    original = loop.save_checkpoint

    def save_and_die(*arguments):
        original(*arguments)
        raise StopHereError

    for _ in range(9):
        with monkeypatch.context() as patch, pytest.raises(StopHereError):
            patch.setattr(loop, "save_checkpoint", save_and_die)
            train(tmp_path / "stopped", every=1)
    assert train(tmp_path / "stopped", every=1)[1] == expected
    first, second = (sorted((tmp_path / name).iterdir()) for name in ("whole", "stopped"))
    assert [sha256_file(path) for path in first] == [sha256_file(path) for path in second]
