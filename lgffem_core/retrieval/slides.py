"""One slide's tiles, embedded and written as a record, in memory that does not grow with their number.

Tiles are read, embedded and forgotten batch by batch. Their features are appended to a file without a name, which is
gone with the process however that ends, and from which the record is then written.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from lgffem_core.base.errors import StudyError, plain
from lgffem_core.base.progress import clock
from lgffem_core.config.params import Compute
from lgffem_core.data.loading import make_loader, normalise
from lgffem_core.data.records import Record, anchors, write_record
from lgffem_core.data.slides.reports import Said
from lgffem_core.model.device import precision_of, prepare_device
from lgffem_core.retrieval.encoder import Encoder, embed_each, input_statistics

STORED = np.float16  # as in the one real record; the numbers of a network's features need no more
EVERY = 20.0  # seconds between lines of progress


class TileImages(Dataset):
    """Tiles as an encoder's network takes them: item ``number`` is (3, S, S) float32."""

    def __init__(self, tiles: Sequence[np.ndarray], encoder: Encoder, statistics: tuple):
        self.tiles, self.transform, self.statistics = tiles, encoder.transform, statistics

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, number: int) -> Tensor:
        return normalise(self.transform(self.tiles[number], 0), *self.statistics)


def write_slide(
    path: Path, name: str, said: Said, tiles, encoder: Encoder, batch_size: int, compute: Compute, tell: Callable
) -> Record:
    """Embed ``tiles`` and write the record of slide ``name`` to ``path``; ``tell`` is given lines of progress.

    ``StudyError`` where a tile cannot be read, or its features are not finite; then there is no new file.
    """
    with tempfile.TemporaryFile(dir=path.parent) as file:
        features = appended(file, told(embeddings(tiles, encoder, batch_size, compute), len(tiles), tell), len(tiles))
        record = Record(
            slide=name,
            features=features,
            positions=tiles.positions,
            anchors=anchors(tiles.positions),
            **said._asdict(),
            mpp=tiles.mpp,
            patch_pixels=tiles.pixels,
            encoder=f"{encoder.label} {encoder.identity[:16]}",
        )
        write_record(path, record)
    return record


def embeddings(tiles, encoder: Encoder, batch_size: int, compute: Compute) -> Iterator[np.ndarray]:
    """The features of ``tiles``, (n, D) float32 a batch, on the GPU where there is one."""
    device, network = prepare_device(compute), encoder.network()
    images = TileImages(tiles, encoder, input_statistics(network))
    batches = [list(range(start, min(start + batch_size, len(tiles)))) for start in range(0, len(tiles), batch_size)]
    loader = make_loader(images, batches, compute.workers)
    try:
        for found in embed_each(network, loader, device, precision_of(compute)):
            yield found.cpu().numpy()
    except StudyError as error:  # of a worker process it comes with its traceback
        raise StudyError(plain(str(error))) from None


def told(batches: Iterable[np.ndarray], count: int, tell: Callable[[str], None]) -> Iterator[np.ndarray]:
    """``batches`` as they come, with a line now and then: how many of ``count`` tiles, how fast, how long still."""
    start = last = time.monotonic()
    done = 0
    for batch in batches:
        yield batch
        done, now = done + len(batch), time.monotonic()
        if now - last > EVERY and done < count:
            last, rate = now, done / (now - start)
            tell(f"  {done:,} of {count:,} tiles, {rate:.0f} a second, {clock((count - done) / rate)} left")


def appended(file, batches: Iterable[np.ndarray], count: int) -> np.ndarray:
    """``batches`` (n, D) written to ``file`` one behind the other, as one array (count, D) that lies in the file."""
    for batch in batches:
        with np.errstate(over="ignore"):  # a number beyond it becomes infinite, which a sound record may not hold
            file.write(np.ascontiguousarray(batch, dtype=STORED).data)
        width = batch.shape[1]
    file.flush()
    return np.memmap(file, STORED, "r+", shape=(count, width))
