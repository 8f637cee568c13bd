"""Labels: planted causes of firing are named, and base rates keep common tokens from explaining everything."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from planted import HOOK, TableDictionary, write_recording
from scipy.sparse import csr_array

from interp.artifacts.tables import query
from saes.features._firings import Encoded, collect_together
from saes.features._labels import (
    FiringCounts,
    Label,
    LabelReading,
    ScoredReading,
    choose_label,
    improbable,
    label_features,
    label_without_evidence,
    quoted,
    upper_end,
    usual_shares,
)
from saes.features._views import TokenView, Views, Windows, read_text
from saes.features.schema import MOST_TELLING

MONTHS = " January February March April May June July August September October November December".replace(" ", "; ")
VOCABULARY = ["<s>", " the", " The", " of", " cat", " dog", " run", "\n", " a", " an"] + [f" w{i}" for i in range(28)]
VOCABULARY += MONTHS.split(";")[1:]
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
    statistics = collect_together(
        [Encoded(TableDictionary(acts.shape[1]), HOOK)], recording, window=2, n_top=4, seed=0
    )[0]
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
        return torch.rand(len(tokens), 200, generator=torch.Generator().manual_seed(1)) < 0.05

    labels = planted_labels(tmp_path, fires)
    assert sum(not label.startswith("no label; fires on ") for label in labels) <= 10


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


def test_the_null_of_few_readings_is_the_largest_of_them():
    """The 95th percentile between four scores would be exceeded by a third of readings that say nothing."""
    rng = np.random.default_rng(0)
    feature, tokens = np.repeat(np.arange(5), 60), rng.integers(0, 40, 300)
    view = TokenView("token", "token statistics", VOCABULARY[:40], values=[tokens], counts=np.full(40, 100))
    none = Windows.join([])
    views = Views(
        {"token": view}, np.arange(300) % 50, 4_000, [], np.zeros(0, int), Windows(feature, tokens[:, None]), none
    )
    readings = {f: LabelReading("token", (f,), 0.6, 0.025) for f in range(5)}
    judge = FiringCounts(views, feature, 5, seed=0)
    scores = judge.null(list(readings.values()))
    for f, [found] in judge.score([readings], "token statistics").items():
        others = np.delete(scores[f], f)
        assert (found.null_mean, found.null_high) == pytest.approx((others.mean(), others.max()))
        assert found.score == pytest.approx(scores[f, f])


def test_a_reading_holds_by_its_share_and_by_its_lift():
    def of(share: float, base: float) -> tuple[bool, bool]:
        reading = LabelReading("before", (0,), share, base)
        return reading.holds, reading.holds_often

    assert of(0.5, 0.16) == of(0.75, 0.25) == (True, False)
    assert of(0.5, 0.2) == of(0.19, 0.01) == of(0.3, 0.04) == (False, False)
    assert of(0.2, 0.02) == (False, True)


def test_the_value_of_a_reading_is_in_bits_less_the_price_of_a_set_or_pair():
    assert LabelReading("before", (0,), 0.5, 0.125).value == pytest.approx(100 + 0.25 * 2)
    assert LabelReading("before", (0,), 0.25, 1 / 64).value == pytest.approx(4 / 16), "it holds often only"
    assert LabelReading("tokens", (0, 1), 0.5, 1 / 64).value == pytest.approx(100 + 0.25 * (5 - 2))
    assert LabelReading("token_after_class", (0,), 0.5, 1 / 64).value == pytest.approx(100 + 0.25 * (5 - 1))


def test_a_class_that_many_features_have_comes_after_what_says_more():
    """Of 40 planted features three quarters fire on nouns; `recipe` does so too, and on one of its words at times."""
    shares = np.zeros((40, 2))
    shares[:30, 0], shares[0, 1] = np.linspace(0.7, 0.95, 30), 0.4
    usual = usual_shares(csr_array(20 * shares), np.full(40, 20))
    assert usual == pytest.approx([np.sort(shares[:, 0])[-3], 0]), "two of 40 exceed it"
    noun, recipe = LabelReading("class", (0,), 0.88, 0.2, usual[0]), LabelReading("word", (1,), 0.4, 0.001)
    assert noun.holds
    assert recipe.value > noun.value, "noun is true, and it stays where nothing says more"
    assert noun._replace(usual=0.0).value > 100 > recipe.value
    assert not usual_shares(csr_array(20 * shares[:19]), np.full(19, 20)).any(), "of 19 none is rare"


@pytest.mark.parametrize(("crowd", "label"), [(0, "calendar month"), (12, 'often " May" (')])
def test_a_class_that_many_features_have_yields_to_what_says_more(tmp_path: Path, crowd: int, label: str):
    """Of 25 planted features the first fires on May, and more weakly on all months, as `crowd` others do."""

    def fires(tokens, in_numpy):
        months = (tokens >= 38) & (torch.rand(len(tokens), generator=torch.Generator().manual_seed(3)) < 0.2)
        columns = [(tokens == 42) | months, *[months] * crowd, *[tokens == 10 + i for i in range(24 - crowd)]]
        return torch.stack(columns, 1)

    assert planted_labels(tmp_path, fires)[0].startswith(label)


def test_a_reading_that_equals_the_null_is_not_confirmed():
    found = ScoredReading(
        LabelReading("before", (0,), 0.6, 0.1), 0.6, heldout=0.6, score=0.75, null_mean=0.5, null_high=0.75
    )
    assert not found.confirmed
    assert found._replace(null_high=0.74).confirmed
    assert not found._replace(null_high=0.74, heldout=0.4).confirmed, "it no longer holds for half of the firings"


def test_a_reading_holds_on_held_out_firings_as_it_does_on_the_others():
    def confirmed(share: float, heldout: float) -> bool:
        return ScoredReading(LabelReading("before", (0,), share, 0.02), share, heldout, 0.64, 0.5, 0.6).confirmed

    assert confirmed(0.6, 0.6)
    assert confirmed(0.3, 0.3)
    assert not confirmed(0.6, 0.3), "of most firings it holds for some"
    assert not confirmed(0.3, 0.1)


@pytest.mark.parametrize(("share", "base", "n"), [(0.5, 0.1, 23), (1.0, 0.2, 8)])
def test_a_share_is_improbable_from_so_many_firings_on(share, base, n):
    """`n` firings times the divergence, 0.511 and log(5), reach log(1000 predicates / 0.01) = 11.51."""
    assert improbable(share, np.array([base, base]), np.array([n - 1, n]), 1000).tolist() == [False, True]
    assert not improbable(base, share, 10**6, 1000), "a share below the base is none"


def test_readings_that_hold_come_before_those_that_hold_often():
    holds, often = Label("token", (" cat",), 0.6), Label("before", (" of",), 0.3)
    tokens = np.array([4] * 6 + [5, 6, 7, 8])
    assert choose_label([holds, often], tokens, VOCABULARY, 0.1) == holds._replace(others=(often,))
    assert choose_label([often], tokens, VOCABULARY, 0.1) == often
    assert choose_label([often], tokens, VOCABULARY, 0.6) == Label("dense", share=0.6)
    assert choose_label([], tokens, VOCABULARY, 0.1) == Label("none", (" cat", " dog", " run"))


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
        (Label("none", (" the", "\n")), 'no label; fires on " the", "\\n"'),
        (Label("word", ("store",), 0.95), 'the word "store" (95 %)'),
        (Label("class", ("calendar month",), 0.94), "calendar month (94 %)"),
        (Label("before_class", ("country",), 0.7), "before country (70 %)"),
        (Label("after_class", ("number",), 0.4), "often after number (40 %)"),
        (Label("token_after_class", (" to", "verb of motion"), 0.93), '" to" after verb of motion (93 %)'),
        (Label("surroundings", ("start of a sentence",), 0.92), "start of a sentence (92 %)"),
        (Label("rare", (" cat",)), 'rare: " cat"'),
        (Label("dead"), "dead"),
    ],
)
def test_every_kind_of_label_has_its_sentence(label: Label, text: str):
    assert str(label) == text


def test_counts_are_of_real_tokens_only(tmp_path: Path):
    tokens, document = torch.tensor([0, 1, 1, 2, 0, 3, 3, 3]), torch.tensor([-1, 0, 0, 0, -1, 1, 1, 1])
    recording = write_recording(
        tmp_path / "rec", torch.zeros(8, 3), tokens, document, context_length=4, shard_contexts=1, labels=["x", "y"]
    )
    found = read_text(recording, np.array([1, 6]), VOCABULARY[:5])
    views = found.views
    np.testing.assert_array_equal(views["token"].counts, [0, 2, 1, 3, 0])
    np.testing.assert_array_equal(views["document"].counts, [3, 3])
    np.testing.assert_array_equal(np.concatenate(views["after"].values), [-1, 3])
    np.testing.assert_array_equal(np.concatenate(views["before"].values), [1, 3])
    assert found.n_tokens == 6


@pytest.mark.parametrize(("tokens", "expected"), [([], "dead"), ([4, 4, 5], 'rare: " cat", " dog"')])
def test_features_without_evidence_say_so(tokens: list[int], expected: str):
    assert str(label_without_evidence(np.array(tokens, int), VOCABULARY)) == expected


def test_tokens_in_labels_are_quoted_on_one_line_and_short():
    assert quoted("\n<b>") == '"\\n<b>"'
    assert len(quoted("x" * 500)) < 30


def test_the_upper_end_of_a_null_is_numpys_quantile():
    rng = np.random.default_rng(0)
    for n in range(1, 140):
        values = rng.random(n)
        assert upper_end(values) == pytest.approx(np.quantile(values, 0.95, method="weibull"))


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_feature_shown_first_does_not_depend_on_the_sparsity_of_the_dictionary(scale: float):
    """The dense planted feature has the best label; a tenth of the features is denser than the rest in every scale."""
    n = 40
    density = np.linspace(2e-4, 3e-3, n)
    density[5] = 0.03
    score = np.full(n, 0.8)
    score[[5, 7]] = 0.99, 0.95
    table = pa.table({
        "feature": range(n), "density": scale * density, "n_fired": np.full(n, 50), "label_heldout": np.full(n, 20),
        "label_kind": ["class"] * n, "label_score": score, "label_null_high": np.full(n, 0.6),
        "other_labels": [[]] * n, "max_activation": np.ones(n), "mean_activation": np.ones(n),
    })  # fmt: skip
    assert query(f"select feature from f order by {MOST_TELLING} limit 1", f=table)["feature"].to_pylist() == [7]
