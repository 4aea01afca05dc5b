"""Make a tuning copy of a Kimia-layout folder from its training patches alone.

    python benchmarks/holdout.py SOURCE TARGET [--fraction 0.25]

The last patches (in natural order) of each training scan become the copy's test set, so that parameters can
be chosen without a look at the real test patches. Files are linked, not copied.
"""

import argparse
from pathlib import Path

from natsort import natsorted


def hold_out(source: Path, target: Path, fraction: float) -> None:
    """Link SOURCE/train into TARGET/train and TARGET/test; at least two patches a scan are held out."""
    for scan in natsorted(p for p in (source / "train").iterdir() if p.is_dir()):
        patches = natsorted(scan.rglob("*.jpg"), key=str)
        held = max(2, round(fraction * len(patches)))
        for number, patch in enumerate(patches):
            if number < len(patches) - held:
                link = target / "train" / scan.name / patch.name
            else:
                link = target / "test" / scan.name / f"{scan.name}_{number}.jpg"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(patch.resolve())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--fraction", type=float, default=0.25)
    options = parser.parse_args()
    hold_out(options.source, options.target, options.fraction)
