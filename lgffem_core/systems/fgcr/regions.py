"""The region-level task: a finding is named, and an anchor of the slide is pointed at. Is it there?

It can be scored where a record says which patch shows what, as synthetic slides do. Nothing of that is ever trained on.
"""

import numpy as np
import pandas as pd

from lgffem_core.data.records import Record
from lgffem_core.systems.fgcr.archive import Archive
from lgffem_core.systems.fgcr.losses import anchor_scores
from lgffem_core.systems.fgcr.model import Output

COLUMNS = ("slide", "finding", "hit", "share")


def pointed(archive: Archive, scores: list[np.ndarray]) -> pd.DataFrame:
    """A row for each test slide and finding that some anchor's patch shows and some does not.

    Args:
        scores: of each test slide, how much each anchor looks like each prompt: (A, P).

    Columns: ``hit``, 1 where the best anchor's patch shows the finding; ``share`` of the anchors' patches that do,
    which is what pointing at random would hit. Without findings in the records there are no rows.
    """
    rows = []
    for number, (record, looks) in enumerate(zip(archive.of("test"), scores, strict=True)):
        for name, shows in shown_by_anchors(record).items():
            if 0 < shows.mean() < 1:
                best = looks[:, archive.tokenizer.prompts.index(name)].argmax()
                rows.append((number, name, float(shows[best]), float(shows.mean())))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def shown_by_anchors(record: Record) -> dict[str, np.ndarray]:
    """Finding -> which anchors' own patches show it, (A,) bool; of a record that does not say so, nothing."""
    if record.findings is None:
        return {}
    own = record.findings[np.concatenate(record.anchors)]
    return {name: own == row for row, name in enumerate(record.prompts)}


def model_scores(found: list[Output]) -> list[np.ndarray]:
    """A trained model's scores of anchors and prompts, for ``pointed``."""
    return [anchor_scores(output.anchors[None], output.prompts, 1.0)[0].numpy() for output in found]


def by_slide(table: pd.DataFrame, column: str, slides: int) -> np.ndarray:
    """Sum of a column within each slide: (slides,); findings of one slide are not independent."""
    return np.bincount(table["slide"], table[column], minlength=slides)
