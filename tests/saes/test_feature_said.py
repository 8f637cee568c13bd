"""Labels by the words that a feature makes the model say: planted ones are named, and other features' words are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import HOOK, TableDictionary, write_recording

from saes.features._firings import Encoded, collect_together
from saes.features._labels import Label, label_features
from saes.features._views import NEAR, OWN, REACH, Nearby, Windows, windows_at

CONTEXT = 40
N_WORDS = 200
VOCABULARY = ["<s>", *(f" {a}{b}{c}" for a in "bdfglmnprt" for b in "aeiou" for c in "bdgm")]
SAID = [np.arange(10, 30), np.arange(60, 80)]
"""Words that the first two features make the model say: many, so that no three of them explain a firing."""


def labels(folder: Path, said: np.ndarray | None, seed: int) -> list[Label]:
    """Return labels of two planted features and of 40 that fire at random."""
    generator = torch.Generator().manual_seed(seed)
    n = 200 * CONTEXT
    tokens = torch.randint(1, N_WORDS, (n,), generator=generator)
    document = torch.arange(n) // CONTEXT
    tokens[::CONTEXT], document[::CONTEXT] = 0, -1
    own = torch.stack([torch.from_numpy(np.isin(tokens.numpy(), words)) for words in SAID], 1)
    random = torch.rand(n, 40, generator=generator) < 0.02
    thinned = own & (torch.rand(n, 2, generator=generator) < 0.15)
    acts = torch.cat([thinned, random], 1).float()
    acts[document < 0] = 0
    recording = write_recording(
        folder / f"rec-{seed}", acts, tokens, document, context_length=CONTEXT, shard_contexts=50
    )
    [found] = collect_together([Encoded(TableDictionary(42), HOOK)], recording, window=2, n_top=48, seed=seed)
    return label_features(found, recording, VOCABULARY, None, said, seed=seed)


def sets(seed: int) -> np.ndarray:
    """Return words for all features: the planted ones, and random ones for the others."""
    rng = np.random.default_rng(seed)
    return np.stack([*SAID, *(rng.permutation(np.arange(1, N_WORDS))[:20] for _ in range(40))])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_words_that_a_feature_says_are_its_label_where_it_fires_on_them(tmp_path: Path, seed: int):
    found = labels(tmp_path, sets(seed), seed)
    assert [label.kind for label in found[:2]] == ["said", "said"]
    assert all(label.share == 1 and label.score is not None and label.score > 0.9 for label in found[:2])
    assert all(
        set(label.names) <= {VOCABULARY[i].strip() for i in words} for label, words in zip(found[:2], SAID, strict=True)
    )
    assert str(found[0]).startswith("words like ")
    assert sum(label.kind in ("said", "said_near") for label in found[2:]) <= 2, "of 40 features that fire at random"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_words_of_other_features_explain_nothing(tmp_path: Path, seed: int):
    """The null: every feature gets the words of the next one."""
    found = labels(tmp_path, np.roll(sets(seed), 1, axis=0), seed)
    assert sum(label.kind in ("said", "said_near") for label in found) <= 2


def test_without_a_lens_there_are_no_such_labels(tmp_path: Path):
    assert not any("said" in label.kind for label in labels(tmp_path, None, 0))


def test_words_are_found_near_a_firing(tmp_path: Path):
    rare = sets(0)[:, :1]
    tokens = np.array([1, 2, 3, 10, 5, 6, 7, 8])
    windows = windows_at(tokens, np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([4, 5, 0]))
    nearby = Nearby([text.strip() for text in VOCABULARY], windows, windows, np.array([0, 0, 1]), 2)
    assert nearby.holds({0: rare[0], 1: rare[0]}, NEAR).tolist() == [True, False, True], "not across passages"
    assert nearby.holds({0: np.array([5]), 1: np.array([5])}, OWN).tolist() == [True, False, False]
    assert nearby.fractions({0: rare[0]}, NEAR) == {0: pytest.approx(2 / 3)}
    shares = nearby.shares([rare[0]], NEAR, np.ones(3, bool))
    assert shares[:, 0].tolist() == [0.5, 1.0]
    assert nearby.most_frequent(0, rare[0], NEAR) == (VOCABULARY[10].strip(),)


def test_windows_end_with_the_text():
    windows = windows_at(np.arange(5), np.zeros(5, int), np.array([0, 4]))
    assert windows.near.shape == (2, 2 * REACH)
    assert sorted(windows.near[0][windows.near[0] >= 0].tolist()) == [1, 2, 3, 4]
    assert Windows.join([windows, windows]).own.tolist() == [0, 4, 0, 4]
