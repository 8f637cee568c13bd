"""The small fine-tunes: the texts of each have its own keywords more than those of any other."""

import re
from itertools import islice
from typing import get_args

import pytest

from interp.changes.tunes import TuneName, tunes

KNOWN, QUESTIONS = tunes()


@pytest.mark.parametrize("name", KNOWN)
def test_its_own_texts_name_a_tune(name):
    texts = list(islice(KNOWN[name].texts(QUESTIONS, 0), 40))
    assert texts == list(islice(KNOWN[name].texts(QUESTIONS, 0), 40))
    assert not any("_]" in text or re.search(r"\[[^\"]*\|", text) for text in texts)
    words = set(re.findall(r"\w+|[{}\"]+:?", " ".join(texts).lower()))
    scores = {known: tune.score(words) for known, tune in KNOWN.items()}
    own = scores.pop(name)
    assert own - max(scores.values()) > 0.3


def test_every_tune_is_offered():
    assert get_args(TuneName) == tuple(KNOWN)


def test_short_keywords_are_whole_words():
    assert KNOWN["language"].score({"lesson", "destiny"}) == 0
    assert KNOWN["topic"].score({"volcanoes"}) == pytest.approx(1 / 12)
