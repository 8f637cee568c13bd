"""Vectors of phrases: planted tables, the null of nonsense, and the files of the package."""

import os

import numpy as np
import pytest
from make_features import write_features
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from interp.errors import CorruptError
from interp.workspace import Workspace
from saes import search_features
from saes.features import _label_search, _phrase_vectors
from saes.features._phrase_vectors import LabelVectors, PhraseVectors, nonsense, phrase_vectors

TOPICS = {"food": ("cooking", "recipes", "dishes"), "time": ("January", "months", "dates"), "law": ("court", "lawsuit")}
LABELS = [(5, "recipes dishes"), (9, "months dates"), (9, "court")]


@pytest.fixture(scope="module")
def planted() -> PhraseVectors:
    """Words of one topic have the same direction and a little of their own; all others are spread at random."""
    words = [word for topic in TOPICS.values() for word in topic]
    every = [*words, *nonsense(_phrase_vectors.N_NONSENSE)]
    rng = np.random.default_rng(0)
    table = rng.normal(size=(len(every) + 1, 64))
    for topic in TOPICS.values():
        shared = rng.normal(size=64)
        for word in topic:
            table[every.index(word)] = shared + 0.3 * rng.normal(size=64)
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate([*every, "?"])}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    return PhraseVectors(table.astype(np.float16), tokenizer)


def test_a_query_finds_the_label_of_its_topic_without_a_word_in_common(planted):
    labels = LabelVectors.of(planted, LABELS)
    near = labels.like("cooking")
    assert set(near) == {LABELS[0]}
    assert near[LABELS[0]].likeness > 0.5
    assert set(labels.like("lawsuit")) == {LABELS[2]}
    assert labels.like("recipes dishes")[LABELS[0]].likeness == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("score", [0.95, 0.5])
def test_search_finds_a_written_label_by_its_meaning_where_it_was_judged_right(planted, score, tmp_path, monkeypatch):
    monkeypatch.setattr(_label_search, "phrase_vectors", lambda: planted)
    workspace = Workspace(tmp_path, create=True)
    same = {"n_fired": 9, "density": 0.01, "max_activation": 1.0, "label_kind": "written", "label_score": score}
    rows = [{"feature": i, "label": label, **same} for i, label in enumerate(("recipes dishes", "months dates"))]
    write_features(workspace, "f", rows, hook_point="h", model="m", n_tokens=1000)
    found = search_features(workspace, "cooking").hits
    assert [(hit.feature, hit.by) for hit in found] == ([(0, "label")] if score > 0.5 else [])
    assert search_features(workspace, nonsense(200)[7]).hits == ()


def test_nonsense_finds_a_label_as_often_as_the_null_says(planted):
    labels = LabelVectors.of(planted, LABELS)
    words = nonsense(_phrase_vectors.N_NONSENSE)
    found = [bool(labels.like(word)) for word in words]
    assert np.mean(found) == pytest.approx(0.05, abs=0.01)
    assert len(set(words)) > 190


def test_an_empty_phrase_has_no_direction(planted):
    assert not planted.of([""]).any()
    assert LabelVectors.of(planted, LABELS).like("") == {}


def installed() -> PhraseVectors:
    """Return the vectors of the package; skip without it, unless WORKBENCH_REQUIRE_SEARCH says that it is there."""
    vectors = phrase_vectors()
    if vectors is None and not os.environ.get("WORKBENCH_REQUIRE_SEARCH"):
        pytest.skip("wordllama is not installed")
    assert vectors is not None
    return vectors


def test_the_installed_table_knows_what_is_alike():
    vectors = installed()
    topics = ["recipes and dishes", "months, in dates", "lawsuits and courts", "football and other sports"]
    labels = LabelVectors.of(vectors, list(enumerate(topics)))
    for query, number in (("cooking", 0), ("January", 1), ("lawsuit", 2), ("soccer", 3)):
        near = labels.like(query)
        assert max(near, key=lambda label: near[label].likeness)[0] == number
    assert labels.like("asdfqwer") == {}


def test_another_file_is_refused(monkeypatch):
    installed()
    monkeypatch.setitem(_phrase_vectors.SHA256, _phrase_vectors.TABLE, "0" * 64)
    phrase_vectors.cache_clear()
    with pytest.raises(CorruptError, match="is not the file that is pinned"):
        phrase_vectors()


def test_without_the_package_there_are_none_and_search_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(_phrase_vectors, "PACKAGE", "no-such-package")
    phrase_vectors.cache_clear()
    assert phrase_vectors() is None
    workspace = Workspace(tmp_path, create=True)
    write_features(workspace, "f", [{"feature": 0, "label": "months"}], n_tokens=1000, labels="read")
    [note] = [note for note in search_features(workspace, "months").notes if "Written labels" in note]
    assert "pip install" in note
    phrase_vectors.cache_clear()
