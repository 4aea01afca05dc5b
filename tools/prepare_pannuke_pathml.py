"""Let PathML download PanNuke and prepare it: a process of its own, in PathML's own environment.

    .venv-pathml/bin/python tools/prepare_pannuke_pathml.py DATA_DIR

DATA_DIR then holds ``images/`` and ``masks/`` (``data.pannuke.root`` of the study). Where it already
holds the official "Fold 1" … "Fold 3", nothing is downloaded and they are kept; folds that PathML
downloads it removes afterwards. The arrays are float64: allow 65 GB of free space.

Licences: this file is MIT, like the project. Running it uses PathML, which is GPL-2.0 software, and
fetches PanNuke, whose licence is CC BY-NC-SA 4.0. The study itself never imports PathML.
"""

import argparse
import contextlib
import shutil
import sys
import zipfile
from collections import Counter
from pathlib import Path

FOLDS = (1, 2, 3)
BY_HAND = (
    "Or get the three folds by hand, put 'Fold 1' … 'Fold 3' into DATA_DIR and run this again; "
    "the study's own converter in notebook 01 reads them too, without PathML."
)


def load_pathml():
    """PathML's data module; exits with the remedy where PathML or its Java cannot be loaded."""
    with contextlib.suppress(ImportError):
        import openslide_bin  # noqa: F401  - loads libopenslide, which PathML's bindings then find
    try:
        from pathml.datasets.pannuke import PanNukeDataModule
    except ModuleNotFoundError as error:
        sys.exit(
            f"{error.name} is not installed in {sys.executable}; PathML's environment is made by "
            "./run_all.sh test-pathml (or environment.yml)."
        )
    except Exception as error:  # the Java bridge raises OSError and plain Exception alike
        sys.exit(f"PathML cannot be loaded ({error}); it needs a JDK: put java on PATH or set JAVA_HOME.")
    return PanNukeDataModule


def check_folder(data_dir: Path) -> bool:
    """True where all folds are there already; exits where PathML could not do its work."""
    if data_dir.exists() and not data_dir.is_dir():
        sys.exit(f"{data_dir} is a file; name a folder.")
    for name in ("images", "masks"):
        if (data_dir / name).exists():
            sys.exit(f"{data_dir / name} already exists: use {data_dir} as data.pannuke.root, or remove it.")
    present = [fold for fold in FOLDS if (data_dir / f"Fold {fold}").is_dir()]
    if len(present) < len(FOLDS):
        for fold in present:  # PathML's clean-up expects the archive of every fold that it finds
            if not (data_dir / f"fold_{fold}.zip").is_file():
                sys.exit(f"{data_dir} holds Fold {fold} but not all three: add the others, or move it away.")
    return len(present) == len(FOLDS)


def prepare(data_dir: Path) -> None:
    """Download where needed, then write ``images/`` and ``masks/``; a failure leaves neither behind."""
    has_folds = check_folder(data_dir)
    module = load_pathml()
    data_dir.mkdir(parents=True, exist_ok=True)
    finished = False
    try:
        if has_folds:
            module._process_downloaded_pannuke(data_dir)  # its download step would delete the folds
        else:
            module(data_dir, download=True)
        finished = True
    except zipfile.BadZipFile as error:
        sys.exit(f"An archive in {data_dir} is damaged ({error}); remove the last fold_*.zip, then rerun.")
    except (OSError, EOFError, ValueError, AssertionError) as error:
        if has_folds:
            sys.exit(f"The folds in {data_dir} cannot be prepared ({error}); get that fold again.")
        sys.exit(f"PanNuke could not be downloaded and prepared in {data_dir} ({error}). {BY_HAND}")
    finally:
        if not finished:
            for name in ("images", "masks"):
                shutil.rmtree(data_dir / name, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data_dir", type=Path, help="folder that will hold images/ and masks/")
    data_dir = parser.parse_args().data_dir
    prepare(data_dir)
    counts = Counter(path.name.split("_")[0] for path in (data_dir / "images").iterdir())
    print(f"{data_dir}: " + ", ".join(f"{fold} {count} tiles" for fold, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
