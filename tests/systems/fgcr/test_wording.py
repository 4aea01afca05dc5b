"""What a start is told of the records of one's own, and what it loads to know it."""

import subprocess
import sys

from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import Study
from lgffem_core.data import prepare


def test_a_start_with_ones_own_records_loads_no_torch(tmp_path):
    made = Study.load(PROJECT / "params" / "smoke.yaml", {"systems": ["fgcr"]}, tmp_path)
    prepare(made, "reports")
    ask = (
        "import sys; from lgffem_core.run.checklist import checklist; from lgffem_core.config.study import Study;"
        f"of = {{'systems': ['fgcr'], 'data.reports.root': {str(made.data_root('reports'))!r}}};"
        "few = {'fgcr.tokens': 2};"
        "fine, refused = (checklist(Study.load('params/smoke.yaml', of | more)) for more in ({}, few));"
        "assert fine == [] and len(refused) == 1 and 'tokens' in refused[0], (fine, refused);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", ask], cwd=PROJECT, check=True)
