"""Labels: planted causes of firing are named, and base rates keep common tokens from explaining everything."""

from pathlib import Path

import numpy as np
import pytest
import torch
from planted import HOOK, TableDictionary, write_recording

from saes.explain.tokens import (
    Label,
    Reading,
    choose_label,
    label_features,
    label_without_evidence,
    measure_base_rates,
    most_telling,
    quoted,
)
from saes.features.firings import collect_statistics

VOCABULARY = ["<s>", " the", " The", " of", " cat", " dog", " run", "\n", " a", " an"] + [f" w{i}" for i in range(40)]
CONTEXT = 20


def planted_labels(folder: Path, fires, promoted: np.ndarray | None = None) -> list[str]:
    """Labels of features that fire where `fires(tokens, documents) [n, n_features]` says, on random text."""
    generator = torch.Generator().manual_seed(0)
    n = 60 * CONTEXT
    tokens = torch.randint(1, len(VOCABULARY), (n,), generator=generator)
    document = torch.arange(n) // CONTEXT
    tokens[::CONTEXT], document[::CONTEXT] = 0, -1
    names = ["numpy" if i % 6 == 0 else f"package{i % 6}" for i in range(60)]
    in_numpy = (document % 6 == 0) & (document >= 0)
    acts = fires(tokens, in_numpy).float()
    acts[document < 0] = 0
    recording = write_recording(
        folder / "rec", acts, tokens, document, context_length=CONTEXT, shard_contexts=25, labels=names
    )
    statistics = collect_statistics(TableDictionary(acts.shape[1]), recording, HOOK, window=2, n_top=4, seed=0)
    return list(map(str, label_features(statistics, recording, VOCABULARY, promoted)))


def test_planted_causes_are_named(tmp_path: Path):
    def fires(tokens, in_numpy):
        following = torch.cat([tokens[1:], torch.zeros(1, dtype=tokens.dtype)])
        preceding = torch.cat([torch.zeros(1, dtype=tokens.dtype), tokens[:-1]])
        columns = [
            tokens == 1,
            (tokens == 1) | (tokens == 2),
            following == 3,
            preceding == 4,
            in_numpy,
            torch.zeros_like(in_numpy),
            torch.ones_like(in_numpy),
        ]
        return torch.stack(columns, 1)

    labels = planted_labels(tmp_path, fires)
    assert labels[0] == '" the" (100 %)'
    assert labels[1] == '"the" in any form (100 %)'
    assert labels[2] == 'before " of" (100 %)'
    assert labels[3].startswith('after " cat"')
    assert labels[4] == "in numpy docs (100 %)"
    assert labels[5] == "dead"
    assert labels[6] == "dense (100 % of tokens)"


def test_random_firing_is_explained_by_nothing(tmp_path: Path):
    def fires(tokens, in_numpy):
        return torch.rand(len(tokens), 5, generator=torch.Generator().manual_seed(1)) < 0.2

    assert all(label.startswith("mixed: ") for label in planted_labels(tmp_path, fires))


def test_promoted_tokens_are_named_only_when_they_follow(tmp_path: Path):
    def fires(tokens, in_numpy):
        following = torch.cat([tokens[1:], torch.zeros(1, dtype=tokens.dtype)])
        one_of_three = (following == 3) | (following == 4) | (following == 5)
        return torch.stack([one_of_three, one_of_three], 1)

    comes, never_comes = planted_labels(tmp_path, fires, np.array([[4, 3, 5], [20, 21, 22]]))
    assert comes == 'promotes " cat", " of" (100 %)'
    assert "promotes" not in never_comes


def test_the_strong_firings_decide(tmp_path: Path):
    def fires(tokens, in_numpy):
        weak = torch.rand(len(tokens), generator=torch.Generator().manual_seed(2)) < 0.01
        return (5.0 * (tokens == 4) + 0.1 * weak)[:, None]

    assert planted_labels(tmp_path, fires) == ['" cat" (100 %)']


def test_a_share_no_higher_than_the_base_rate_is_no_explanation():
    common = Reading("token", (" the",), share=0.6, base=0.5)
    rare = Reading("token", (" cat",), share=0.6, base=0.01)
    assert not common.holds
    assert rare.holds
    tokens = np.array([4] * 6 + [5, 6, 7, 8])
    assert choose_label([common, rare], tokens, VOCABULARY, 0.1) == Label("token", (" cat",), 0.6)


def test_information_decides_between_readings_that_hold():
    sharp, broad = Reading("token", ("sharp",), 0.6, 0.001), Reading("before", ("broad",), 0.9, 0.2)
    assert sharp.information > broad.information
    assert choose_label([broad, sharp], np.array([1]), VOCABULARY, 0.1).names == ("sharp",)


def test_three_tokens_share_a_label_when_they_make_up_half():
    tokens = np.array([8] * 3 + [9] * 2 + [1] * 2 + [10, 11, 12])
    assert choose_label([], tokens, VOCABULARY, 0.1) == Label("tokens", (" a", " the", " an"), 0.7)
    assert choose_label([], tokens, VOCABULARY, 0.6) == Label("dense", share=0.6)
    scattered = np.arange(10, 30)
    assert choose_label([], scattered, VOCABULARY, 0.1).kind == "mixed"
    weak = Reading("before", (" of",), share=0.3, base=0.01)
    assert choose_label([weak], scattered, VOCABULARY, 0.1) == Label("before", (" of",), 0.3)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (Label("token", (" the",), 0.84), '" the" (84 %)'),
        (Label("any_form", ("the",), 0.9), '"the" in any form (90 %)'),
        (Label("before", (" of",), 0.35), 'often before " of" (35 %)'),
        (Label("after", (" of",), 0.7), 'after " of" (70 %)'),
        (Label("document", ("numpy",), 0.8), "in numpy docs (80 %)"),
        (Label("promotes", (" and", " or"), 0.55), 'promotes " and", " or" (55 %)'),
        (Label("tokens", (" a", " an", " any"), 0.61), '" a", " an", " any" (61 %)'),
        (Label("dense", share=0.73), "dense (73 % of tokens)"),
        (Label("mixed", (" the", "\n")), 'mixed: " the", "\\n"'),
        (Label("rare", (" cat",)), 'rare: " cat"'),
        (Label("dead"), "dead"),
    ],
)
def test_every_kind_of_label_has_its_sentence(label: Label, text: str):
    assert str(label) == text


def test_the_most_telling_value_beats_the_most_common_one():
    base = np.array([0.9, 0.05, 0.05])
    ids = np.array([0] * 5 + [1] * 5)
    reading = most_telling("token", ids, base, ["a", "b", "c"])
    assert reading is not None
    assert (reading.names, reading.share) == (("b",), 0.5)
    assert most_telling("token", np.array([-1, -1]), base, ["a", "b", "c"]) is None


def test_base_rates_count_real_tokens_only(tmp_path: Path):
    tokens, document = torch.tensor([0, 1, 1, 2, 0, 3, 3, 3]), torch.tensor([-1, 0, 0, 0, -1, 1, 1, 1])
    recording = write_recording(
        tmp_path / "rec", torch.zeros(8, 3), tokens, document, context_length=4, shard_contexts=1, labels=["x", "y"]
    )
    base = measure_base_rates(recording, 5)
    np.testing.assert_allclose(base.tokens, [0, 2 / 6, 1 / 6, 3 / 6, 0])
    np.testing.assert_allclose(base.labels, [0.5, 0.5])


@pytest.mark.parametrize(("tokens", "expected"), [([], "dead"), ([4, 4, 5], 'rare: " cat", " dog"')])
def test_features_without_evidence_say_so(tokens: list[int], expected: str):
    assert str(label_without_evidence(np.array(tokens, int), VOCABULARY)) == expected


def test_tokens_in_labels_are_quoted_on_one_line_and_short():
    assert quoted("\n<b>") == '"\\n<b>"'
    assert len(quoted("x" * 500)) < 30
