"""What the paper publishes of LGFFEM and of the methods beside it, and what our runs of LGFFEM depend on."""

from lgffem_core.audit.verdicts import Ours, Paper, Published, changed
from lgffem_core.config.study import CURRICULUM, SEARCHED, Study
from lgffem_core.data.sets.facts import KIMIA_TEST_COUNTS
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.systems.lgffem.ledger import read_ledger
from lgffem_core.systems.lgffem.strategies import trained_here
from lgffem_core.systems.lgffem.tables import published


def read_paper() -> Paper:
    """Tables 1 and 2, the test patches that they are of, and the settings that text and code have in two ways."""
    one, two = published("table1"), published("table2")
    rows = [("Table 1", name.upper(), one["protocol"], values) for name, values in one["rows"].items()]
    rows += [("Table 2", name, values["protocol"], values) for name, values in two["rows"].items()]
    known = [Published(table, row, p, Scores(*(v[f] for f in Scores._fields))) for table, row, p, v in rows]
    switches = {key: values for row in read_ledger() for key, values in (row.switch or {}).items()}
    return Paper(known, KIMIA_TEST_COUNTS, switches)


def strategy_settings(study: Study, strategy: str) -> Ours:
    """What a strategy's numbers depend on. Toggles are part of its variant, which the table names."""
    params, paper, chain = study.params, Study.published().params, trained_here(study, strategy)
    needed = {SEARCHED} | {CURRICULUM[earlier][0] for earlier in chain}
    keys = changed(params.model, paper.model, "model", ("model.backbone.weights", "model.toggles"))
    if chain:
        others = tuple(f"training.{s}" for s in CURRICULUM if s not in chain)
        keys |= changed(params.training, paper.training, "training", others)
    if "pannuke" in needed:
        keys |= changed(params.data.pannuke, paper.data.pannuke, "data.pannuke", ("data.pannuke.root",))
    return Ours(f"LGFFEM {strategy.upper()}", keys, needed)


def ours(study: Study) -> dict[str, Ours]:
    """Published row -> our method behind it: the strategies of Table 1, and LGFFEM in Table 2."""
    found = {strategy.upper(): strategy_settings(study, strategy) for strategy in CURRICULUM}
    return found | {"LGFFEM": found["C"]}
