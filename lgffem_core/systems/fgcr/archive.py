"""The archive that FGCR is trained on and searches: records of slides, in the order of their index."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from lgffem_core.config.study import Study
from lgffem_core.data import images_root, patch_table
from lgffem_core.data.records import Record, read_record
from lgffem_core.systems.fgcr.batches import Batch, item
from lgffem_core.systems.fgcr.tokenizer import Tokenizer
from lgffem_core.systems.fgcr.wording import prompts_of, tokenizer_of, words_of


@dataclass(frozen=True)
class Archive:
    """Slides in memory, with what all of them share; ``load`` reads them.

    Args:
        table: their PatchTable, a row a slide.
        records: in its order.
        tokenizer: of the training slides' reports, and of all prompts.
        most: patches of a slide that are used at most.
    """

    table: pd.DataFrame
    records: list[Record]
    tokenizer: Tokenizer
    most: int

    @classmethod
    def load(cls, study: Study) -> "Archive":
        """All records of the data set ``reports``. ``StudyError`` where they do not go together."""
        table, root, settings = patch_table(study, "reports"), images_root(study, "reports"), study.params.fgcr
        records = [with_prompts(read_record(root / path), settings.prompts) for path in table["path"]]
        headers = [{**vars(record), "numbers": record.features.shape[1]} for record in records]
        slides = [words_of(of, split, settings.prompts) for of, split in zip(headers, table["split"], strict=True)]
        return cls(table, records, tokenizer_of(slides, settings), settings.patches)

    @property
    def features(self) -> int:
        """Numbers of a patch."""
        return self.records[0].features.shape[1]

    def of(self, split: str) -> list[Record]:
        """The records of a split, in the table's order."""
        return [record for record, own in zip(self.records, self.table["split"], strict=True) if own == split]

    @cached_property
    def every_item(self) -> list[Batch]:
        """All slides as the networks take them."""
        return [item(record, self.tokenizer, self.most) for record in self.records]

    def items(self, split: str) -> list[Batch]:
        """Those of a split."""
        return [one for one, own in zip(self.every_item, self.table["split"], strict=True) if own == split]

    def labels(self, split: str) -> np.ndarray:
        """The label number of each slide of a split."""
        return self.table.loc[self.table["split"] == split, "label_id"].to_numpy()


def with_prompts(record: Record, given: tuple[str, ...]) -> Record:
    """A record with its prompts, or those of ``given``; see ``prompts_of``."""
    return replace(record, prompts=prompts_of(record.report, record.prompts, given))
