"""A baseline is added by one entry: here the mean colour, which then stands in Table 2 and in the audit.

A real one is a file of its own with its encoder, an entry of ``BASELINES`` in ``systems/baselines/evaluation.py``, its
file of embeddings among what notebook 06 leaves, and its settings, if it has any, in ``config/params.py``.
"""

import numpy as np
import torch

from lgffem_core.audit.tables import protocol_table
from lgffem_core.base.files import sha256_json
from lgffem_core.config.params import PROTOCOLS
from lgffem_core.data import images_root, patch_table
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import read_rgb
from lgffem_core.retrieval.encoder import Encoder
from lgffem_core.retrieval.methods import evaluated
from lgffem_core.retrieval.protocols import leave_one_out
from lgffem_core.systems.baselines.evaluation import BASELINES, MA_MS, Baseline, evaluate_baselines, methods
from lgffem_core.systems.lgffem.tables import table2

NAME, VARIANT = "mean colour", "nothing trained"


class MeanColour(torch.nn.Module):
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def forward(self, images):  # (N, 3, S, S) -> (N, 3)
        return images.mean(dim=(2, 3))


def mean_colour(study, seed):
    size = study.params.model.image_size
    return Encoder(NAME, sha256_json([NAME, size]), MeanColour, evaluation_resize(size))


def test_a_baseline_is_added_by_one_entry(tiny_study, monkeypatch):
    monkeypatch.delitem(BASELINES, MA_MS)  # so that nothing is trained
    monkeypatch.setitem(BASELINES, NAME, Baseline("mean_colour", mean_colour, lambda study: VARIANT))
    study = tiny_study(seeds=[0, 1])
    table, images = patch_table(study, "kimia"), images_root(study, "kimia")
    test = table[table["split"] == "test"]
    colours = np.array([read_rgb(images / path).mean(axis=(0, 1)) / 255 for path in test["path"]])
    right = 100 * leave_one_out(colours, test["label_id"].to_numpy()).hits.mean()

    second = table2(study, evaluate_baselines(study), {}).set_index(["method", "variant", "protocol"])
    assert second.loc[(NAME, VARIANT, "leave_one_out"), "eta_p"] == round(right, 2)
    assert second.sort_index().loc[(NAME, VARIANT)].index.tolist() == sorted(study.params.retrieval.protocols)

    train = np.bincount(table.loc[table["split"] == "train", "label_id"])
    audit = protocol_table(study, evaluated(methods(study), PROTOCOLS), train).set_index(["method", "protocol"])
    assert audit.loc[(NAME, "leave_one_out"), "eta_p"] == round(right, 2)
    assert audit.loc[NAME].index.tolist() == list(PROTOCOLS) and "DenseNet-121" in audit.index
    assert all((study.baseline("mean_colour", seed) / "embeddings.safetensors").is_file() for seed in (0, 1))
