# The study as a graph: one rule per notebook, executed by papermill. ./run_all.sh calls it.
#
# Which stages need not run is decided by lgffem_core/run/stages.py, from what files hold, before this file is read: the
# flag of a finished stage is there, and Snakemake sees to the order of the others. A stage whose inputs come out as
# they were finds itself finished and ends at once.
import sys
from pathlib import Path

from lgffem_core.run.stages import Request, flag_file

request = Path(config["request"])
study = Request.read(request).study
run_notebook = [sys.executable, "-m", "lgffem_core", "notebook", str(request)]
cores = min(study.params.compute.threads, workflow.cores)


wildcard_constraints:
    variant="[a-z]+",
    seed="[0-9]+",


def done(notebook, variant="{variant}", seed="{seed}"):
    # Counted from the folder that Snakemake works in: what stands above it may hold braces, which mean wildcards.
    return flag_file(study, notebook, variant, seed).relative_to(study.artifacts).as_posix()


def each_run(notebook):
    return [done(notebook, v, s) for v in study.params.variants for s in study.params.seeds]


rule all:
    input:
        done("02_model_definition", "", ""),
        done("08_grad_cam", "", ""),
        done("09_projection", "", ""),
        done("10_protocol_audit", "", ""),
        done("11_ledger", "", ""),


rule data_preparation:
    output: done("01_data_preparation", "", "")
    threads: cores
    shell: "{run_notebook:q} 01_data_preparation"


rule model_definition:
    input: done("01_data_preparation", "", "")
    output: done("02_model_definition", "", "")
    threads: cores
    shell: "{run_notebook:q} 02_model_definition"


rule strategy_a_imagenet:
    priority: 1  # the longest chain: what can run beside it waits for a free core
    input: done("01_data_preparation", "", "")
    output: done("03_strategy_a_imagenet")
    threads: cores
    shell: "{run_notebook:q} 03_strategy_a_imagenet --variant {wildcards.variant} --seed {wildcards.seed}"


rule strategy_b_pannuke:
    priority: 1  # the longest chain: what can run beside it waits for a free core
    input: done("03_strategy_a_imagenet")
    output: done("04_strategy_b_pannuke")
    threads: cores
    shell: "{run_notebook:q} 04_strategy_b_pannuke --variant {wildcards.variant} --seed {wildcards.seed}"


rule strategy_c_kimia:
    priority: 1  # the longest chain: what can run beside it waits for a free core
    input: done("04_strategy_b_pannuke")
    output: done("05_strategy_c_kimia")
    threads: cores
    shell: "{run_notebook:q} 05_strategy_c_kimia --variant {wildcards.variant} --seed {wildcards.seed}"


rule baselines:
    input: done("01_data_preparation", "", "")
    output: done("06_baselines", "", "")
    threads: cores
    shell: "{run_notebook:q} 06_baselines"


rule faiss_evaluation:
    input: each_run("05_strategy_c_kimia"), done("06_baselines", "", "")
    output: done("07_faiss_evaluation", "", "")
    threads: cores
    shell: "{run_notebook:q} 07_faiss_evaluation"


rule grad_cam:
    input: done("05_strategy_c_kimia", study.params.variants[0], study.params.seeds[0])
    output: done("08_grad_cam", "", "")
    threads: cores
    shell: "{run_notebook:q} 08_grad_cam"


rule projection:
    input: done("07_faiss_evaluation", "", "")
    output: done("09_projection", "", "")
    threads: cores
    shell: "{run_notebook:q} 09_projection"


rule protocol_audit:
    input: done("07_faiss_evaluation", "", "")
    output: done("10_protocol_audit", "", "")
    threads: cores
    shell: "{run_notebook:q} 10_protocol_audit"


rule ledger:
    input: done("01_data_preparation", "", "")
    output: done("11_ledger", "", "")
    threads: cores
    shell: "{run_notebook:q} 11_ledger"
