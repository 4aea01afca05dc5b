"""The audit's tables: every method under every protocol, floors, leakage, paired comparisons.

A method is (name, variant), and what is known of it a list with one entry a seed, as for Tables 1 and 2.
"""

import importlib.util
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from lgffem_core.data import images_root, patch_table
from lgffem_core.data.audit import clean, leakage
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import read_rgb
from lgffem_core.model.backbone import Backbone
from lgffem_core.report.tables import DECIMALS
from lgffem_core.report.verdicts import OVER_SCANS
from lgffem_core.retrieval import floors
from lgffem_core.retrieval.barcodes import barcode
from lgffem_core.retrieval.baselines import (
    BARCODE,
    DENSENET,
    MA_MS,
    Embedded,
    densenet_embeddings,
    densenet_variant,
    mixed_attention_embeddings,
    mixed_attention_variant,
)
from lgffem_core.retrieval.chance import chance
from lgffem_core.retrieval.comparison import holm, mcnemar_exact, paired_permutation
from lgffem_core.retrieval.embed import resized_inputs
from lgffem_core.retrieval.evaluation import strategy_embeddings
from lgffem_core.retrieval.metrics import Scores
from lgffem_core.retrieval.protocols import Outcome, evaluate, leave_one_out, released
from lgffem_core.retrieval.ranking import rank_others, ranking_scores
from lgffem_core.retrieval.statistics import patch_interval, scan_interval, seed_interval
from lgffem_core.seeds import derive_seed
from lgffem_core.study import CURRICULUM, Study
from lgffem_core.training import load_trained

Methods = dict[tuple[str, str], list[Embedded]]
Outcomes = dict[tuple[str, str, str], list[Outcome]]
Descriptors = dict[str, Callable[[floors.Images], np.ndarray]]

PROTOCOL_NOTE = (
    "Percent. eta_p_low, eta_p_high: 95 % interval of eta_p over patches (BCa), none where patches do not ask for "
    "themselves; scan_low, scan_high: over scans (BCa; 89 to 95 % with 24 scans), the one to go by, as patches of a "
    "scan are alike; seed_half_width: over seeds, empty for one. chance_*: expected of random embeddings."
)
FLOOR_NOTE = (
    "Percent, on the test patches. Queries and searched patches are under the same condition; `unchanged` counts "
    "patches that it could not be applied to. eta_p_low, eta_p_high: 95 % interval over scans (BCa)."
)
LEAKAGE_NOTE = (
    "train, across, test: pairs of patches that show the same tissue, within the training patches, across, and within "
    "the test patches. Percent: strategy C once `removed` test patches are left out, one of each pair within the test "
    "patches and each that has a pair in training; 95 % interval of eta_p over scans (BCa)."
)


def methods(study: Study) -> Methods:
    """Embeddings of Kimia's patches by every strategy and baseline of the profile, one entry a seed."""
    found: Methods = {}
    for variant in study.params.variants:
        for strategy in CURRICULUM:
            runs = [strategy_embeddings(study, strategy, variant, seed) for seed in study.params.seeds]
            found[f"LGFFEM {strategy.upper()}", study.variant_label(variant)] = runs
    features = [densenet_embeddings(study, seed) for seed in study.params.seeds]
    bits = [(barcode(values).astype(np.float32), *rest) for values, *rest in features]
    trained = [mixed_attention_embeddings(study, seed) for seed in study.params.seeds]
    baselines = {
        (DENSENET, densenet_variant(study)): features,
        (BARCODE, densenet_variant(study)): bits,
        (MA_MS, mixed_attention_variant(study)): trained,
    }
    return found | baselines


def evaluated(study: Study, embedded: Methods) -> Outcomes:
    """(method, variant, protocol) -> one outcome a seed, for every protocol of the profile."""
    protocols = study.params.retrieval.protocols
    return {(*key, p): [evaluate(p, *run) for run in runs] for key, runs in embedded.items() for p in protocols}


def protocol_table(study: Study, outcomes: Outcomes) -> pd.DataFrame:
    """Every method under every protocol: scores, intervals over patches, scans and seeds, and chance."""
    patches, rows = patch_table(study, "kimia"), []
    train = np.bincount(patches.loc[patches["split"] == "train", "label_id"])
    for (method, variant, protocol), runs in outcomes.items():
        counts = runs[0].counts
        expected = chance(protocol, counts, train)._asdict()
        rows.append(
            {"method": method, "variant": variant, "protocol": protocol}
            | {"seeds": " ".join(map(str, study.params.seeds))}
            | Scores(*np.mean([run.scores for run in runs], axis=0))._asdict()
            | spread(runs, study.params.retrieval.bootstrap)
            | {f"chance_{name}": value for name, value in expected.items()}
        )
    return pd.DataFrame(rows).round(DECIMALS)


def spread(runs: list[Outcome], resamples: int) -> dict[str, float]:
    """The intervals of η_p over patches, over scans and over seeds, as cells of a row."""
    low, high = np.nan, np.nan
    if runs[0].hits is not None:
        low, high = patch_interval(np.array([run.hits for run in runs]), resamples)
    scan_low, scan_high = scan_interval(np.array([run.correct for run in runs]), runs[0].counts, resamples, OVER_SCANS)
    half = seed_interval(np.array([run.scores.eta_p for run in runs])).half_width
    ends = {"eta_p_low": low, "eta_p_high": high, "scan_low": scan_low, "scan_high": scan_high}
    return ends | {"seed_half_width": half}


def ranking_table(embedded: Methods, ks: tuple[int, ...] = (1, 5, 10)) -> pd.DataFrame:
    """Beyond the first neighbour: ``ranking_scores`` of every method under ``leave_one_out``, means over seeds."""
    rows = []
    for (method, variant), runs in embedded.items():
        size = min(int(test.sum()) - 1 for _, _, test in runs)
        depths = tuple(k for k in ks if k <= size)
        scores = [
            ranking_scores(
                rank_others(values[test], labels[test], max(depths)), depths, tuple(k for k in depths if k > 1)
            )
            for values, labels, test in runs
        ]
        rows.append({"method": method, "variant": variant} | pd.DataFrame(scores).mean().to_dict())
    return pd.DataFrame(rows).round(DECIMALS)


def comparison_table(outcomes: Outcomes, best: tuple[str, str], protocol: str = "leave_one_out") -> pd.DataFrame:
    """One method against every other on the same queries: differences of η_p in points, and p-values.

    ``p_patches`` is McNemar's, of the first seed; ``p_scans`` flips whole scans, seeds averaged, and is the one
    to go by. Both are adjusted by Holm for all comparisons of the table.
    """
    chosen, rows = outcomes[(*best, protocol)], []
    for (method, variant, name), runs in outcomes.items():
        if name != protocol or (method, variant) == best:
            continue
        rates = [np.array([run.correct / run.counts for run in group]) for group in (chosen, runs)]
        gain = np.mean([run.scores.eta_p for run in chosen]) - np.mean([run.scores.eta_p for run in runs])
        rows.append(
            {"method": best[0], "against": method, "variant": variant, "difference": round(float(gain), DECIMALS)}
            | {"p_patches": mcnemar_exact(chosen[0].hits, runs[0].hits), "p_scans": paired_permutation(*rates)}
        )
    table = pd.DataFrame(rows)
    return table.assign(**{name: holm(table[name]) for name in ("p_patches", "p_scans")})


def test_images(study: Study) -> tuple[list[np.ndarray], np.ndarray]:
    """Kimia's test patches, uint8 (H, W, 3), and their scans (N,); larger ones reduced to model.image_size."""
    patches, side = patch_table(study, "kimia").query("split == 'test'"), study.params.model.image_size
    root, resize = images_root(study, "kimia"), evaluation_resize(side)
    images = (read_rgb(root / path) for path in patches["path"])
    return [resize(image, 0) if max(image.shape) > side else image for image in images], patches["label_id"].to_numpy()


test_images.__test__ = False  # not a test, to pytest


def descriptors(study: Study) -> Descriptors:
    """The floors by name, and LGFFEM after strategy C (first variant, first seed), which should exceed them."""
    variant, seed = study.params.variants[0], study.params.seeds[0]
    on_gpu = torch.cuda.is_available() and study.params.compute.device != "cpu"
    device, size, settings = "cuda" if on_gpu else "cpu", study.params.model.image_size, study.params.model.backbone
    model = load_trained(study, "c", variant, seed).to(device)
    torch.manual_seed(derive_seed("untrained", seed))
    untrained = Backbone(settings.model_copy(update={"pretrained": False, "weights": None})).to(device)
    found = {
        "mean colour": floors.mean_colour,
        "RGB histogram": lambda images: floors.hellinger(floors.rgb_histogram(images)),
        "stain histogram": lambda images: floors.hellinger(floors.stain_histogram(images)),
        "untrained backbone": floors.pooled_backbone(untrained, size),
    }
    if settings.pretrained or settings.weights:
        found["frozen backbone"] = floors.pooled_backbone(model.backbone, size)
    return found | {"LGFFEM C": embedding(study, model)}


def embedding(study: Study, model: torch.nn.Module) -> Callable[[floors.Images], np.ndarray]:
    """A trained model as a descriptor of images, prepared as for every other evaluation."""
    inputs, device = resized_inputs(study, model), next(model.parameters()).device

    @torch.no_grad()
    def describe(images: floors.Images) -> np.ndarray:
        size, rows = study.params.retrieval.batch_size, []
        for start in range(0, len(images), size):
            batch = [
                floors.normalise(inputs.transform(i, 0), inputs.mean, inputs.std) for i in images[start : start + size]
            ]
            rows.append(model(torch.stack(batch).to(device)).float().cpu().numpy())
        return np.concatenate(rows)

    return describe


def has_normalisers() -> bool:
    """Whether torchstain, which Macenko's and Reinhard's normalisation come from, is installed."""
    return importlib.util.find_spec("torchstain") is not None


def floor_note() -> str:
    """``FLOOR_NOTE``, and which conditions are missing where torchstain is."""
    return (
        FLOOR_NOTE if has_normalisers() else f"{FLOOR_NOTE} Without Macenko and Reinhard: torchstain is not installed."
    )


def conditions(images: floors.Images, jitter: float = 0.2) -> dict[str, floors.Conditioned]:
    """The images under each condition; those of torchstain only where it is installed, see ``floor_note``.

    Normalisers take the patch with stain that is nearest to the mean colour. Raises ``ValueError`` where none has any.
    """
    colours = floors.mean_colour(images)
    nearest = np.argsort(np.linalg.norm(colours - colours.mean(axis=0), axis=1), kind="stable")
    reference = next((images[i] for i in nearest if floors.has_stain(images[i])), images[nearest[0]])
    numbers = iter(range(len(images)))
    found = {"as they are": lambda image: image, "grey": floors.grey}
    if has_normalisers():
        found |= {"Macenko": floors.macenko(reference), "Reinhard": floors.reinhard(reference)}
    found[f"stain jitter {jitter}"] = lambda image: floors.stain_jitter(
        image, derive_seed("jitter", next(numbers)), jitter
    )
    return {name: floors.under(condition, images) for name, condition in found.items()}


def floor_table(study: Study, found: Descriptors, images: floors.Images, labels: np.ndarray) -> pd.DataFrame:
    """Every descriptor under every condition, by ``leave_one_out`` and ``released`` on the test patches."""
    rows = []
    for condition, changed in conditions(images).items():
        for name, describe in found.items():
            values = describe(changed.images)
            for protocol in (leave_one_out, released):
                outcome = protocol(values, labels)
                low, high = scan_interval(outcome.correct, outcome.counts, study.params.retrieval.bootstrap, OVER_SCANS)
                rows.append(
                    {"descriptor": name, "condition": condition, "unchanged": int(changed.unchanged.sum())}
                    | {"protocol": protocol.__name__, **outcome.scores._asdict(), "eta_p_low": low, "eta_p_high": high}
                )
    return pd.DataFrame(rows).round(DECIMALS)


def leakage_table(study: Study, pairs: pd.DataFrame, embedded: Embedded) -> pd.DataFrame:
    """Pairs of each kind by where they lie, and the scores without the test patches that they concern.

    Args:
        pairs: of ``near_duplicates`` on Kimia's patches in table order; embedded: theirs by one model.
    """
    values, labels, test = embedded
    found, rows = leakage(pairs, test), []
    for kind in ("none", *found.index, "any"):
        concerned = pairs if kind == "any" else pairs[pairs["kind"] == kind]
        kept = clean(concerned, test)
        inside = {"any": found.sum(), "none": found.sum() * 0}.get(kind)
        counted = (found.loc[kind] if inside is None else inside).astype(int).to_dict()
        for name in ("test_to_train", "leave_one_out"):
            rows.append(
                {"kind": kind, **counted, "removed": int((~kept).sum()), "protocol": name}
                | without(name, values, labels, test, kept, study.params.retrieval.bootstrap)
            )
    return pd.DataFrame(rows).round(DECIMALS)


def without(
    protocol: str, values: np.ndarray, labels: np.ndarray, test: np.ndarray, kept: np.ndarray, resamples: int
) -> dict[str, float]:
    """Scores and interval on the patches that are kept, (N,) bool; NaN where fewer than two scans are left."""
    if len(np.unique(labels[test & kept])) < 2:
        return dict.fromkeys((*Scores._fields, "eta_p_low", "eta_p_high"), np.nan)
    outcome = evaluate(protocol, values[kept], labels[kept], test[kept])
    low, high = scan_interval(outcome.correct, outcome.counts, resamples, OVER_SCANS)
    return {**outcome.scores._asdict(), "eta_p_low": low, "eta_p_high": high}
