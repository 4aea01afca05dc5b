"""Training of MA + MS-loss, the one baseline of Table 2 that is trained.

The recipe of its released code: SGD with momentum, a tenth of the rate every so many epochs, batches from a plain
shuffle. A batch need not hold two patches of a scan; anchors without a pair then add nothing to its loss. That
code trains on 90 % of the training patches and keeps the epoch of the lowest loss on the others (ledger 22); here
all are trained on, and the last epoch is kept.
"""

from functools import partial

import torch
from lightning_fabric import Fabric

from lgffem_core.base.errors import RequestError
from lgffem_core.base.files import sha256_json, sha256_table
from lgffem_core.base.tensors import load_tensors
from lgffem_core.config.study import SEARCHED, Study
from lgffem_core.config.systems import MixedAttention
from lgffem_core.data import channel_order, check_unchanged
from lgffem_core.data.augment import Augment, crops_of_resized
from lgffem_core.data.loading import PatchDataset
from lgffem_core.model.weights import start_hash
from lgffem_core.systems.baselines.networks import MixedAttentionNet, build_mixed_attention
from lgffem_core.training.fabric import make_fabric
from lgffem_core.training.finished import TrainedRun, train_once
from lgffem_core.training.loop import Recipe, Trainer, labelled_images
from lgffem_core.training.losses import MultiSimilarity
from lgffem_core.training.patches import training_patches, training_set
from lgffem_core.training.schedule import step_decay

RESIZED, CROPPED = 300, 224  # pixels a side in the publication, which says bicubic; see ``crops_of_resized``


def crop_size(study: Study) -> int:
    """Pixels a side of the images that MA + MS-loss sees."""
    return study.params.baselines.ma_ms.image_size or study.params.model.image_size


def ma_ms_transform(size: int, training: bool) -> Augment:
    """What MA + MS-loss sees of a patch resized in the publication's proportion: crops of ``size``, or the centre."""
    return crops_of_resized(round(size * RESIZED / CROPPED), size, at_random=training)


def mixed_attention_patches(study: Study, seed: int) -> PatchDataset:
    """Kimia's training patches as MA + MS-loss trains on them: cropped, flipped, in [0, 1]."""
    table, augment = training_set(study, SEARCHED), ma_ms_transform(crop_size(study), training=True)
    return training_patches(study, SEARCHED, table, augment, MixedAttentionNet, seed)


def mixed_attention_recipe(settings: MixedAttention) -> Recipe:
    """SGD and StepLR with the values of ``baselines.ma_ms``; the loss has no parameters, gradients are not clipped."""
    return Recipe(
        name="ma_ms",
        title="MA + MS-loss",
        lr_key="baselines.ma_ms.lr",
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        rate=lambda step, steps: step_decay(step // steps, settings.lr, settings.step_epochs),
        optimizer=partial(torch.optim.SGD, lr=settings.lr, momentum=settings.momentum),
    )


def mixed_attention_fingerprint(study: Study, seed: int) -> str:
    """Hash of everything that the trained weights of MA + MS-loss depend on."""
    settings = study.params.baselines.ma_ms
    return sha256_json(
        {
            "baseline": "ma_ms",
            "seed": seed,
            "settings": settings.model_dump(mode="json", exclude={"weights"}),
            "weights": start_hash(study, "baselines.ma_ms", settings.network),
            "size": crop_size(study),
            "data": sha256_table(training_set(study, SEARCHED)),
            "order": channel_order(study, SEARCHED),
            **study.computed_by(__name__),
        }
    )


def train_mixed_attention(study: Study, seed: int, fabric: Fabric | None = None) -> TrainedRun:
    """Train MA + MS-loss, kept in ``study.baseline("ma_ms", seed)``; what is done is not done again.

    Pairs are mined within a batch, so that processes cannot share one: ``RequestError`` where there are several.
    """
    fabric = fabric or make_fabric(study)
    if fabric.world_size > 1:
        raise RequestError("baselines.ma_ms: pairs are mined within a batch; train it in one process.")
    model, folder = build_mixed_attention(study, seed), study.baseline("ma_ms", seed)
    identity = mixed_attention_fingerprint(study, seed)

    def train() -> tuple[dict, list[dict]]:
        check_unchanged(study, SEARCHED)
        settings, patches = study.params.baselines.ma_ms, mixed_attention_patches(study, seed)
        parts = {"model": model, "loss": MultiSimilarity(settings)}
        trainer = Trainer(fabric, mixed_attention_recipe(settings), parts, labelled_images, seed)
        history = trainer.fit(patches, folder, identity, study.params.compute)
        return model.state_dict(), history

    return train_once(fabric, folder, identity, train)


def train_or_load_mixed_attention(study: Study, seed: int) -> MixedAttentionNet:
    """The network with its trained weights, training it if that has not been done yet."""
    trained = train_mixed_attention(study, seed)
    model = build_mixed_attention(study, seed)
    model.load_state_dict(load_tensors(trained.weights)[0])
    return model.eval()
