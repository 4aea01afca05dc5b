"""The audit's tables: every method under every protocol, leakage, paired comparisons.

A method is (name, variant), and what is known of it a list with one entry a seed, as for Tables 1 and 2.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from lgffem_core.audit.chance import chance
from lgffem_core.audit.leakage import clean, leakage
from lgffem_core.audit.verdicts import ENDS, scan_ends
from lgffem_core.config.study import Study
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.comparison import holm, mcnemar_exact, paired_permutation
from lgffem_core.retrieval.embed import Embedded
from lgffem_core.retrieval.encoder import Encoder, embed_table
from lgffem_core.retrieval.methods import Methods, Outcomes, mean_scores
from lgffem_core.retrieval.metrics import STANDARD, Scores
from lgffem_core.retrieval.protocols import Outcome, answerable, evaluate, leave_one_group_out, leave_one_out
from lgffem_core.retrieval.ranking import rank_others, ranking_scores
from lgffem_core.retrieval.statistics import BCA, WIDTHLESS, patch_interval, seed_half_width

PROTOCOL_NOTE = (
    f"Percent. eta_p_low, eta_p_high: 95 % interval of eta_p over patches ({BCA}), none where patches do not ask for "
    "themselves; scan_low, scan_high: over scans (the same; 89 to 95 % with 24 scans), the one to go by, as patches "
    f"of a scan are alike; seed_half_width: over seeds, empty for one. {WIDTHLESS} chance_*: expected of random "
    "embeddings."
)
RANK_NOTE = (
    "Percent, under leave_one_out, means over seeds; ties go to the patch that is first in the table. hit_rate at k: "
    "of all queries, those with a patch of their scan among the first k; recall: of the scan's other patches; "
    "precision: of the k; mAP, mean average precision: the same at each place of a right patch, averaged; MV, "
    "majority vote: queries whose majority is right; mMV: the same, each scan with equal weight; macro_f1: F1 of the "
    "first neighbour's label, each scan with equal weight."
)
COMPARISON_NOTE = (
    "Under leave_one_out; difference in points of eta_p, positive where {best} is better. p_patches: McNemar's exact "
    "test, first seed; p_scans: the scans' differences in right patches with their signs flipped, the one to go by; "
    "both by Holm over this table."
)
LEAKAGE_NOTE = (
    "train, across, test: pairs of patches that show the same tissue, within the training patches, across, and within "
    "the test patches. Percent: {best} once `removed` test patches are left out, one of each pair within the test "
    f"patches and each that has a pair in training; 95 % interval of eta_p over scans ({BCA}). {WIDTHLESS}"
)


class Domain(NamedTuple):
    """Images that a domain is measured on, by the name that the table shows."""

    name: str
    dataset: str
    patches: pd.DataFrame


class Answers(NamedTuple):
    """A model on a domain."""

    model: str  # as the table names it
    domain: Domain
    trained_on: str  # whether it was trained on these very images
    runs: list[np.ndarray | None]  # embeddings (N, D), one a seed; None for a domain without images


def protocol_table(study: Study, outcomes: Outcomes, train_counts: np.ndarray) -> pd.DataFrame:
    """Every method under every protocol: scores, intervals over patches, scans and seeds, and chance.

    Args:
        train_counts: (S,) training patches of each scan.
    """
    rows = []
    for (method, variant, protocol), runs in outcomes.items():
        counts = runs[0].counts
        expected = chance(protocol, counts, train_counts)._asdict()
        rows.append(
            {"method": method, "variant": variant, "protocol": protocol}
            | {"seeds": " ".join(map(str, study.params.seeds))}
            | mean_scores(runs)
            | intervals(runs, study.params.retrieval.bootstrap)
            | {f"chance_{name}": value for name, value in expected.items()}
        )
    return pd.DataFrame(rows).round(DECIMALS)


def intervals(runs: list[Outcome], resamples: int) -> dict[str, float]:
    """The intervals of η_p over patches, over scans and over seeds, as cells of a row."""
    low, high = np.nan, np.nan
    if runs[0].hits is not None:
        low, high = patch_interval(np.array([run.hits for run in runs]), resamples)
    scan_low, scan_high = scan_ends(runs, resamples).values()
    half = seed_half_width([run.scores.eta_p for run in runs])
    return {"eta_p_low": low, "eta_p_high": high, "scan_low": scan_low, "scan_high": scan_high, "seed_half_width": half}


def ranking_table(embedded: Methods, ks: tuple[int, ...] = (1, 3, 5, 10)) -> pd.DataFrame:
    """Beyond the first neighbour: ``ranking_scores`` of every method under ``leave_one_out``, means over seeds."""
    rows = []
    for (method, variant), runs in embedded.items():
        size = min(int(run.test.sum()) - 1 for run in runs)
        depths = tuple(k for k in ks if k <= size)
        votes = tuple(k for k in depths if k > 1)
        ranked = [rank_others(run.embeddings[run.test], run.labels[run.test], max(depths)) for run in runs]
        scores = [ranking_scores(ranking, depths, votes) for ranking in ranked]
        rows.append({"method": method, "variant": variant} | pd.DataFrame(scores).mean().to_dict())
    return pd.DataFrame(rows).round(DECIMALS)


def comparison_table(outcomes: Outcomes, best: tuple[str, str]) -> pd.DataFrame:
    """One method against every other on the same queries: differences of η_p in points, and p-values.

    ``p_patches`` is McNemar's, of the first seed; ``p_scans`` flips whole scans, seeds averaged, and is the one
    to go by. It compares numbers of right patches, as η_p does: mean rates of scans are η_w, whose difference may
    have the other sign. Both are adjusted by Holm for all comparisons of the table.
    """
    chosen, rows = outcomes[(*best, STANDARD)], []
    for (method, variant, name), runs in outcomes.items():
        if name != STANDARD or (method, variant) == best:
            continue
        right = [np.array([run.correct for run in group]) for group in (chosen, runs)]  # (seeds, S)
        gain = np.mean([run.scores.eta_p for run in chosen]) - np.mean([run.scores.eta_p for run in runs])
        rows.append(
            {"method": best[0], "against": method, "variant": variant, "difference": round(float(gain), DECIMALS)}
            | {"p_patches": mcnemar_exact(chosen[0].hits, runs[0].hits), "p_scans": paired_permutation(*right)}
        )
    table = pd.DataFrame(rows)
    return table.assign(**{name: holm(table[name]) for name in ("p_patches", "p_scans")})


def generality_table(answers: Iterable[Answers], resamples: int) -> pd.DataFrame:
    """What specialising costs elsewhere (paper, section 4.2.1): a row for each model and domain."""
    rows = [
        {"strategy": each.model, "domain": each.domain.name, "protocol": STANDARD, "trained_on": each.trained_on}
        | scored(each, resamples)
        for each in answers
    ]
    return pd.DataFrame(rows).round(DECIMALS)


def scored(answers: Answers, resamples: int) -> dict:
    """The numbers of a row; NaN where there are fewer than two groups."""
    labels = answers.domain.patches["label_id"].to_numpy()
    row = {"patches": len(labels), "groups": len(np.unique(labels))}
    if row["groups"] < 2:
        return row | dict.fromkeys(("eta_p", *ENDS, "chance_eta_p"), np.nan)
    runs = [leave_one_out(values, labels) for values in answers.runs]
    row |= {"eta_p": np.mean([run.scores.eta_p for run in runs]), **scan_ends(runs, resamples)}
    return row | {"chance_eta_p": chance(STANDARD, runs[0].counts).eta_p}


def group_table(study: Study, asked: list[tuple[Domain, Encoder]]) -> pd.DataFrame:
    """``leave_one_group_out`` wherever a patch can be answered from another group (slide, patient, fold)."""
    rows = []
    for domain, encoder in asked:
        labels, groups = domain.patches["label_id"].to_numpy(), domain.patches["group"].to_numpy()
        share = answerable(labels, groups).mean()
        row = {"data": domain.name, "asked of": encoder.label, "patches": len(labels), "groups": len(np.unique(groups))}
        row["answerable"] = 100 * share
        if share > 0:
            values = embed_table(study, domain.dataset, domain.patches, encoder)
            row |= leave_one_group_out(values, labels, groups).scores._asdict()
        rows.append(row)
    return pd.DataFrame(rows).round(DECIMALS)


def leakage_table(study: Study, pairs: pd.DataFrame, embedded: Embedded) -> pd.DataFrame:
    """Pairs of each kind by where they lie, and the scores without the test patches that they concern.

    Args:
        pairs: of ``near_duplicates`` on the patches in table order; embedded: theirs by one model.
    """
    test = embedded.test
    found, rows = leakage(pairs, test), []
    for kind in ("none", *found.index, "any"):
        concerned = pairs if kind == "any" else pairs[pairs["kind"] == kind]
        kept = clean(concerned, test)
        inside = {"any": found.sum(), "none": found.sum() * 0}.get(kind)
        counted = (found.loc[kind] if inside is None else inside).astype(int).to_dict()
        for name in ("test_to_train", "leave_one_out"):
            rows.append(
                {"kind": kind, **counted, "removed": int((~kept).sum()), "protocol": name}
                | without(name, embedded, kept, study.params.retrieval.bootstrap)
            )
    return pd.DataFrame(rows).round(DECIMALS)


def without(protocol: str, embedded: Embedded, kept: np.ndarray, resamples: int) -> dict[str, float]:
    """Scores and interval on the patches that are kept, (N,) bool; NaN where fewer than two scans are left."""
    values, labels, test = (part[kept] for part in embedded[:3])
    if len(np.unique(labels[test])) < 2:
        return dict.fromkeys((*Scores._fields, *ENDS), np.nan)
    outcome = evaluate(protocol, values, labels, test)
    return outcome.scores._asdict() | scan_ends([outcome], resamples)
