"""The list of a run's jobs, against one that was written by hand."""

import pytest

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.run import plan as module
from lgffem_core.run.plan import plan
from lgffem_core.run.stages import Stage, all_stages

SWEEP = """\
job  stage                   variant   seed  cores  MB     minutes  GPUs  state     after jobs
1    01_data_preparation     –         –     10     16000  240      0     finished  –
2    02_model_definition     –         –     10     16000  240      0     to run    1
3    03_strategy_a_imagenet  paper     0     10     16000  2880     1     finished  1
4    03_strategy_a_imagenet  paper     7     10     16000  2880     1     to run    1
5    03_strategy_a_imagenet  released  0     10     16000  2880     1     to run    1
6    03_strategy_a_imagenet  released  7     10     16000  2880     1     to run    1
7    04_strategy_b_pannuke   paper     0     10     16000  1440     1     to run    1 3
8    04_strategy_b_pannuke   paper     7     10     16000  1440     1     to run    1 4
9    04_strategy_b_pannuke   released  0     10     16000  1440     1     to run    1 5
10   04_strategy_b_pannuke   released  7     10     16000  1440     1     to run    1 6
11   05_strategy_c_kimia     paper     0     10     16000  1440     1     to run    1 3 7
12   05_strategy_c_kimia     paper     7     10     16000  1440     1     to run    1 4 8
13   05_strategy_c_kimia     released  0     10     16000  1440     1     to run    1 5 9
14   05_strategy_c_kimia     released  7     10     16000  1440     1     to run    1 6 10
15   06_baselines            –         –     10     16000  480      1     to run    1
16   07_faiss_evaluation     –         –     10     16000  240      1     to run    1 3 4 5 6 7 8 9 10 11 12 13 14 15
17   08_grad_cam             –         –     10     16000  240      1     to run    1 3 7 11
18   09_projection           –         –     10     16000  240      1     to run    1 3 4 5 6 7 8 9 10 11 12 13 14 16
19   10_protocol_audit       –         –     10     16000  480      1     to run    1 3 4 5 6 7 8 9 10 11 12 13 14 15 16
20   11_ledger               –         –     10     16000  1440     1     to run    1
"""
FINISHED = (Stage("01_data_preparation"), Stage("03_strategy_a_imagenet", "paper", 0))


@pytest.mark.parametrize("device", ["auto", "cuda", "cpu"])
def test_a_sweep_is_listed_with_what_each_job_asks_for(tmp_path, monkeypatch, device):
    overrides = {"seeds": [0, 7], "variants": ["paper", "released"], "compute.device": device}
    study = Study.load(PROJECT / "params" / "paper.yaml", overrides, root=tmp_path)
    monkeypatch.setattr(module, "due", lambda study: [s for s in module.all_stages(study) if s not in FINISHED])
    expected = SWEEP.replace("     1     to run", "     0     to run") if device == "cpu" else SWEEP
    expected = expected.replace("     1     finished", "     0     finished") if device == "cpu" else expected
    assert plan(study) + "\n" == expected
    assert not list(tmp_path.iterdir())


def test_nothing_is_finished_of_a_run_that_was_not_made(tmp_path):
    study = Study.load(PROJECT / "params" / "smoke.yaml", root=tmp_path)
    lines = plan(study).splitlines()
    assert len(lines) == 1 + len(all_stages(study)) and all("  to run  " in line for line in lines[1:])
