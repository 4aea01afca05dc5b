"""What a frozen backbone gave, kept in memory: a batch that it has seen before is not computed again.

A frozen network gives the same maps of the same images, so that kept ones are those that would be computed, to the
last bit, and no result depends on what is kept. They are known by the batch's values, by the weights and by the
precision, not by where the images came from: an augmented batch that comes again, as in the ledger's trainings, is
found as well as one that several models embed. Only what a processor computes is kept, not what a GPU does.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Maps = list[Tensor]  # 4 × (N, Cᵢ, Hᵢ, Wᵢ)
GIB = 1 << 30


class Features:
    """Maps of this process by what made them; the least recently used make room for others.

    Attributes:
        room: bytes that may be kept; 0 outside of ``keeping``.
    """

    def __init__(self):
        self.room, self.size = 0, 0
        self.maps: OrderedDict[bytes, Maps] = OrderedDict()
        self.weights: WeakKeyDictionary[nn.Module, bytes] = WeakKeyDictionary()

    @contextmanager
    def keeping(self, gib: float) -> Iterator[None]:
        """Keep up to ``gib`` GiB of what backbones give inside; their weights must not change there."""
        before, self.room = self.room, int(gib * GIB)
        try:
            yield
        finally:
            self.room = before
            self.weights.clear()

    def of(self, backbone: nn.Module, images: Tensor, compute: Callable[[], Maps]) -> Maps:
        """The maps of a batch (N, 3, S, S): kept ones, or else what ``compute()`` gives. They are not to be changed."""
        if not self.room or images.device.type != "cpu":
            return compute()
        key = self.key(backbone, images)
        if key in self.maps:
            self.maps.move_to_end(key)
            return self.maps[key]
        maps = compute()
        self.maps[key] = maps
        self.size += size_of(maps)
        while self.size > self.room:
            self.size -= size_of(self.maps.popitem(last=False)[1])
        return maps

    def key(self, backbone: nn.Module, images: Tensor) -> bytes:
        """Hash of all that a batch's maps depend on in one process."""
        if backbone not in self.weights:
            self.weights[backbone] = digest(repr(backbone).encode(), *backbone.state_dict().values())
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return digest(f"{images.shape} {images.dtype} {half}".encode(), self.weights[backbone], images)


def size_of(maps: Maps) -> int:
    """Bytes."""
    return sum(each.nbytes for each in maps)


def digest(*parts: bytes | Tensor) -> bytes:
    """SHA-256 over bytes and tensors."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part if isinstance(part, bytes) else part.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return found.digest()


FEATURES = Features()  # of this process
