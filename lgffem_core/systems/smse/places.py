"""What the six convolutions of SMSE leave of an image. Nothing here imports torch, so that a start can ask."""

from lgffem_core.base.errors import RequestError
from lgffem_core.config.systems import SMSE
from lgffem_core.config.watched import Watched

CONVOLUTIONS = 6
KERNEL, POOL = (3, 5), (2, 3)  # rows, columns
STRIDE = 2  # of a pooling


def places_left(settings: SMSE | Watched) -> tuple[int, int]:
    """Rows and columns behind the last: of 460 × 700 pixels, without padding, 5 × 6. ``RequestError`` for none."""
    height, width = settings.image_size
    sides = [height, width]
    for number in range(CONVOLUTIONS):
        if not settings.padded:
            sides = [side - kernel + 1 for side, kernel in zip(sides, KERNEL, strict=True)]
        if number < settings.pools:
            sides = [(side - pool) // STRIDE + 1 for side, pool in zip(sides, POOL, strict=True)]
        if min(sides) < 1:
            raise RequestError(
                f"smse.image_size: six convolutions leave nothing of {height} × {width} pixels; take larger images, or "
                "set smse.padded=true and fewer smse.pools."
            )
    return sides[0], sides[1]
