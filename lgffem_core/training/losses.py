"""The training loss: Sub-center ArcFace (Deng et al., ECCV 2020) from pytorch-metric-learning."""

from pytorch_metric_learning.losses import SubCenterArcFaceLoss

from lgffem_core.params import Loss
from lgffem_core.study import VariantSettings


def sub_center_arcface(loss: Loss, classes: int, embedding_size: int, variant: VariantSettings) -> SubCenterArcFaceLoss:
    """The loss over (N, embedding_size) embeddings and N labels in [0, classes).

    s·cos(θ + m) for the nearest of an own class's K centers, s·cos θ for the others, in a softmax
    cross-entropy; m in degrees. The released code passes the margin as the scale too (ledger row 2).
    """
    scale = loss.margin if variant.loss_scale == "margin" else loss.scale
    return SubCenterArcFaceLoss(
        num_classes=classes,
        embedding_size=embedding_size,
        margin=loss.margin,
        scale=scale,
        sub_centers=loss.sub_centers,
    )
