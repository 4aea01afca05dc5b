"""A loss is added by touching two files, as docs/extending.md says, and trains."""

import pandas as pd
import yaml

from lgffem_core.base.project import PROJECT
from lgffem_core.training.checkpoint import load_checkpoint

TRAIN = """
import sys
from lgffem_core.config.study import Study
from lgffem_core.systems.lgffem.strategies import train_strategy
print(train_strategy(Study.load(sys.argv[1]), "a", "paper", 0).weights)
"""


def test_a_new_loss_touches_two_files_and_trains(tiny_study, extended):
    project = extended("A loss")
    assert {where for _, where, _ in extended.steps("A loss")} == {
        "lgffem_core/training/losses.py",
        "lgffem_core/config/params.py",
    }
    params = tiny_study(training__a__epochs=4).params.model_dump(mode="json")
    params["training"]["loss"]["name"] = "cosine_softmax"
    profile = project / "params" / "mine.yaml"
    profile.write_text(yaml.safe_dump(params))
    refused = extended.run(PROJECT, "-c", TRAIN, str(profile))
    assert refused.returncode != 0 and "training.loss.name" in refused.stderr
    done = extended.run(project, "-c", TRAIN, str(profile))
    assert done.returncode == 0, done.stderr
    folder = project / "artifacts" / "tiny" / "checkpoints" / "paper" / "seed0" / "strategy_a"
    assert done.stdout.splitlines()[-1] == str(folder / "model.safetensors")
    tensors = load_checkpoint(max(folder.glob("step_*"))).tensors
    assert tensors["loss/W"].shape == (32, 4)  # of Sub-center ArcFace (32, 24)
    losses = pd.read_csv(folder / "history.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
