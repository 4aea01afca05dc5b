"""Reports as numbers: the words of the training reports and of the prompts, each with one number."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lgffem_core.base.errors import StudyError

PADDING, HIDDEN, UNKNOWN = 0, 1, 2
SPECIAL = ("<padding>", "<hidden>", "<unknown>")
WORD = re.compile(r"\w+(?:[-'’]\w+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation: "Signet-ring cells." -> ["signet-ring", "cells"]."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Tokenizer:
    """Words and prompts that a model knows.

    Args:
        vocabulary: words in the order of their numbers, the special ones first.
        prompts: the findings, in the order of the model's outputs; each one word of the vocabulary.
        longest: words of a text at most.
        unknown: "refuse" a word that is not in the vocabulary, or take "one_token" for all of them.
    """

    vocabulary: tuple[str, ...]
    prompts: tuple[str, ...]
    longest: int
    unknown: str = "refuse"

    def __post_init__(self):
        object.__setattr__(self, "numbers", {word: number for number, word in enumerate(self.vocabulary)})

    @classmethod
    def of(cls, reports: Iterable[str], prompts: Iterable[str], longest: int, unknown: str = "refuse") -> "Tokenizer":
        """Of the training reports and the prompts of an archive. ``StudyError`` names a prompt that is not one word."""
        prompts = tuple(sorted(set(prompts)))
        if wrong := [prompt for prompt in prompts if words(prompt) != [prompt]]:
            raise StudyError(f"prompt {wrong[0]!r} is not one word in lower case; write it so, with hyphens.")
        known = sorted({word for text in reports for word in words(text)} | set(prompts))
        return cls((*SPECIAL, *known), prompts, longest, unknown)

    def encode(self, text: str, where: str = "the text") -> list[int]:
        """The numbers of a text's words. ``StudyError`` names ``where``, and a word that is not known or too much."""
        found = words(text)
        if len(found) > self.longest:
            raise StudyError(
                f"{where}: has {len(found)} words, fgcr.tokens is {self.longest}; raise it, or shorten it."
            )
        strange = [word for word in found if word not in self.numbers]
        if strange and self.unknown == "refuse":
            raise StudyError(
                f"{where}: {strange[0]!r} is in no training report, and {len(set(strange)) - 1} further words are not; "
                "use other words, or set fgcr.unknown_words=one_token."
            )
        return [self.numbers.get(word, UNKNOWN) for word in found]

    def prompt_tokens(self) -> list[int]:
        """The number of each prompt's word."""
        return [self.numbers[prompt] for prompt in self.prompts]

    def prompt_targets(self, held: Iterable[str], where: str = "the record") -> list[float]:
        """1 for each prompt that holds, else 0. ``StudyError`` names one that the model does not know."""
        held = set(held)
        if strange := sorted(held - set(self.prompts)):
            raise StudyError(f"{where}: {strange[0]!r} is none of the {len(self.prompts)} prompts; leave it out.")
        return [float(prompt in held) for prompt in self.prompts]
