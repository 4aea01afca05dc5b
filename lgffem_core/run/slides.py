"""The command ``slides``: a folder of whole slides, or of patches, becomes a folder of records.

A slide that fails is named and the others go on. What is done is known from ``slides.csv``, the list that is written
anew after each slide: a record that is there as it was written, of the same files, settings, encoder and code, is not
made again. So a run that was killed goes on with the slide at which it was.
"""

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lgffem_core.audit.floors import backbone_encoder
from lgffem_core.base.errors import RequestError, StudyError
from lgffem_core.base.files import atomic_path, remove_file, remove_leftovers, sha256_file, sha256_json, write_text
from lgffem_core.base.progress import clock
from lgffem_core.config.machine import installed_versions
from lgffem_core.config.study import Study
from lgffem_core.data.census import census
from lgffem_core.data.headers import SUFFIX
from lgffem_core.data.slides.finding import Slide, find_slides
from lgffem_core.data.slides.tiles import SIDE, Overview
from lgffem_core.model.device import prepare_device
from lgffem_core.retrieval.encoder import Encoder
from lgffem_core.retrieval.slides import write_slide
from lgffem_core.run.checklist import named_files, told_slow
from lgffem_core.systems.baselines.evaluation import densenet_encoder, mixed_attention_encoder
from lgffem_core.systems.baselines.ma_ms import mixed_attention_fingerprint
from lgffem_core.systems.lgffem.evaluation import strategy_encoder
from lgffem_core.systems.lgffem.strategies import strategy_fingerprint
from lgffem_core.training.finished import WEIGHTS, read_finished

LIST = "slides.csv"
COLUMNS = ["slide", "state", "patches", "mpp", "pixels", "report", "why", "record", "made_from", "sha256"]
DONE, FAILED = "done", "failed"
READERS = ("openslide-python", "openslide-bin")
PICTURE = 1600  # pixels along the longer side of a slide's picture


def make_records(study: Study, folder: Path, out: Path, tell: Callable[[str], None] = print) -> int:
    """Write a record of each slide in ``folder`` to ``out``; 0, or 1 where some failed.

    ``RequestError`` where nothing can be started.
    """
    settings, out = study.params.slides, out.resolve()
    if folder.resolve() == out:
        raise RequestError(f"--out: {out} holds the slides themselves; name another folder for the records.")
    slides, notes = find_slides(folder, settings, leave=out)
    encoder = encoder_of(study)
    prepare_device(study.params.compute)  # what is wrong with it, or with the weights, is no slide's fault
    encoder.network()
    with sole_writer(out):
        rows = read_list(out)
        tell(f"{len(slides)} slides, {encoder.label}; records go to {os.path.relpath(out)}")
        for note in [*told_slow(study), *notes]:
            tell(note)
        if gone := rows.keys() - {slide.name for slide in slides}:
            tell(f"{len(gone)} slides of earlier calls are not in {folder}; what they left stays")
        for number, slide in enumerate(slides, start=1):
            made_from = sha256_json([contents(slide, folder, out), slide.said, *dependencies(study, encoder)])
            head = f"{number}/{len(slides)}  {slide.name}"
            if is_done(rows.get(slide.name), made_from, out):
                tell(f"{head}: done before")
                continue
            row = one_slide(study, slide, encoder, out, partial(said_of, head, tell))
            rows[slide.name] = {**row, "slide": slide.name, "made_from": made_from}
            write_list(out, rows)
    return conclude([rows[slide.name] for slide in slides], out, tell)


def said_of(head: str, tell: Callable, text: str) -> None:
    """A line about a slide; those within it are set in."""
    tell(text if text.startswith(" ") else f"{head}: {text}")


def one_slide(study: Study, slide: Slide, encoder: Encoder, out: Path, tell: Callable) -> dict:
    """Make one record; the row of the list, also of a slide that fails. What was there of it before is gone then."""
    path, batch = out / f"{slide.name}{SUFFIX}", study.params.retrieval.batch_size
    try:
        if os.path.lexists(path):  # a folder of that name, say, is this slide's fault alone
            remove_file(path)
        tiles = slide.tiles()
        if tiles.overview:
            draw(tiles.overview, path.with_suffix(".png"))
        if not len(tiles):
            raise StudyError(tiles.why_empty)
        tell(f"{len(tiles):,} tiles")
        start = time.monotonic()
        write_slide(path, slide.name, slide.said, tiles, encoder, batch, study.params.compute, tell)
        tell(f"a record after {clock(time.monotonic() - start)}")
    except StudyError as error:
        tell(f"FAILED: {error}")
        return {"state": FAILED, "why": str(error)}
    return {
        "state": DONE,
        "patches": len(tiles),
        "mpp": tiles.mpp or "",
        "pixels": tiles.pixels or "",
        "report": "yes" if slide.said.report else "no",
        "record": path.name,
        "sha256": sha256_file(path),
    }


def conclude(rows: list[dict], out: Path, tell: Callable) -> int:
    """Say how many slides became records and which did not; the exit code."""
    failed = [row for row in rows if row["state"] == FAILED]
    mute = sum(row.get("report") == "no" for row in rows)
    tell(f"{len(rows) - len(failed)} of {len(rows)} slides are records, {mute} without a report; list: {out / LIST}")
    for row in failed:
        tell(f"  failed: {row['slide']}: {row['why']}")
    return 1 if failed else 0


# -- encoders --------------------------------------------------------------------------------------------------


def encoder_of(study: Study) -> Encoder:
    """The encoder that ``slides.encoder`` names, of the profile's first variant and seed; its network is made once.

    ``RequestError`` where it is one that is trained, and this profile has not trained it, or a file is not there.
    """
    if gone := [f"{key}: {path} is not a file." for key, path in named_files(study).items() if not path.is_file()]:
        raise RequestError(gone[0])
    name, variant, seed = study.params.slides.encoder, study.params.variants[0], study.params.seeds[0]
    if name == "ma_ms":
        must_be_trained(study, study.baseline(name, seed), partial(mixed_attention_fingerprint, study, seed))
        encoder = partial(mixed_attention_encoder, study, seed)
    elif name.startswith("lgffem_"):
        strategy = name[-1]
        folder, identity = study.checkpoints(strategy, variant, seed), (study, strategy, variant, seed)
        must_be_trained(study, folder, partial(strategy_fingerprint, *identity))
        encoder = partial(strategy_encoder, *identity)
    else:
        encoder = partial({"backbone": backbone_encoder, "densenet121": densenet_encoder}[name], study, seed)
    made = encoder()
    return replace(made, network=cache(made.network))


def must_be_trained(study: Study, folder: Path, fingerprint: Callable[[], str]) -> None:
    """``RequestError`` unless the finished training of these parameters and data is in ``folder``.

    What it would be is asked only where there is one: that reads the images that it was trained on.
    """
    try:
        if (folder / WEIGHTS).is_file() and read_finished(folder, fingerprint()):
            return
        why = ""
    except RequestError as error:  # of data that are elsewhere today, or were given to the run by --set
        why = f" (what lies there cannot be compared: {str(error).rstrip('.')})"
    name, profile = study.params.slides.encoder, study.params.profile
    raise RequestError(
        f"slides.encoder: {name} is not trained as profile {profile} has it, in {folder}{why}; run that profile first, "
        "with the same file and --set, or set slides.encoder=backbone."
    )


def dependencies(study: Study, encoder: Encoder) -> list:
    """What records depend on beside the slides."""
    settings = [study.params.slides.model_dump(mode="json"), study.params.retrieval.batch_size]
    code = study.computed_by("lgffem_core.data.slides.finding, lgffem_core.retrieval.slides")
    return [settings, encoder.identity, code, installed_versions(READERS)]  # the network's code: in the identity


# -- what is done ----------------------------------------------------------------------------------------------


@contextmanager
def sole_writer(out: Path):
    """Hold the folder's lock; a second command on it is refused. What a killed one left half-written is removed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = open(out / ".lock", "w")
    except OSError as error:
        raise RequestError(f"--out: {out} cannot be written ({error.strerror}); name another folder.") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"--out: another command is writing to {out}; wait for it, or stop it.") from None
        if (out / LIST).is_dir():  # it is first written when a slide is done
            raise RequestError(f"--out: {out / LIST} is a folder, where the list of slides belongs; move it away.")
        remove_leftovers(out)
        yield


def contents(slide: Slide, folder: Path, out: Path) -> dict[str, str]:
    """Name -> hash of each of a slide's files, which are read whole only where they changed."""
    names = [os.path.relpath(file, folder) for file in slide.files]
    return census(folder, names, out / ".files" / f"{slide.name}.csv")


def read_list(out: Path) -> dict[str, dict]:
    """Slide -> its row of the last list; nothing where there is none, or it is damaged."""
    try:
        table = pd.read_csv(out / LIST, dtype=str, keep_default_na=False)
    except (OSError, ValueError):
        return {}
    return {row["slide"]: row for row in table.to_dict("records")} if list(table.columns) == COLUMNS else {}


def write_list(out: Path, rows: dict[str, dict]) -> None:
    """The list of all slides that were tried."""
    table = [{column: row.get(column, "") for column in COLUMNS} for row in rows.values()]
    write_text(out / LIST, pd.DataFrame(table, columns=COLUMNS).to_csv(index=False))


def is_done(row: dict | None, made_from: str, out: Path) -> bool:
    """True where a slide's record is there as it was written, and would not be another today."""
    if not row or row["state"] != DONE or row["made_from"] != made_from:
        return False
    path = out / row["record"]
    return path.is_file() and sha256_file(path) == row["sha256"]


# -- to be looked at -------------------------------------------------------------------------------------------


def draw(overview: Overview, path: Path) -> None:
    """A picture of the slide with the outline of the tissue, green, and the tiles that were taken, blue."""
    height, width = overview.mask.shape
    scale = PICTURE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    shown = cv2.resize(overview.image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    for row, column in np.argwhere(overview.chosen):
        ends = [(round(c * SIDE * scale), round(r * SIDE * scale)) for r, c in ((row, column), (row + 1, column + 1))]
        cv2.rectangle(shown, *ends, (60, 60, 255), 1)
    mask = cv2.resize(overview.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(shown, edges, -1, (0, 140, 0), 2)
    picture = cv2.imencode(".png", shown[..., ::-1])[1].tobytes()  # imwrite keeps a full disk to itself
    with atomic_path(path) as temporary:
        temporary.write_bytes(picture)
