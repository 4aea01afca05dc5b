"""Tables 1 and 2 of the paper as data frames: ours, and the published values beside them."""

import numpy as np
import pandas as pd
import yaml

from lgffem_core.audit.chance import chance
from lgffem_core.base.project import PROJECT
from lgffem_core.config.study import CURRICULUM, SEARCHED, Study
from lgffem_core.data import patch_table
from lgffem_core.report.tables import DECIMALS, NOT_KNOWN
from lgffem_core.retrieval.methods import Outcomes, mean_scores
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.retrieval.protocols import Outcome
from lgffem_core.retrieval.statistics import BCA, WIDTHLESS, eta_p_interval

PAPER = [f"paper_{name}" for name in Scores._fields]
SCORED_COLUMNS = ["variant", "protocol", "seeds", *Scores._fields, "eta_p_low", "eta_p_high", *PAPER]  # of both tables
TABLE1_COLUMNS = ["strategy", "pretraining_data", *SCORED_COLUMNS]
TABLE2_COLUMNS = ["method", *SCORED_COLUMNS]
INTERVAL_NOTE = (
    "Percent. eta_p_low, eta_p_high: 95 % interval of eta_p by percentile bootstrap over test patches (over scans "
    f"under `released`); those of the audit are others ({BCA}), so their ends differ. {WIDTHLESS} paper_*: the "
    "published values, beside the protocol they were computed under; `released` is no Recall@1."
)


def chance_note(study: Study, protocols: tuple[str, ...]) -> str:
    """What random embeddings are expected to score at this run's counts, in closed form: one sentence."""
    patches = patch_table(study, SEARCHED)
    test, train = (np.bincount(patches.loc[patches["split"] == s, "label_id"]) for s in ("test", "train"))
    expected = {protocol: chance(protocol, test, train) for protocol in protocols}
    parts = [f"`{name}` {by.eta_p:.1f} / {by.eta_w:.1f} / {by.eta_tot:.1f}" for name, by in expected.items()]
    return f"Random embeddings are expected to score (eta_p / eta_w / eta_tot): {', '.join(parts)}."


def published(table: str) -> dict:
    """The published values in ``params/reference``: ``{"protocol": …, "rows": {…}}``."""
    path = PROJECT / "params" / "reference" / f"{table}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def table1(study: Study, outcomes: Outcomes) -> pd.DataFrame:
    """Table 1: a row for each strategy, variant and protocol.

    Args:
        outcomes: (strategy, variant, protocol) -> one outcome a seed; scores are means over seeds.
    """
    paper = published("table1")
    rows = []
    for (strategy, variant, protocol), runs in outcomes.items():
        known = paper["rows"][strategy] if protocol == paper["protocol"] else {}
        named = {"strategy": strategy.upper(), "pretraining_data": pretraining_data(study, strategy)}
        named |= {"variant": study.variant_label(variant), "protocol": protocol}
        rows.append(named | measured(study, runs) | beside(known))
    return pd.DataFrame(rows, columns=TABLE1_COLUMNS).round(DECIMALS)


def table2(study: Study, baselines: Outcomes, outcomes: Outcomes) -> pd.DataFrame:
    """Table 2: a row for each method, variant and protocol, LGFFEM after strategy C last.

    A published value stands in the row of the protocol that it was computed under, and nowhere if the profile
    does not run that protocol. Where none is known, it has a row of its own, without scores of ours
    (ledger row 16).

    Args:
        baselines: (method, variant, protocol) -> one outcome a seed, of ``evaluate_baselines``.
        outcomes: (strategy, variant, protocol) -> one outcome a seed, of ``evaluate_all``; only "c" is used.
    """
    paper = published("table2")["rows"]
    lgffem = {
        ("LGFFEM", study.variant_label(variant), protocol): runs
        for (strategy, variant, protocol), runs in outcomes.items()
        if strategy == "c"
    }
    found, rows = baselines | lgffem, []
    for method in dict.fromkeys(key[0] for key in found):
        known = paper.get(method, {"protocol": ""})  # the barcode has no published row
        for (_, variant, protocol), runs in ((key, runs) for key, runs in found.items() if key[0] == method):
            named = {"method": method, "variant": variant, "protocol": protocol}
            rows.append(named | measured(study, runs) | beside(known if known["protocol"] == protocol else {}))
        if known["protocol"] is None:
            rows.append({"method": method, "variant": "as published", "protocol": NOT_KNOWN, "seeds": ""})
            rows[-1] |= beside(known)
    return pd.DataFrame(rows, columns=TABLE2_COLUMNS).round(DECIMALS)


def measured(study: Study, runs: list[Outcome]) -> dict:
    """The cells of a row that come from this study: means over seeds, and the interval of η_p."""
    low, high = eta_p_interval(runs, study.params.retrieval.bootstrap)
    seeds = " ".join(map(str, study.params.seeds))
    return {"seeds": seeds, **mean_scores(runs), "eta_p_low": low, "eta_p_high": high}


def beside(known: dict) -> dict:
    """The cells of a row that hold published values, given some or none."""
    return {f"paper_{name}": known[name] for name in Scores._fields if name in known}


def pretraining_data(study: Study, strategy: str) -> str:
    """The data of a strategy as Table 1 names it; synthetic sets carry a star."""
    known = [entry for name, entry in CURRICULUM.items() if name <= strategy]
    return " + ".join(
        label.split(" + ")[-1] + ("*" if study.is_synthetic(dataset) else "") for dataset, _, label in known
    )
