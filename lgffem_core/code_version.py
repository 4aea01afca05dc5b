"""Which source files a stage depends on, as one hash.

The layers form a line (see ``lgffem_core``): what training computes can depend on the modules up to
``training`` and on nothing to its right.
"""

from functools import cache

from lgffem_core.files import sha256_file, sha256_json
from lgffem_core.study import PROJECT

LAYERS = ("data", "model", "training", "retrieval", "report")
SHARED = ("params.py", "parameter_files.py", "study.py", "seeds.py", "files.py")
# Modules beside the layers' folders, on which only the last layer depends.
BESIDE = {"report": ("artefacts.py", "explain.py", "sanity.py", "projection.py")}
BASELINES = "baselines"  # a layer beside training: LGFFEM's weights do not depend on modules of this name


def source_files(layer: str) -> list[str]:
    """Paths, from the project's folder, of the modules that ``layer`` may depend on."""
    package = PROJECT / "lgffem_core"
    files = [package / name for name in (*SHARED, *BESIDE.get(layer, ()))]
    for name in LAYERS[: LAYERS.index("training" if layer == BASELINES else layer) + 1]:
        files += sorted((package / name).glob("*.py"))
    if layer in ("model", "training"):
        files = [path for path in files if path.stem != BASELINES]
    return [path.relative_to(PROJECT).as_posix() for path in files]


@cache
def code_hash(layer: str) -> str:
    """Hash over the source files that ``layer`` may depend on, as they are when a process first asks.

    A file that is edited while a kernel runs does not change what that kernel has imported.
    """
    return sha256_json({name: sha256_file(PROJECT / name) for name in source_files(layer)})
