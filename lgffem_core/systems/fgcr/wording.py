"""What the reports and prompts of all slides say together, which a start asks too: nothing here imports torch."""

from typing import NamedTuple

from lgffem_core.base.errors import StudyError
from lgffem_core.config.study import Study
from lgffem_core.config.systems import Fgcr
from lgffem_core.data.headers import about
from lgffem_core.data.sets import get as set_named
from lgffem_core.systems.fgcr.tokenizer import Tokenizer, words


class Words(NamedTuple):
    """Of one slide, what must go together with that of all others. A record's header says it without its arrays."""

    slide: str
    encoder: str
    numbers: int  # a patch
    report: str
    prompts: tuple[str, ...]
    split: str


def tokenizer_of(slides: list[Words], settings: Fgcr) -> Tokenizer:
    """The tokenizer of the training slides' reports and of all prompts.

    ``StudyError`` where features were made by several encoders, no slide has prompts, or a report or prompt cannot be
    read by it.
    """
    first = slides[0]
    for slide in slides:
        if (slide.numbers, slide.encoder) != (first.numbers, first.encoder):
            raise StudyError(
                f"slide {slide.slide}: has {slide.numbers} numbers a patch by encoder {slide.encoder!r}, slide "
                f"{first.slide} {first.numbers} by {first.encoder!r}; make all records with one encoder."
            )
    prompts = {prompt for slide in slides for prompt in slide.prompts}
    if not prompts:
        raise StudyError(
            "data.reports: no record has prompts, the findings that hold of it; write some into them, or set "
            "fgcr.prompts to words of the reports."
        )
    reports = [slide.report for slide in slides if slide.split == "train"]
    tokenizer = Tokenizer.of(reports, prompts, settings.tokens, settings.unknown_words)
    for slide in slides:
        tokenizer.encode(slide.report, f"slide {slide.slide}")
    return tokenizer


def faults(study: Study) -> list[str]:
    """Why a user's records cannot be trained on together, at most one sentence: what ``Archive.load`` would say.

    Headers are read alone, so that a run can ask before it starts. What notebook 01 refuses or leaves out, a record
    that is damaged or without a report, is for that to tell.
    """
    root, params = study.data_root("reports"), study.params
    try:
        rows, _ = set_named("reports").layout(root, params.data.reports)
        headers = [(about(root / path), split) for path, _, split, _ in rows]
        slides = [words_of(header, split, params.fgcr.prompts) for header, split in headers if header.get("report")]
        if slides:
            tokenizer_of(slides, params.fgcr)
    except StudyError as error:
        return [str(error)]
    return []


def words_of(header: dict, split: str, given: tuple[str, ...]) -> Words:
    """A slide's words, from what its record's header says, and how many ``numbers`` a patch has: see ``about``."""
    said = {name: header.get(name) for name in ("slide", "encoder", "numbers", "report")}
    return Words(**said, prompts=prompts_of(header["report"], tuple(header["prompts"]), given), split=split)


def prompts_of(report: str, own: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """A slide's ``own`` findings, or, where it names none, those of ``given`` whose word its report holds.

    A word is taken for a finding whatever the sentence says of it, "no necrosis" included.
    """
    said = set(words(report))
    return own or tuple(prompt for prompt in given if prompt in said)
