# The study as a graph: one rule per notebook, executed by papermill. ./run_all.sh calls it; so can you:
#
#   .venv/bin/python -m lgffem_core run params/demo.yaml     (what run_all.sh does)
#
# What a rule writes, and the `stamp` that makes it run again, come from lgffem_core/stages.py.
import sys
from pathlib import Path

from lgffem_core.stages import Request, executed_notebook, stage_outputs, stamp

request = Path(config["request"])
study = Request.read(request).study
run_notebook = [sys.executable, "-m", "lgffem_core", "notebook", str(request)]
cores = min(study.params.compute.threads, workflow.cores)


wildcard_constraints:
    variant="[a-z]+",
    seed="[0-9]+",


def outputs(notebook, variant="{variant}", seed="{seed}"):
    return stage_outputs(study, notebook, variant, seed)


def each_run(notebook):
    return [f for v in study.params.variants for s in study.params.seeds for f in outputs(notebook, v, s)]


rule all:
    input:
        outputs("02_model_definition", "", ""),
        outputs("08_grad_cam", "", ""),
        outputs("09_projection", "", ""),
        outputs("10_protocol_audit", "", ""),
        outputs("11_ledger", "", ""),


rule data_preparation:
    output: outputs("01_data_preparation", "", "")
    params: stamp=stamp(study, "01_data_preparation")
    threads: cores
    shell: "{run_notebook:q} 01_data_preparation"


rule model_definition:
    input: outputs("01_data_preparation", "", "")
    output: outputs("02_model_definition", "", "")
    params: stamp=stamp(study, "02_model_definition")
    threads: cores
    shell: "{run_notebook:q} 02_model_definition"


rule strategy_a_imagenet:
    priority: 1  # the longest chain: what can run beside it waits for a free core
    input: outputs("01_data_preparation", "", "")
    output: outputs("03_strategy_a_imagenet")
    params: stamp=stamp(study, "03_strategy_a_imagenet")
    threads: cores
    shell: "{run_notebook:q} 03_strategy_a_imagenet --variant {wildcards.variant} --seed {wildcards.seed}"


rule strategy_b_pannuke:
    priority: 1  # the longest chain: what can run beside it waits for a free core
    input: outputs("03_strategy_a_imagenet")
    output: outputs("04_strategy_b_pannuke")
    params: stamp=stamp(study, "04_strategy_b_pannuke")
    threads: cores
    shell: "{run_notebook:q} 04_strategy_b_pannuke --variant {wildcards.variant} --seed {wildcards.seed}"


rule strategy_c_kimia:
    priority: 1  # the longest chain: what can run beside it waits for a free core
    input: outputs("04_strategy_b_pannuke")
    output: outputs("05_strategy_c_kimia")
    params: stamp=stamp(study, "05_strategy_c_kimia")
    threads: cores
    shell: "{run_notebook:q} 05_strategy_c_kimia --variant {wildcards.variant} --seed {wildcards.seed}"


rule baselines:
    input: outputs("01_data_preparation", "", "")
    output: outputs("06_baselines", "", "")
    params: stamp=stamp(study, "06_baselines")
    threads: cores
    shell: "{run_notebook:q} 06_baselines"


rule faiss_evaluation:
    input: each_run("05_strategy_c_kimia"), outputs("06_baselines", "", "")
    output: outputs("07_faiss_evaluation", "", "")
    params: stamp=stamp(study, "07_faiss_evaluation")
    threads: cores
    shell: "{run_notebook:q} 07_faiss_evaluation"


rule grad_cam:
    input: outputs("05_strategy_c_kimia", study.params.variants[0], study.params.seeds[0])
    output: outputs("08_grad_cam", "", "")
    params: stamp=stamp(study, "08_grad_cam")
    threads: cores
    shell: "{run_notebook:q} 08_grad_cam"


rule projection:
    input: outputs("07_faiss_evaluation", "", "")
    output: outputs("09_projection", "", "")
    params: stamp=stamp(study, "09_projection")
    threads: cores
    shell: "{run_notebook:q} 09_projection"


rule protocol_audit:
    input: outputs("07_faiss_evaluation", "", "")
    output: outputs("10_protocol_audit", "", "")
    params: stamp=stamp(study, "10_protocol_audit")
    threads: cores
    shell: "{run_notebook:q} 10_protocol_audit"


rule ledger:
    input: outputs("01_data_preparation", "", "")
    output: outputs("11_ledger", "", "")
    params: stamp=stamp(study, "11_ledger")
    threads: cores
    shell: "{run_notebook:q} 11_ledger"
