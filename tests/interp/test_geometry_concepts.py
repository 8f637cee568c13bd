"""Directions, probes, erasure, analogies and clusters: planted concepts, and labels that mean nothing."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, MismatchError, NonFiniteError, UnknownNameError
from interp.geometry.analogies import WordVectors
from interp.geometry.probes import (
    accuracy_interval,
    concept_directions,
    control_classes,
    erasure,
    fit_eraser,
    fit_linear,
    one_hot,
    probe_layers,
    split_by_document,
)
from interp.geometry.shapes import cluster_tests, silhouettes
from interp.statistics import proportion_interval

SEEDS = (0, 1, 2)


def planted_concept(seed, n=400, d=16, gap=3.0, nuisance=0.0):
    """Rows whose first coordinate says yes or no, and whose second, much larger, half follows it by chance."""
    rng = np.random.default_rng(seed)
    yes = rng.random(n) < 0.5
    x = rng.standard_normal((n, d))
    x[:, 0] += gap * yes
    x[:, 1] = 8 * rng.standard_normal(n) + nuisance * yes
    return x, yes, rng.random(n) < 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_all_three_recipes_find_a_planted_direction_where_it_is_the_largest(seed):
    rng = np.random.default_rng(seed)
    yes = rng.random(300) < 0.5
    x = rng.standard_normal((300, 10)) + np.outer(yes, 8 * np.eye(10)[2])
    found = concept_directions(x, yes, rng.random(300) < 0.5)
    for each in found.directions:
        assert each.direction[2] > 0.7
        assert each.accuracy > 0.99
        assert 5 < each.distance < 8.7
    assert found["difference in means"].direction[2] > 0.98
    assert found["difference in means"].shuffled == pytest.approx(0.5, abs=0.25)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_difference_in_means_is_misled_by_what_a_probe_looks_past(seed):
    x, yes, heldout = planted_concept(seed, nuisance=5.0)
    found = concept_directions(x, yes, heldout)
    assert found["probe"].accuracy > found["difference in means"].accuracy + 0.15
    assert abs(found["PCA"].direction[1]) > 0.98, "the largest variance is no concept"
    assert found.cosines["difference in means, probe"] < 0.8


def test_one_class_only_is_refused():
    x = np.random.default_rng(0).standard_normal((20, 3))
    for call in (
        lambda: concept_directions(x, np.ones(20), np.arange(20) < 10),
        lambda: fit_eraser(x, np.ones(20)),
        lambda: probe_layers({"a": x}, np.ones(20), np.arange(20), key=np.arange(20)),
    ):
        with pytest.raises(ConfigError, match="class"):
            call()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n_classes", [2, 4])
def test_after_erasure_a_linear_probe_knows_the_base_rate_and_no_more(seed, n_classes):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, 600)
    labels[:40] = 0  # classes of different sizes
    x = (
        rng.standard_normal((600, 12)) @ rng.standard_normal((12, 12))
        + 2 * rng.standard_normal((n_classes, 12))[labels]
    )
    found = erasure(x, labels, np.arange(600) % 3 == 0)
    assert found.before > 0.6
    assert found.after == pytest.approx(found.base_rate, abs=1e-12)
    assert found.after_heldout == pytest.approx(found.base_rate_heldout, abs=0.08)
    assert found.cross_covariance < 1e-10
    assert found.random > found.after_heldout + 0.1, "random directions erase nothing"
    assert 0 < found.change < 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_erasure_is_the_smallest_change_that_equates_the_class_means(seed):
    rng = np.random.default_rng(seed)
    labels = rng.random(500) < 0.3
    x = rng.standard_normal((500, 6)) @ rng.standard_normal((6, 6)) + np.outer(labels, rng.standard_normal(6))
    eraser = fit_eraser(x, labels)
    erased = eraser(x)
    assert np.allclose(erased[labels].mean(0), erased[~labels].mean(0), atol=1e-10)
    assert np.allclose(erased.mean(0), x.mean(0))
    assert np.allclose(eraser(erased), erased), "twice is once"
    changed = ((erased - x) ** 2).sum()
    gap = x[labels].mean(0) - x[~labels].mean(0)
    for _ in range(20):  # other projections that remove the gap: along it, onto any plane that does not hold it
        read = rng.standard_normal(6)
        read = read / (read @ gap)
        other = x - np.outer((x - x.mean(0)) @ read, gap)
        assert np.allclose(other[labels].mean(0), other[~labels].mean(0), atol=1e-8)
        assert ((other - x) ** 2).sum() >= changed


def test_erasure_agrees_with_concept_erasure():
    """Frozen rows of concept-erasure 0.2.4, `LeaceEraser.fit(..., shrinkage=False)` (its default shrinks the
    covariance)."""
    labels = np.arange(60) % 3
    x = np.random.default_rng(8).standard_normal((60, 4)) + labels[:, None] * [1, 0, 0.5, 0]
    theirs = [
        [1.0764603762627356, -0.6066585665669019, 0.634993248364178, -0.7449307064512993],
        [0.5571029326600334, 0.6024444693911387, 0.725604629085585, 0.06685877735979373],
    ]
    assert np.allclose(fit_eraser(x, labels)(x)[:2], theirs, atol=1e-10)


def test_erasure_of_rows_in_few_dimensions_stays_in_them():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 3)) @ rng.standard_normal((3, 20))
    labels = x[:, 0] > 0
    erased = fit_eraser(x, labels)(x)
    assert np.linalg.matrix_rank(erased - x.mean(0), tol=1e-6) == 2
    assert one_hot(labels, 100).shape == (100, 2)


def text_like(seed, n=1200, d=20, n_documents=30, n_words=60):
    """Rows that hold their word's vector, their document's, and whether a planted thing is there."""
    rng = np.random.default_rng(seed)
    word, document = rng.integers(0, n_words, n), np.repeat(np.arange(n_documents), n // n_documents)
    there = rng.random(n) < 0.4
    x = rng.standard_normal((n_words, d))[word] + 0.5 * rng.standard_normal((n, d))
    return x, there, document, word, rng


@pytest.mark.parametrize("seed", SEEDS)
def test_a_planted_thing_is_selective_and_a_property_of_words_is_learned_by_heart(seed):
    x, there, document, word, rng = text_like(seed)
    planted = x + np.outer(there, 3 * rng.standard_normal(20) / np.sqrt(20) * 2)
    of_words = np.isin(word, rng.permutation(60)[:24])
    [thing] = probe_layers({"here": planted}, there, document, key=word)
    assert thing.accuracy.estimate > 0.95
    assert thing.selectivity > 0.15
    assert thing.accuracy.contains(thing.accuracy.estimate)
    [heart] = probe_layers({"here": x}, of_words, document, key=word)
    assert heart.accuracy.estimate > heart.base_rate + 0.02, "it can be read"
    assert abs(heart.selectivity) < 0.15, "but no better than any random property of words"


def test_the_interval_of_an_accuracy_has_a_width_even_where_every_answer_is_right():
    document = np.repeat(np.arange(6), 5)
    all_right = accuracy_interval(np.ones(30, bool), document)
    assert all_right == pytest.approx(tuple(proportion_interval(6, 6))), "a document counts once"
    some = accuracy_interval(np.arange(30) % 7 > 0, document)
    assert some.estimate == pytest.approx(25 / 30)
    assert 0.5 < some.low < some.estimate < some.high <= 1


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_that_mean_nothing_are_answered_at_the_base_rate(seed):
    x, _, document, word, rng = text_like(seed)
    [found] = probe_layers({"here": x}, rng.random(len(x)) < 0.3, document, key=word, seed=seed)
    assert found.accuracy.estimate == pytest.approx(found.base_rate, abs=0.06)
    assert found.accuracy.low <= found.base_rate + 0.02


def test_a_label_of_documents_cannot_be_learned_when_documents_are_held_out():
    x, _, document, word, rng = text_like(0)
    x = x + 3 * rng.standard_normal((30, 20))[document]
    label = np.isin(document, np.arange(30)[rng.permutation(30)[:15]])
    [found] = probe_layers({"here": x}, label, document, key=word)
    assert found.accuracy.estimate < 0.8, "rows of a document are alike; seen in training they would give 1"
    train = split_by_document(document, label, heldout=0.5, seed=0)
    assert not set(document[train]) & set(document[~train])


def test_control_classes_follow_the_key_and_keep_the_shares():
    word = np.random.default_rng(0).integers(0, 200, 5000)
    labels = np.random.default_rng(1).random(5000) < 0.3
    control = control_classes(word, labels, seed=0)
    assert all(len(set(control[word == w])) == 1 for w in range(200))
    assert control.mean() == pytest.approx(0.3, abs=0.1)


def test_more_dimensions_than_rows_give_the_same_probe_as_its_rows_span():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((30, 50)), rng.random(30) < 0.5
    wide = fit_linear(x, labels)
    padded = fit_linear(np.concatenate([x, np.zeros((30, 3))], axis=1), labels)
    assert np.allclose(wide.scores(x), padded.scores(np.concatenate([x, np.zeros((30, 3))], axis=1)), atol=1e-2)


ROWS = {"a": np.random.default_rng(0).standard_normal((60, 8))}
LABELS, DOCUMENTS, KEYS = np.arange(60) % 2, np.arange(60) // 6, np.arange(60) % 7


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"key": np.zeros(60)}, ConfigError, "two keys"),
        ({"document": np.arange(60) % 3}, ConfigError, "3 documents"),
        ({"labels": LABELS[:, None]}, ConfigError, "one label for each of the 60 rows.*flat"),
        ({"labels": np.where(np.arange(60) == 3, np.nan, LABELS)}, NonFiniteError, "label.*row 3"),
        ({"labels": [None, *LABELS[1:]]}, ConfigError, "one kind"),
        ({"key": KEYS[:5]}, ConfigError, "one key"),
        ({"document": DOCUMENTS[:5]}, ConfigError, "one document"),
        ({"layers": ROWS | {"b": ROWS["a"][:50]}}, ConfigError, "of b must be 60 rows"),
        ({"layers": {"a": ROWS["a"][:50]}}, ConfigError, "50 rows"),
        ({"layers": {}}, ConfigError, "at least one hook point"),
    ],
)
def test_columns_of_a_probe_that_do_not_fit_are_refused(changed, error, message):
    given = {"layers": ROWS, "labels": LABELS, "document": DOCUMENTS, "key": KEYS} | changed
    with pytest.raises(error, match=message):
        probe_layers(**given)


def test_classes_may_be_text_or_fractions():
    [plain] = probe_layers(ROWS, LABELS, DOCUMENTS, key=KEYS)
    for names in (np.array(["no", "yes"]), np.array(["no", "yes"], dtype=object), np.array([0.5, 1.5])):
        assert probe_layers(ROWS, names[LABELS], DOCUMENTS, key=KEYS) == [plain]


HELD = np.arange(60) % 3 == 0


@pytest.mark.parametrize(
    ("x", "labels", "heldout", "error", "message"),
    [
        (np.ones((60, 8)), LABELS, HELD, ConfigError, "same point"),
        (ROWS["a"], LABELS[:5], HELD, ConfigError, "one label for each of the 60 rows"),
        (ROWS["a"], LABELS, HELD[:5], ConfigError, "one held-out mark for each of the 60 rows"),
        (ROWS["a"], LABELS, np.arange(60), ConfigError, "true or false"),
        (ROWS["a"], LABELS, np.full(60, np.nan), NonFiniteError, "held-out mark"),
    ],
)
def test_an_erasure_whose_parts_do_not_fit_is_refused(x, labels, heldout, error, message):
    with pytest.raises(error, match=message):
        erasure(x, labels, heldout)


def test_an_eraser_takes_rows_of_its_own_width():
    eraser = fit_eraser(ROWS["a"], LABELS)
    with pytest.raises(MismatchError, match="8 coordinates, got 7"):
        eraser(ROWS["a"][:, :7])
    with pytest.raises(MismatchError, match="8 coordinates"):
        eraser.hook()(torch.ones(1, 2, 7))


def planted_words(seed=0, n_pairs=6, d=40):
    """Pairs that differ by one offset, each with spelling variants nearby, among unrelated words, all off-centre."""
    rng = np.random.default_rng(seed)
    offset = rng.standard_normal(d)
    words, vectors = [], []
    for pair in range(n_pairs):
        base = rng.standard_normal(d)
        for word, vector in ((f" low{pair}", base), (f" high{pair}", base + offset)):
            for variant in (word, word.strip(), word.upper()):
                words.append(variant)
                vectors.append(vector + (0.05 if variant != word else 0.1) * rng.standard_normal(d))
    for number in range(300):
        words.append(f" other{number}")
        vectors.append(rng.standard_normal(d))
    return WordVectors(words, np.array(vectors) + 5)


def test_variants_of_a_word_are_its_nearest_neighbours_and_left_out_of_the_others():
    words = planted_words()
    near = words.nearest(" low0", 5)
    assert {each.word for each in near.neighbours[:2]} == {"low0", " LOW0"}
    assert all(each.variant for each in near.neighbours[:2])
    assert not any(each.variant for each in near.others)
    assert near.random_high > near.random


def test_a_planted_relation_holds_and_shuffled_pairs_do_not():
    rng = np.random.default_rng(0)
    offset, base = 1.5 * rng.standard_normal(40), rng.standard_normal((6, 40))
    decoys = base + rng.standard_normal((6, 40))  # nearer to the first words than the second ones are
    kinds = {"low": base, "high": base + offset, "decoy": decoys}
    words = WordVectors(
        [f" {kind}{i}" for kind in kinds for i in range(6)] + [f" other{i}" for i in range(200)],
        np.concatenate([*kinds.values(), rng.standard_normal((200, 40))]),
    )
    found = words.relation([(f" low{i}", f" high{i}") for i in range(6)])
    assert found.accuracy == 1
    assert found.c_alone < 0.3
    assert found.shuffled < 1, "the kinds have an offset, whoever is paired with whom"
    unrelated = words.relation([(f" other{i}", f" other{i + 50}") for i in range(6)])
    assert unrelated.accuracy < 0.1
    with pytest.raises(ConfigError, match="three"):
        words.relation([(" low0", " high0")])


def test_unknown_words_list_the_nearest_and_say_why():
    with pytest.raises(UnknownNameError, match="several tokens"):
        planted_words().nearest(" low99")


def test_words_that_lie_together_are_a_cluster_and_dealt_words_are_not():
    rng = np.random.default_rng(0)
    layers = [rng.standard_normal((10, 8)) + 6 * np.eye(8)[0], rng.standard_normal((10, 8))]
    others = [rng.standard_normal((12, 8)) for _ in range(2)]
    found = cluster_tests({"together": layers, "others": others, "more": [o[::-1] + 0.01 for o in others]}, n_deals=199)
    assert found["together"].p == 1 / 200
    assert found["together"].layer == 0
    assert found["others"].p > 0.05
    with pytest.raises(ConfigError, match="two lists"):
        cluster_tests({"alone": layers})


def test_silhouettes_are_those_of_scikit_learn():
    from sklearn.metrics import silhouette_samples

    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((30, 4)), rng.integers(0, 3, 30)
    distances = np.linalg.norm(x[:, None] - x[None], axis=-1)
    ours = silhouettes(distances[None], labels)[0]
    theirs = silhouette_samples(x, labels)
    assert np.allclose(ours, [theirs[labels == i].mean() for i in range(3)])


def test_clusters_with_nan_or_other_layers_are_refused():
    x = np.random.default_rng(0).standard_normal((5, 8))
    bad = x.copy()
    bad[2, 3] = np.nan
    with pytest.raises(NonFiniteError, match="'b'"):
        cluster_tests({"a": [x], "b": [bad]})
    for lists in ({"a": [x], "b": [x, x]}, {"a": [x, x[:4]], "b": [x, x]}):
        with pytest.raises(ConfigError, match="same words"):
            cluster_tests(lists)
    with pytest.raises(MismatchError, match="coordinates"):
        cluster_tests({"a": [x], "b": [x[:, :7]]})
    with pytest.raises(ConfigError, match="n_deals"):
        cluster_tests({"a": [x], "b": [x]}, n_deals=0)


def test_a_column_that_is_the_label_is_a_direction_although_shuffled_labels_may_leave_none():
    yes = np.tile([0, 1], 12)
    found = concept_directions(yes[:, None].astype(float), yes, np.arange(24) >= 12)
    assert all(each.accuracy == 1.0 for each in found.directions)
    assert all(each.shuffled < 0.9 for each in found.directions)


@pytest.mark.parametrize("seed", range(3))
def test_where_the_pairing_does_not_matter_shuffled_pairs_do_as_well(seed):
    """Two kinds of words, each with a mean of its own: `b - a` leads from kind to kind whichever pair it is of."""
    rng = np.random.default_rng(seed)
    kinds, own = 10 * np.linalg.qr(rng.standard_normal((50, 2)))[0].T, 0.25 * rng.standard_normal((8, 50))
    vectors = np.concatenate([kinds[0] + own, kinds[1] + own, rng.standard_normal((500, 50))])
    names = [*(f"a{i}" for i in range(8)), *(f"b{i}" for i in range(8)), *(f"x{i}" for i in range(500))]
    words = WordVectors(names, vectors, centre=False)
    found = words.relation([(f"a{i}", f"b{i}") for i in range(8)], n_shuffles=20, seed=seed)
    assert found.accuracy == 1.0
    assert found.shuffled > 0.9
    with pytest.raises(ConfigError, match="n_shuffles"):
        words.relation([(f"a{i}", f"b{i}") for i in range(8)], n_shuffles=0)


def test_where_all_words_are_variants_there_is_nothing_near():
    words = WordVectors(["it", " It", "IT"], np.eye(3))
    with pytest.raises(ConfigError, match="variants"):
        words.nearest("it")
