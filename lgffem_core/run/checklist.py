"""What a profile needs before it can start, and where to get it. Nothing is written here."""

import os
import shutil
import tempfile
from collections.abc import Iterable
from functools import cache
from os.path import isfile
from pathlib import Path

from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.config.study import CURRICULUM, Study
from lgffem_core.data import sets
from lgffem_core.data.similar import fault_of_root
from lgffem_core.model.packaged import packaged_weights, weights_source
from lgffem_core.run.stages import Request, entries, needed_sets, unread

MIB = 1 << 20
TEMPORARY = 16 * MIB  # bytes; a run had 0.2 MiB of temporary files, one that compiles a network has more
NAMED_BY = {"model.backbone": "model.backbone.name", "baselines.ma_ms": "baselines.ma_ms.network"}  # timm's models


def missing_data(study: Study, datasets: Iterable[str] = sets.NAMES) -> list[str]:
    """One item for each of these data sets that the profile needs and does not find."""
    items = []
    for dataset in datasets:
        root, data_set = study.data_root(dataset), sets.get(dataset)
        if study.is_synthetic(dataset):
            if dataset not in study.params.data.synthetic.datasets:
                items.append(f"data.{dataset}.root is not set. {data_set.where}.")
            continue
        try:
            fault = fault_of_root(study, dataset, root)
        except OSError as error:
            fault = f"{error.filename}: {error.strerror}."
        items += [f"data.{dataset}.root: {fault}"] if fault else []
    return items


def wanted_networks(study: Study) -> dict[str, tuple]:
    """Section of the parameters -> (timm's name, the section's settings) of each network that a run builds."""
    backbone, baselines = study.params.model.backbone, study.params.baselines
    networks = {
        "model.backbone": (backbone.name, backbone),
        "baselines.densenet121": ("densenet121", baselines.densenet121),
        "baselines.ma_ms": (baselines.ma_ms.network, baselines.ma_ms),
    }
    stages = entries(study)
    return {key: found for key, found in networks.items() if any(e.declares(f"{key}.weights") for e in stages)}


def named_files(study: Study) -> dict[str, Path]:
    """Key of the parameters -> the file of weights, or the released checkpoint, that a profile names there."""
    files = {f"{key}.weights": settings.weights for key, (_, settings) in wanted_networks(study).items()}
    files |= {f"training.{s}.checkpoint": getattr(study.params.training, s).checkpoint for s in CURRICULUM}
    return {key: study.resolve(path) for key, path in files.items() if path is not None}


def missing_weights(study: Study) -> list[str]:
    """One item for each network's weights, and each released checkpoint, neither here nor to be had."""
    items = [f"{key}: {path} is not a file." for key, path in named_files(study).items() if not isfile(path)]
    for key, (name, settings) in wanted_networks(study).items():
        find = {"package": packaged_weights, "hub": find_on_hub}.get(weights_source(name, settings))
        try:
            if find:
                find(name, key)
        except StudyError as error:
            items.append(str(error))
    return items


def find_on_hub(name: str, key: str) -> None:
    """``StudyError`` where timm has no model of this name, or the hub cannot be reached."""
    from lgffem_core.model.backbone import check_name

    check_name(name, NAMED_BY.get(key, key))
    if not hub_has(name):
        raise StudyError(
            f"{key}: the weights of {name} are not in this machine's cache and the model hub cannot "
            f"be reached. Connect the machine, or set {key}.weights to a local .safetensors or .pth file."
        )


def unusable(study: Study) -> list[str]:
    """One item for each local file, and for a GPU, that a profile names and cannot use; torch is loaded for these."""
    files = {key for key, path in named_files(study).items() if isfile(path)}
    if not files and study.params.compute.device != "cuda":
        return []
    from lgffem_core.run import trial

    return trial.unusable(study, files)


def hub_has(name: str) -> bool:
    """True where a model's weights are in the local cache, or the server that has them answers.

    timm's weights lie on the Hugging Face hub; those of some older networks, SE-ResNet among them, on the
    release pages of timm itself.
    """
    import timm
    import torch
    from huggingface_hub import constants, try_to_load_from_cache

    try:
        configuration = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # a tag that this model does not have; ``create_features`` says so
        configuration = None
    repository = configuration.hf_hub_id if configuration else None
    if repository and any(
        isinstance(try_to_load_from_cache(repository, file), str) for file in ("model.safetensors", "pytorch_model.bin")
    ):
        return True
    address = configuration.url if configuration and not repository else None
    if address and (Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]).is_file():
        return True
    return not constants.HF_HUB_OFFLINE and server_answers("/".join((address or constants.ENDPOINT).split("/")[:3]))


@cache  # several networks, one question
def server_answers(server: str, timeout: float = 1.5) -> bool:
    """True where ``server`` ("https://…") answers within ``timeout`` seconds; asked once a process."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(server, timeout=timeout)
    except Exception:  # every way of not reaching it means the same here
        return False
    return True


def unusable_indices(study: Study) -> list[str]:
    """One item for each index of an archive that FAISS cannot make; FAISS is loaded where a stage reads them."""
    if not any(entry.declares("archive.indices") for entry in entries(study)):
        return []
    from lgffem_core.systems.archive.vectors import faults

    return faults(study)


def unfit_data(study: Study, missing: list[str]) -> list[str]:
    """One item for each user's data set, not ``missing``, that a system of the run could not be trained on.

    Each image's faults are for notebook 01 to tell; these are of all of them together, and would come hours later.
    """
    from_here = {name for name in needed_sets(study) if not study.is_synthetic(name)}
    from_here -= {name for name in from_here if any(item.startswith(f"data.{name}.root") for item in missing)}
    found = []
    if "reports" in from_here and "fgcr" in study.params.systems:
        from lgffem_core.systems.fgcr.wording import faults

        found += faults(study)
    if "breakhis" in from_here and "smse" in study.params.systems:
        from lgffem_core.systems.smse.splits import faults

        found += faults(study)
    return found


def full_folders(least: int = TEMPORARY) -> list[str]:
    """One item for each folder of temporary files with less than ``least`` bytes free, or that takes no file.

    Python takes the first of three variables, Snakemake's solver of two. Python passes over a folder that is quite
    full, as over one that cannot be written to; the solver does so with the latter alone.
    """
    found = []
    for folder, name in dict([first_folder("TMPDIR", "TEMP", "TMP"), first_folder("TMP", "TMPDIR")]).items():
        room, other = shutil.disk_usage(folder).free, f"or name another folder: {name}=DIR ./run_all.sh …"
        if room < least:
            needed = f"a run needs {TEMPORARY // MIB}"
            found.append(
                f"{folder}: {room / MIB:.1f} MiB are free for temporary files, {needed}. Free space there, {other}"
            )
        elif why := refusal(folder):
            found.append(f"{folder}: takes no more temporary files ({why}). Remove some there, {other}")
    return found


def first_folder(*names: str) -> tuple[str, str]:
    """The first of these variables that names a folder, with its name; else what takes its place."""
    found = ((os.environ[name], name) for name in names if os.path.isdir(os.environ.get(name, "")))
    return next(found, ("/tmp", "TMPDIR"))


def refusal(folder: str) -> str | None:
    """Why a folder that may be written to takes no file: no entry is left, or a quota's end is reached."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1))
    except OSError as error:
        return error.strerror if os.access(folder, os.W_OK) else None
    return None


def checklist(study: Study) -> list[str]:
    """Everything that is missing or cannot be used; empty where the study can start."""
    missing = missing_data(study, needed_sets(study))
    found = missing_weights(study) + unusable(study) + unusable_indices(study)
    return missing + found + unfit_data(study, missing) + full_folders()


def format_checklist(params: Path | str, items: list[str]) -> str:
    """The checklist as a user reads it."""
    lines = [f"{params} cannot start; {len(items)} thing{'s' * (len(items) > 1)} missing or not usable:", ""]
    lines += [f"  [ ] {item}" for item in items]
    return "\n".join(
        [*lines, "", "Roots can be set in the file, or with --set data.kimia.root=DIR. Nothing was written."]
    )


def check_startable(params: Path | str, study: Study, *more: str) -> None:
    """``RequestError`` with the checklist, and ``more`` below it, where the study cannot start."""
    if items := checklist(study):
        raise RequestError("\n\n".join([format_checklist(params, items), *more]))


# -- of a study that can start -----------------------------------------------------------------------------------


def told_unread(request: Request) -> list[str]:
    """What was set and changes nothing, in a sentence; nothing where all is read."""
    keys = unread(request.study, request.overrides)
    systems = ", ".join(request.study.params.systems)
    return [f"no stage of this run (systems {systems}) reads what was set as {', '.join(keys)}"] if keys else []


def told_slow(study: Study) -> list[str]:
    """What is to be said of half precision that was asked for, where the device has no units for it."""
    if study.params.compute.precision in ("auto", "32-true"):
        return []
    from lgffem_core.run import trial

    return trial.slow_precision(study.params.compute)
