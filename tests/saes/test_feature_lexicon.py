"""Classes of words, and labels by class: planted causes are named, random firing and one word's class are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import HOOK, TableDictionary, write_recording

from saes.features._firings import Encoded, collect_together
from saes.features._labels import Label, label_features
from saes.features.lexicon import LEXICON, Lexicon, spelling_of_chunk

MONTHS = ["January", "February", "March", "April", "June", "July", "August", "September", "October"]
COUNTRIES = ["France", "Germany", "Spain", "Italy", "China", "India", "Brazil", "Mexico", "Egypt", "Peru"]
PAST = ["walked", "said", "took", "looked", "opened", "wrote", "played", "carried", "followed", "turned"]
PRESENT = ["walk", "say", "take", "look", "open", "write", "play", "carry", "follow", "turn"]
FILLER = [
    "the", "of", "apple", "table", "river", "in", "on", "happy", "blue", "stone", "music", "two", "it", "not", "very",
    "house", "because", "street", "cloud", "paper",
]  # fmt: skip
NAMED = [f" {word}" for word in [*MONTHS, *COUNTRIES, *PAST, *PRESENT, *FILLER]]
WORDS = ["<s>", *NAMED, ".", "\n"]
CONTEXT = 25


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon()


@pytest.mark.parametrize(
    ("word", "classes"),
    [
        ("March", {"calendar month", "noun", "capitalised word"}),
        ("Turkey", {"country"}),
        ("turkey", {"animal", "bird"}),
        ("walked", {"verb of motion, past form", "past form"}),
        ("ran", {"verb of motion, past form"}),
        ("said", {"verb of communication, past form"}),
        ("cities", {"city, plural", "plural"}),
        ("children", {"plural", "kin"}),
        ("happier", {"comparative", "adjective"}),
        ("was", {"form of be", "past form"}),
        ("because", {"subordinating conjunction"}),
        ("huge", {"adjective of size"}),
        ("French", {"adjective of country"}),
        ("1999", {"year", "number"}),
        ("IV", {"Roman numeral"}),
        ("nicht", {"German word"}),
        ("?", {"question mark"}),
        ("\n", {"line break"}),
    ],
)
def test_words_have_their_classes(lexicon: Lexicon, word: str, classes: set[str]):
    assert classes <= lexicon.classes_of(word)


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        ("may", {"calendar month", "plant"}),
        ("march", {"calendar month"}),
        ("will", {"noun"}),
        ("seed", {"past form"}),
        ("news", {"plural"}),
        ("during", {"-ing form"}),
        ("Mark", {"verb"}),
    ],
)
def test_rare_senses_and_lookalikes_do_not_count(lexicon: Lexicon, word: str, wrong: set[str]):
    assert not wrong & (lexicon.classes_of(word) - ({"verb"} if word == "Mark" else set()))


def test_inflected_words_have_their_base_form(lexicon: Lexicon):
    found = [lexicon.base_form(word) for word in ("Stored", "stores", "went", "children", "happiest", "the", "zxq")]
    assert found == ["store", "store", "go", "child", "happy", "the", "zxq"]


def test_kinds_of_text_between_spaces_are_known():
    found = {text: spelling_of_chunk(text) for text in ("https://a.org/b", "3:16", "U.S.", "snake_case", "word", "50%")}
    assert found["https://a.org/b"] == ["web address"]
    assert "chapter and verse" in found["3:16"]
    assert "initials" in found["U.S."]
    assert "identifier_with_underscores" in found["snake_case"]
    assert found["word"] == []
    assert found["50%"] == ["percentage"]


def test_the_lexicon_is_small_and_has_its_licence():
    assert LEXICON.stat().st_size < 700_000
    assert "Princeton University" in LEXICON.with_name("lexicon.LICENSE").read_text()


def planted(folder: Path, fires, *, seed: int = 0) -> list[Label]:
    """Labels of features that fire where `fires(words) [n, n_features]` says, on random words."""
    generator = torch.Generator().manual_seed(seed)
    n = 160 * CONTEXT
    tokens = torch.randint(1, len(WORDS), (n,), generator=generator)
    document = torch.arange(n) // CONTEXT
    tokens[::CONTEXT], document[::CONTEXT] = 0, -1
    words = np.array(WORDS)[tokens.numpy()]
    acts = torch.from_numpy(np.stack(fires(words), axis=1)).float()
    acts[document < 0] = 0
    recording = write_recording(folder, acts, tokens, document, context_length=CONTEXT, shard_contexts=40)
    statistics = collect_together(
        [Encoded(TableDictionary(acts.shape[1]), HOOK)], recording, window=1, n_top=4, seed=0
    )[0]
    return label_features(statistics, recording, WORDS, None)


def test_planted_classes_positions_and_neighbours_are_named(tmp_path: Path):
    def fires(words):
        bare = np.char.strip(words)
        following, first = np.append(bare[1:], ""), np.arange(len(words)) % CONTEXT == 1
        opened = np.insert(np.isin(words[:-1], [".", "\n"]), 0, False)
        return [
            np.isin(bare, MONTHS), np.isin(bare, PAST), np.isin(following, COUNTRIES), first,
            opened & np.char.isalpha(bare), bare == "January", np.isin(bare, ["apple", "river"]),
            (bare == "in") & np.isin(np.insert(bare[:-1], 0, ""), PAST),
        ]  # fmt: skip

    labels = planted(tmp_path / "rec", fires)
    assert labels[0].names == ("calendar month",)
    assert labels[0].source == "word classes"
    assert labels[0].share == 1
    assert labels[0].score > 0.85, "one token in six is a month, so 1 is out of reach"
    assert labels[0].null < 0.6
    assert labels[1].names[0].endswith("past form")
    assert labels[2].kind == "before_class"
    assert "country" in labels[2].names[0].lower()
    assert labels[3].names == ("first token of a document",)
    assert labels[4].names == ("start of a sentence",)
    assert labels[5].kind == "token", "a class is more than one of its words"
    assert labels[6].kind == "tokens"
    assert labels[7].kind == "token_after_class"
    assert labels[7].names[0] == " in"
    assert labels[7].names[1].endswith("past form")
    assert all(other.score is not None and other.score > 0.5 for label in labels for other in label.others)


def test_random_firing_gets_no_reading(tmp_path: Path):
    def fires(words):
        generator = np.random.default_rng(0)
        return [generator.random(len(words)) < rate for rate in np.linspace(0.004, 0.1, 100)]

    labels = [label for seed in range(3) for label in planted(tmp_path / str(seed), fires, seed=seed)]
    assert sum(label.kind != "none" for label in labels) <= 0.05 * len(labels)
    assert all(label.score is None and label.share is None for label in labels if label.kind == "none")


def test_a_reading_of_few_documents_is_not_confirmed(tmp_path: Path):
    """The only evidence lies in one document: no held-out firing remains."""

    def fires(words):
        return [(np.char.strip(words) == "apple") & (np.arange(len(words)) < 8 * CONTEXT)] * 2

    labels = planted(tmp_path / "rec", fires)
    assert all(label.kind in ("none", "rare") or (label.n_heldout or 0) >= 5 for label in labels)
