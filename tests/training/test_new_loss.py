"""A loss is added by touching two files: its name among the parameters, and the function that makes it."""

import shutil
import subprocess
import sys

import pandas as pd
import yaml

from lgffem_core.base.project import PROJECT
from lgffem_core.training.checkpoint import load_checkpoint

FUNCTION = '''
def cosine_softmax(loss: Loss, classes: int, embedding_size: int, variant: Toggles) -> nn.Module:
    """Cross-entropy over cosines with one center a class, without a margin."""
    return NormalizedSoftmaxLoss(classes, embedding_size, temperature=1 / loss.scale)


#: ``training.loss.name``'''
ADDED = {
    "config/params.py": {
        'name: Literal["sub_center_arcface"]': 'name: Literal["sub_center_arcface", "cosine_softmax"]'
    },
    "training/losses.py": {
        "import MultiSimilarityLoss,": "import MultiSimilarityLoss, NormalizedSoftmaxLoss,",
        '{"sub_center_arcface": sub_center_arcface}': (
            '{"sub_center_arcface": sub_center_arcface, "cosine_softmax": cosine_softmax}'
        ),
        "\n#: ``training.loss.name``": FUNCTION,
    },
}
TRAIN = """
import sys
from lgffem_core.config.study import Study
from lgffem_core.systems.lgffem.strategies import train_strategy
print(train_strategy(Study.load(sys.argv[1]), "a", "paper", 0).weights)
"""


def train(project, profile):
    command = [sys.executable, "-c", TRAIN, str(profile)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=300)


def test_a_new_loss_touches_two_files_and_trains(tiny_study, tmp_path):
    project = tmp_path / "project"
    hidden = shutil.ignore_patterns("__pycache__")
    for name in ("lgffem_core", "params"):
        shutil.copytree(PROJECT / name, project / name, ignore=hidden)
    for name in ("requirements.lock", "environment.yml"):
        shutil.copy(PROJECT / name, project)
    for name, changes in ADDED.items():
        text = (project / "lgffem_core" / name).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (project / "lgffem_core" / name).write_text(text)
    params = tiny_study(training__a__epochs=4).params.model_dump(mode="json")
    params["training"]["loss"]["name"] = "cosine_softmax"
    profile = project / "params" / "mine.yaml"
    profile.write_text(yaml.safe_dump(params))
    refused = train(PROJECT, profile)
    assert refused.returncode != 0 and "training.loss.name" in refused.stderr
    done = train(project, profile)
    assert done.returncode == 0, done.stderr
    folder = project / "artifacts" / "tiny" / "checkpoints" / "paper" / "seed0" / "strategy_a"
    assert done.stdout.splitlines()[-1] == str(folder / "model.safetensors")
    tensors = load_checkpoint(max(folder.glob("step_*"))).tensors
    assert tensors["loss/W"].shape == (32, 4)  # of Sub-center ArcFace (32, 24)
    losses = pd.read_csv(folder / "history.csv")["loss"]
    assert losses.iloc[-1] < losses.iloc[0]
