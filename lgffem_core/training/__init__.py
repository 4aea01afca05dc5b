"""Training of the strategies A, B and C (paper, section 4.1.3).

``train_strategy`` is the one entry: notebooks call it, and so does ``python -m lgffem_core.training``
(alone or under torchrun).
"""

from lgffem_core.training.run import TrainedStrategy, train_or_load, train_strategy

__all__ = ["TrainedStrategy", "train_or_load", "train_strategy"]
