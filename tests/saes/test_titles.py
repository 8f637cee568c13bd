"""Titles from promoted words: planted topics, random directions as the null, and labels that stay."""

import numpy as np
import pytest

from interp.lenses.vocabulary import Vocabulary
from saes.features._labels import Label
from saes.features.titles import N_WORDS, SHOWN, belonging_together, says_little, titled

D, N_TOPICS, N_OTHER = 48, 5, 400
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TOPIC_WORDS = [f" {a}{b}{a}{b}{b}" for a in LETTERS[:N_TOPICS] for b in LETTERS[5 : 5 + N_WORDS]]
OTHERS = [f" {a}{b}{c}zz" for a in LETTERS[13:] for b in LETTERS[:13] for c in LETTERS[:3]][:N_OTHER]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    """Words of a topic share a direction; the others point anywhere; word pieces come last, in one direction."""
    rng = np.random.default_rng(0)
    topics = np.repeat(rng.normal(size=(N_TOPICS, D)), N_WORDS, 0) * 2 + rng.normal(size=(N_TOPICS * N_WORDS, D)) * 0.7
    pieces = np.repeat(rng.normal(size=(1, D)), N_WORDS, 0)
    x = np.concatenate([topics, rng.normal(size=(N_OTHER, D)), pieces]).astype(np.float16)
    y = x.astype(np.float32)
    return Vocabulary(x, y.T @ y / len(y), (*TOPIC_WORDS, *OTHERS, *(f"piece{i}" for i in range(N_WORDS))))


def drawn(rng: np.random.Generator, n: int) -> np.ndarray:
    """Words that have nothing in common, `[n, N_WORDS]`."""
    start = N_TOPICS * N_WORDS
    return np.stack([start + rng.choice(N_OTHER, N_WORDS, replace=False) for _ in range(n)])


def test_words_of_a_topic_belong_together_and_others_as_rarely_as_the_null_says(vocabulary):
    rng = np.random.default_rng(1)
    topics = np.arange(N_TOPICS * N_WORDS).reshape(N_TOPICS, N_WORDS)
    ids = np.concatenate([topics, drawn(rng, 400)])
    words = belonging_together(ids, drawn(rng, 400), vocabulary)
    assert set(range(N_TOPICS)) <= set(words)
    assert words[2] == tuple(TOPIC_WORDS[2 * N_WORDS : 2 * N_WORDS + SHOWN])
    assert 0.02 < (len(words) - N_TOPICS) / 400 < 0.1


def test_pieces_of_words_and_one_word_in_many_forms_are_no_title(vocabulary):
    pieces = N_TOPICS * N_WORDS + N_OTHER + np.arange(N_WORDS)
    same = np.repeat(0, N_WORDS)
    assert belonging_together(np.stack([pieces, same]), drawn(np.random.default_rng(2), 99), vocabulary) == {}


def test_a_class_of_words_gives_way_to_promoted_words_and_stands_below_them():
    noun, month = Label("class", ("noun",), 0.88, score=0.8), Label("class", ("calendar month",), 0.9, score=0.9)
    unknown, often = Label("none", (" a",), n_heldout=12), Label("token", (" up",), 0.3, score=0.6)
    said = (" flavorful", " delicious", " culinary")
    labels = titled([noun, month, unknown, often, noun], dict.fromkeys(range(4), said))
    assert [str(label) for label in labels[:2]] == ["says flavorful, delicious, culinary", "calendar month (90 %)"]
    assert [str(other) for other in labels[0].others] == ["noun (88 %)"]
    assert (str(labels[2]), labels[2].others, labels[2].n_heldout) == ("says flavorful, delicious, culinary", (), 12)
    assert str(labels[3].others[0]) == 'often " up" (30 %)'
    assert labels[4] == noun


@pytest.mark.parametrize(("kind", "names", "share", "little"), [
    ("document", ("sampled how-to",), 0.8, True), ("surroundings", ("middle piece of a word",), 0.7, True),
    ("class", ("capitalised word",), 0.9, True), ("class", ("artefact",), 0.6, True), ("none", (" a",), None, True),
    ("class", ("insect",), 0.65, False), ("word", ("flower",), 0.9, False), ("written", (), None, False),
    ("dense", (), 0.9, False), ("dead", (), None, False),
])  # fmt: skip
def test_which_labels_say_little(kind, names, share, little):
    assert says_little(kind, names, share) is little
