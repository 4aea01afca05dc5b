"""The artefact map: each table and figure, the one notebook that makes it, and its files.

Stages, manifest, report and the README's table all read this list.
"""

from pathlib import Path
from typing import NamedTuple

FORMATS = {"tables": ("csv", "md", "tex"), "figures": ("png", "svg")}


class Artefact(NamedTuple):
    """A table or figure of a run."""

    title: str  # as the paper names it; artefacts that are not in the paper have a title of their own
    path: str  # "tables/table1": below results/<profile>, without a suffix
    notebook: str
    caption: str
    shows_patches: bool = False  # pictures of a user's own tissue stay on the user's machine

    def files(self, results: Path) -> list[Path]:
        """Its files below ``results``, one a format."""
        return [results / f"{self.path}.{kind}" for kind in FORMATS[self.path.split("/")[0]]]


ARTEFACTS = (
    Artefact(
        "Table 1",
        "tables/table1",
        "07_faiss_evaluation",
        "Strategies A, B and C under three retrieval protocols, beside the published values.",
    ),
    Artefact(
        "Table 2",
        "tables/table2",
        "07_faiss_evaluation",
        "LGFFEM and the baselines under three retrieval protocols. A published value stands in the row of the "
        "protocol it was computed under; where none is known, in a row of its own.",
    ),
    Artefact(
        "Figure 1",
        "figures/figure1",
        "08_grad_cam",
        "The architecture, drawn from the trained model: shapes, nodes, learned fusion weights.",
    ),
    Artefact(
        "Figure 2",
        "figures/figure2",
        "08_grad_cam",
        "The aggregators and the mini-head, drawn from the trained model, and the learned gates α.",
    ),
    Artefact(
        "Figure 3",
        "figures/figure3",
        "07_faiss_evaluation",
        "The first test patch of scan s0 and the patch that is retrieved for it.",
        True,
    ),
    Artefact(
        "Figure 4",
        "figures/figure4",
        "08_grad_cam",
        "Grad-CAM++ at the fused nodes of neck layer 1, and their collapse.",
        True,
    ),
    Artefact(
        "Figure 5",
        "figures/figure5",
        "08_grad_cam",
        "Grad-CAM++ at the fused nodes of neck layer 2, and their collapse.",
        True,
    ),
    Artefact(
        "Figure 6",
        "figures/figure6",
        "08_grad_cam",
        "Grad-CAM++ at the fused nodes of neck layer 3, and their collapse.",
        True,
    ),
    Artefact(
        "Figure 7",
        "figures/figure7",
        "09_projection",
        "The test embeddings in two dimensions, coloured by scan: strategy C, as in the paper, with A and B beside it.",
    ),
    Artefact(
        "Protocols",
        "figures/protocols",
        "07_faiss_evaluation",
        "The same embeddings scored under three protocols, with 95 % intervals.",
    ),
    Artefact(
        "Gallery",
        "figures/gallery",
        "07_faiss_evaluation",
        "One query a scan and its five nearest patches; blue frames share the query's scan, vermilion ones do not.",
        True,
    ),
    Artefact(
        "Data report",
        "tables/data_report",
        "01_data_preparation",
        "The files of each data set that were examined, the faulty ones that were left out, what is worth knowing, and "
        "which other files are there.",
    ),
    Artefact(
        "Audit: protocols",
        "tables/audit_protocols",
        "10_protocol_audit",
        "Every method under three protocols, with intervals over patches, scans and seeds, and chance.",
    ),
    Artefact(
        "Audit: one ranking",
        "figures/audit_ranking",
        "10_protocol_audit",
        "One scan's ranking as each protocol reads it, and how far `released` reads in the ranking of every scan.",
        True,
    ),
    Artefact(
        "Audit: degradation",
        "figures/audit_degradation",
        "10_protocol_audit",
        "The score under `released` against top-1 accuracy, as embeddings degrade from perfect to random.",
    ),
    Artefact(
        "Audit: file order",
        "figures/audit_order",
        "10_protocol_audit",
        "The score under `released` of the same embeddings, with the scans rotated and with other first patches.",
    ),
    Artefact(
        "Audit: beyond the first neighbour",
        "tables/audit_ranks",
        "10_protocol_audit",
        "Hit rate, recall, precision, mAP, majority vote and macro-F1 of every method on the same ranking.",
    ),
    Artefact(
        "Audit: comparisons",
        "tables/audit_comparisons",
        "10_protocol_audit",
        "Strategy C against every other method on the same queries: difference, two p-values, corrected by Holm.",
    ),
    Artefact(
        "Audit: floors",
        "tables/audit_floors",
        "10_protocol_audit",
        "What descriptors without training reach, and what is left without colour or with the stain made alike.",
    ),
    Artefact(
        "Audit: leakage",
        "tables/audit_leakage",
        "10_protocol_audit",
        "Patches that occur twice or overlap, and the scores without the test patches that they concern.",
    ),
    Artefact(
        "Audit: generality",
        "tables/audit_generality",
        "10_protocol_audit",
        "What specialising costs elsewhere: each strategy on photographs, tissue tiles and scans.",
    ),
    Artefact(
        "Audit: verdicts",
        "tables/verdicts",
        "10_protocol_audit",
        "Each published number beside ours, under its own and under the standard protocol; verdicts by a written rule.",
    ),
    Artefact(
        "Ledger",
        "tables/audit_ledger",
        "11_ledger",
        "Text beside released code, row by row, each switched alone: the difference it makes, beside a seed's.",
    ),
)
