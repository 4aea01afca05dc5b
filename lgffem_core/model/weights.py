"""Which weights a network starts from, by their content: part of what trained weights and embeddings are known by."""

import hashlib
import json
from functools import cache

from torch import nn

from lgffem_core.base.files import sha256_file, write_json
from lgffem_core.config.study import Study
from lgffem_core.model.backbone import create_model
from lgffem_core.model.packaged import packaged_weights, weights_source


def state_hash(network: nn.Module) -> str:
    """SHA-256 over a network's weights and buffers, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


@cache
def hub_hash(name: str, key: str, options: str) -> str:
    """``state_hash`` of what the hub has under timm's ``name`` now; ``options`` of timm's as JSON."""
    return state_hash(create_model(name, True, key, num_classes=0, **json.loads(options)))


def start_hash(study: Study, key: str, name: str) -> str | None:
    """SHA-256 of the weights that a network starts from; None where they are drawn at random.

    Args:
        key: section of the parameters, "model.backbone", "baselines.densenet121" or "baselines.ma_ms".
        name: timm's name of the network.

    A file, also a package's, counts by its bytes. What the hub gives may be another thing tomorrow under the same
    name: it counts by the weights as loaded, and is noted for the manifest.
    """
    section, leaf = key.split(".")
    settings = getattr(getattr(study.params, section), leaf)
    source = weights_source(name, settings)
    if source == "file":
        return sha256_file(study.resolve(settings.weights))
    if source == "random":
        return None
    if source == "package":
        return packaged_weights(name, key).sha256
    digest = hub_hash(name, key, json.dumps(getattr(settings, "options", {}), sort_keys=True))
    write_json(study.downloaded(key), {"network": name, "sha256": digest})
    return digest
