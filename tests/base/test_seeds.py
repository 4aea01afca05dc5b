"""Seeds: the same everywhere and for ever, and different for different purposes."""

import hashlib
import subprocess
import sys

from lgffem_core.base.seeds import derive_seed


def test_a_seed_is_the_first_four_bytes_of_the_parts_hash():
    digest = hashlib.sha256(b"'order'/0/7").digest()
    assert derive_seed("order", 0, 7) == sum(byte << 8 * i for i, byte in enumerate(digest[:4]))


def test_another_process_derives_the_same_seed():
    code = "from lgffem_core.base.seeds import derive_seed; print(derive_seed('augment', 1, 2, 3))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == derive_seed("augment", 1, 2, 3)


def test_each_part_matters_and_so_does_where_one_ends():
    seeds = [derive_seed(*parts) for parts in [("a", 1, 2), ("a", 2, 1), ("a", 12), ("b", 1, 2), ("a", "1", 2), ("a",)]]
    assert len(set(seeds)) == len(seeds)


def test_seeds_of_a_run_do_not_repeat():
    seeds = {derive_seed("augment", 0, epoch, sample) for epoch in range(20) for sample in range(200)}
    assert len(seeds) == 4000 and max(seeds) < 2**32
