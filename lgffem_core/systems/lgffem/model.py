"""LGFFEM: backbone, neck and head in one module (paper, figure 1)."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lgffem_core.base.errors import RequestError
from lgffem_core.config.params import Model, Toggles
from lgffem_core.config.study import Study
from lgffem_core.model.backbone import Backbone
from lgffem_core.model.device import precision_of, prepare_device
from lgffem_core.systems.lgffem.head import GeMHead, MiniHead
from lgffem_core.systems.lgffem.neck import FusionNode, LateralProjection, Neck


class LGFFEM(nn.Module):
    """The embedding model. Only neck and head are trained; the backbone is frozen and stays in eval mode.

    Args:
        backbone: a module that gives four feature maps, with ``channels``.
        neck, head: built for those channels.
        normalize: L2-normalise the embedding, which neither text nor code do (ledger row 12). The training loss
            is angular and does not see the difference; a Euclidean search does.
    """

    blocks = (LateralProjection, FusionNode, MiniHead)  # what is compiled as one, see ``model.compiled``

    def __init__(self, backbone: nn.Module, neck: Neck, head: GeMHead, normalize: bool):
        super().__init__()
        self.backbone, self.neck, self.head, self.normalize = backbone, neck, head, normalize

    def forward(self, images: Tensor) -> Tensor:  # (N, 3, S, S), normalised -> (N, 4·C) float32
        with torch.no_grad():
            stages = self.backbone(images)
        embedding = self.head(self.neck(stages)).float()
        return F.normalize(embedding, dim=1) if self.normalize else embedding

    def trainable_state(self) -> dict[str, Tensor]:
        """Weights and buffers of neck and head, by name: what a checkpoint holds."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("backbone.")}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Load what ``trainable_state`` gave; a missing or unknown weight is an error."""
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = [name for name in missing if not name.startswith("backbone.")]
        if missing or unexpected:
            raise RequestError(
                f"the weights do not fit this model: missing {missing[:3]}, not known {unexpected[:3]}; "
                "use the parameters that they were trained with (neck, head, toggles)."
            )

    def trainable_parameters(self) -> int:
        """Number of trained scalars (paper, section 4.1.2: 1.45e7; notebook 02 counts them part by part)."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)


@contextmanager
def untouched(model: nn.Module):
    """Put back every module's mode and every parameter's gradient, whatever changes them inside."""
    modes = {module: module.training for module in model.modules()}
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, gradient in gradients.items():
            parameter.grad = gradient


def assemble(backbone: nn.Module, model: Model, variant: Toggles) -> LGFFEM:
    """Neck and head of ``variant`` on top of a backbone."""
    neck = Neck(backbone.channels, **dict(model.neck), grn=variant.grn, fusion_relu=variant.fusion_relu)
    head = GeMHead(model.neck.channels, model.head.gem_p, model.head.gem_eps, variant.head_norm, model.head.dropout)
    return LGFFEM(backbone, neck, head, variant.normalize_embedding)


def build_model(study: Study, variant: str, seed: int) -> LGFFEM:
    """The model of a variant with freshly drawn neck and head; the same seed gives the same weights."""
    prepare_device(study.params.compute)  # here, since whoever has a model computes with it
    torch.manual_seed(seed)
    settings = study.params.model
    backbone = Backbone(settings.backbone, study.resolve(settings.backbone.weights), settings.image_size)
    torch.manual_seed(seed)  # the neck's draw does not depend on how the backbone was made
    model = assemble(backbone, settings, study.variant(variant)).to(memory_format=torch.channels_last)
    if precision_of(study.params.compute) == "bf16-mixed" and not backbone.exact:
        backbone.bfloat16()  # kept in what it computes in
    return model
