"""A baseline is added as docs/extending.md says: the spread of its colours then stands in Table 2 and the audit."""

import json

import numpy as np

from lgffem_core.data import images_root, patch_table
from lgffem_core.data.loading import read_rgb
from lgffem_core.retrieval.protocols import leave_one_out

NAME = "colour spread"
PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from lgffem_core.audit.tables import protocol_table
from lgffem_core.config.params import PROTOCOLS
from lgffem_core.config.study import Study
from lgffem_core.data import patch_table
from lgffem_core.retrieval.methods import evaluated
from lgffem_core.run.stages import Stage, stage_outputs
from lgffem_core.systems.baselines.evaluation import BASELINES, MA_MS, evaluate_baselines, methods
from lgffem_core.systems.lgffem.tables import table2

del BASELINES[MA_MS]  # so that nothing is trained
study = Study.load("params/smoke.yaml", json.loads(sys.argv[1]), root=Path.cwd())
table = patch_table(study, "kimia")
train = np.bincount(table.loc[table["split"] == "train", "label_id"])
second = table2(study, evaluate_baselines(study), {})
audit = protocol_table(study, evaluated(methods(study), PROTOCOLS), train)
left = [path for path in stage_outputs(study, *Stage("06_baselines")) if "colour_spread" in path.parts]
print(json.dumps({
    "second": second[["method", "variant", "protocol", "eta_p"]].values.tolist(),
    "audit": audit[["method", "protocol", "eta_p"]].values.tolist(),
    "left": [path.is_file() for path in left],
}))
"""


def test_a_baseline_is_added_by_a_file_and_an_entry(tiny_study, tiny_data, extended):
    study, project = tiny_study(), extended("A baseline")
    table, images = patch_table(study, "kimia"), images_root(study, "kimia")
    test = table[table["split"] == "test"]
    colours = np.array([read_rgb(images / path).std(axis=(0, 1), ddof=1) / 255 for path in test["path"]])
    right = round(100 * leave_one_out(colours, test["label_id"].to_numpy()).hits.mean(), 2)

    roots = {f"data.{name}.root": str(tiny_data / name) for name in ("imagenet", "pannuke", "kimia")}
    overrides = {**tiny_study.settings, **roots, "seeds": [0, 1]}
    done = extended.run(project, "-c", PROGRAM, json.dumps(overrides))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [NAME, "nothing trained", "leave_one_out", right] in found["second"]
    assert [NAME, "leave_one_out", right] in found["audit"]
    for rows in (found["second"], found["audit"]):
        assert sum(row[0] == NAME for row in rows) == 3
    assert found["left"] == [True, True]  # of each seed, in the file that notebook 06 declares
