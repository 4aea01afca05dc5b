"""How far descriptors without training come, and what is left of every score without the stain."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from lgffem_core.audit import floors
from lgffem_core.audit.verdicts import scan_ends
from lgffem_core.base.seeds import derive_seed
from lgffem_core.config.params import PROTOCOLS
from lgffem_core.config.study import Study
from lgffem_core.data import images_root, patch_table
from lgffem_core.data.augment import evaluation_resize
from lgffem_core.data.loading import read_rgb
from lgffem_core.model.device import precision_of, prepare_device
from lgffem_core.model.features import kept_features
from lgffem_core.report.tables import DECIMALS
from lgffem_core.retrieval.encoder import Encoder, embed_images
from lgffem_core.retrieval.protocols import evaluate
from lgffem_core.retrieval.statistics import BCA, WIDTHLESS

Descriptors = dict[str, Callable[[floors.Images], np.ndarray]]

FLOOR_NOTE = (
    "Percent. Queries and searched patches are under the same condition; `unchanged` counts "
    f"patches that it could not be applied to. eta_p_low, eta_p_high: 95 % interval over scans ({BCA}). {WIDTHLESS}"
)


def dataset_images(study: Study, dataset: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """A set's patches, uint8 (H, W, 3), their labels (N,) and which are test patches (N,), in table order.

    Patches larger than model.image_size are reduced to it.
    """
    patches, side = patch_table(study, dataset), study.params.model.image_size
    root, resize = images_root(study, dataset), evaluation_resize(side)
    images = (read_rgb(root / path) for path in patches["path"])
    small = [resize(image, 0) if max(image.shape) > side else image for image in images]
    return small, patches["label_id"].to_numpy(), (patches["split"] == "test").to_numpy()


def descriptors(study: Study, encoder: Encoder) -> Descriptors:
    """The floors by name, and the trained encoder, which should exceed them."""
    seed, settings = study.params.seeds[0], study.params.model.backbone
    compute = study.params.compute
    device, precision = prepare_device(compute), precision_of(compute)
    embed = partial(embed_images, batch_size=study.params.retrieval.batch_size, device=device, precision=precision)
    # The trained encoder's backbone is the frozen one, and its maps are kept by the batch: both take ``embed_table``'s.
    again = partial(embed, features=partial(kept_features, study))
    found = {
        "mean colour": floors.mean_colour,
        "RGB histogram": floors.rgb_histogram,
        "colours together": lambda images: floors.hellinger(floors.rgb_histogram(images, joint=True)),
        "stain histogram": lambda images: floors.hellinger(floors.stain_histogram(images)),
    }
    untrained = floors.backbone_encoder(study, derive_seed("untrained", seed), untrained=True)
    found[untrained.label] = partial(embed, untrained)
    if settings.pretrained or settings.weights:
        frozen = floors.backbone_encoder(study, seed)
        found[frozen.label] = partial(again, frozen)
    return found | {encoder.label: partial(again, encoder)}


def conditions(images: floors.Images, jitter: float = 0.2) -> dict[str, floors.Conditioned]:
    """The images under each condition.

    Normalisers take the patch with stain that is nearest to the mean colour. Raises ``ValueError`` where none has any.
    """
    colours = floors.mean_colour(images)
    nearest = np.argsort(np.linalg.norm(colours - colours.mean(axis=0), axis=1), kind="stable")
    reference = next((images[i] for i in nearest if floors.has_stain(images[i])), images[nearest[0]])
    numbers = iter(range(len(images)))

    def jittered(image):
        return floors.stain_jitter(image, derive_seed("jitter", next(numbers)), jitter)

    found = {
        "as they are": lambda image: image,
        "grey": floors.without_colour,
        "Macenko": floors.macenko(reference),
        "Reinhard": floors.reinhard(reference),
        f"stain jitter {jitter}": jittered,
    }
    return {name: floors.under(condition, images) for name, condition in found.items()}


def lost_without_stain(scores: pd.DataFrame, name: str) -> tuple[pd.DataFrame, list[str]]:
    """What each descriptor loses under each condition, in points, and a sentence a condition on that called ``name``.

    ``scores`` are η_p in percent: a row for each descriptor, a column for each condition, the untouched images first.
    The sentence names those that lose less, and those that score higher under the condition. ``scores`` being rounded,
    two losses are the same to the last digit but one.
    """
    lost, said = scores.iloc[:, 1:].rsub(scores.iloc[:, 0], axis=0), []
    for condition, own in lost.loc[name].items():
        less, changed = lost[condition], scores[condition]
        better = {
            "lose less": less.index[less < own - 2 * 10**-DECIMALS],
            "score higher": changed.index[changed > changed[name]],
        }
        named = "; ".join(f"{what}: {', '.join(names) or 'none'}" for what, names in better.items())
        said.append(f"{condition}: {name} loses {own:.2f} points, to {changed[name]:.2f}. Of the others {named}.")
    return lost.round(DECIMALS), said


def floor_table(
    study: Study, found: Descriptors, images: floors.Images, labels: np.ndarray, test: np.ndarray
) -> pd.DataFrame:
    """Every descriptor under every condition, by every protocol.

    Args:
        images: of training and test; labels: (N,) theirs; test: (N,) bool.
    """
    rows = []
    for condition, changed in conditions(images).items():
        for name, describe in found.items():
            values = describe(changed.images)
            for protocol in PROTOCOLS:
                outcome = evaluate(protocol, values, labels, test)
                rows.append(
                    {"descriptor": name, "condition": condition, "unchanged": int(changed.unchanged.sum())}
                    | {"protocol": protocol, **outcome.scores._asdict()}
                    | scan_ends([outcome], study.params.retrieval.bootstrap)
                )
    return pd.DataFrame(rows).round(DECIMALS)
