"""Words as numbers: what is known, what is refused, and with which sentence."""

import pytest

from lgffem_core.base.errors import StudyError
from lgffem_core.systems.fgcr.tokenizer import UNKNOWN, Tokenizer, words


def test_words_are_in_lower_case_without_punctuation():
    assert words("Signet-ring cells; NO necrosis (0.5 mm). Barrett's.") == [
        "signet-ring", "cells", "no", "necrosis", "0", "5", "mm", "barrett's",
    ]  # fmt: skip
    assert words("") == words(" .;— ") == []


def test_the_vocabulary_is_that_of_training_reports_and_prompts():
    known = Tokenizer.of(["No fat.", "fat and glands"], ["necrosis", "fat", "fat"], longest=5)
    assert known.vocabulary[3:] == ("and", "fat", "glands", "necrosis", "no") and known.prompts == ("fat", "necrosis")
    assert [known.vocabulary[number] for number in known.encode("Glands, no FAT")] == ["glands", "no", "fat"]
    assert known.encode("") == []
    assert [known.vocabulary[number] for number in known.prompt_tokens()] == ["fat", "necrosis"]
    assert known.prompt_targets(["necrosis"]) == [0.0, 1.0]


def test_an_unknown_word_is_refused_by_name_or_becomes_one_token():
    known = Tokenizer.of(["no fat"], [], longest=5)
    with pytest.raises(StudyError, match="slide s1: 'much' is in no training report, and 1 further words are not"):
        known.encode("much much fat here", "slide s1")
    lenient = Tokenizer.of(["no fat"], [], longest=5, unknown="one_token")
    assert lenient.encode("much fat here") == [UNKNOWN, known.numbers["fat"], UNKNOWN]


def test_what_does_not_fit_is_said_in_a_sentence():
    known = Tokenizer.of(["no fat"], ["fat"], longest=2)
    with pytest.raises(StudyError, match="slide s1: has 3 words, fgcr.tokens is 2; raise it"):
        known.encode("no no fat", "slide s1")
    with pytest.raises(StudyError, match="slide s1: 'gland' is none of the 1 prompts"):
        known.prompt_targets(["fat", "gland"], "slide s1")
    for prompt in ("upper left", "Fat", ""):
        with pytest.raises(StudyError, match=f"prompt '{prompt}' is not one word in lower case"):
            Tokenizer.of([], [prompt], longest=2)
