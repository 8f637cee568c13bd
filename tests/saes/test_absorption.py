"""Absorption that is planted comes back at its rate, and where there is none the score is 0."""

import numpy as np
import pytest
import torch
from planted import HOOK, write_recording

from interp.errors import ConfigError, MismatchError
from interp.results import cell
from saes.evaluation.absorption import (
    ClassedActivations,
    absorption_of,
    first_letters,
    main_latents,
    measure_absorption,
    split_groups,
)
from saes.evaluation.probing import sparse_columns
from saes.evaluation.scores import AbsorptionConfig, absorption_table
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE
from saes.kinds.transcoder import Transcoder

CLASSES, CHILDREN, OTHERS = 5, 16, 20
N = CLASSES * (1 + CHILDREN) + OTHERS
"""features: the classes, then each class's children, then others"""
SEEDS = (0, 1, 2)

pytestmark = pytest.mark.usefixtures("one_thread")


def children(label: int) -> range:
    return range(CLASSES + label * CHILDREN, CLASSES + (label + 1) * CHILDREN)


def hierarchy(share: float, *, n: int = 5000, seed: int = 0) -> tuple[ClassedActivations, np.ndarray, torch.Tensor]:
    """Rows of one class each; on `share` of them one of the class's children is on too, and is the row's group.

    Also whether a row has a child, and the orthonormal directions `[N, N]`.
    """
    rng = np.random.default_rng(seed)
    label, child = rng.integers(0, CLASSES, n), rng.integers(0, CHILDREN, n)
    has = rng.random(n) < share
    on = torch.zeros(n, N)
    on[torch.arange(n), torch.from_numpy(label)] = 1
    which = CLASSES + label * CHILDREN + child
    on[torch.from_numpy(np.flatnonzero(has)), torch.from_numpy(which[has])] = 1
    on[:, -OTHERS:] = torch.from_numpy((rng.random((n, OTHERS)) < 0.1).astype(np.float32))
    directions = torch.linalg.qr(torch.from_numpy(rng.normal(size=(N, N))).float()).Q
    group = np.where(has, which, N + np.arange(n) // 3)
    x = on @ directions + 0.002 * torch.from_numpy(rng.normal(size=(n, N))).float() + 0.3
    return ClassedActivations(x, label, group, [f"class {i}" for i in range(CLASSES)]), has, directions


def dictionary(directions: torch.Tensor, taken: float) -> ReLUSAE:
    """The true features, where a child takes the share `taken` of its class's direction over."""
    enc, dec = torch.eye(N), torch.eye(N)
    for label in range(CLASSES):
        enc[label, list(children(label))] = -taken
        dec[list(children(label)), label] = taken
    weights = Weights(
        (enc @ directions).T.contiguous(), torch.full((N,), -0.06), dec @ directions, torch.full((N,), 0.3)
    )
    return ReLUSAE(weights, metadata=SAEMetadata(hook_point=HOOK))


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_planted_absorption_comes_back_at_its_rate(share):
    examples, has, directions = hierarchy(share)
    saes = {"absorbed": dictionary(directions, 1.0), "clean": dictionary(directions, 0.0)}
    found = measure_absorption(saes, examples, AbsorptionConfig(seeds=SEEDS))
    rates = []
    for seed in SEEDS:
        _, test = split_groups(examples._replace(x=torch.from_numpy(has)[:, None].float()), 0.4, seed)
        rates.append([test.x[test.label == c].mean() for c in range(CLASSES)])
    absorbed, clean = found["absorbed"], found["clean"]
    assert absorbed.full == pytest.approx(np.mean(rates), abs=0.02)
    assert absorbed.by_seed == pytest.approx(np.mean(rates, axis=1), abs=0.03)
    assert absorbed.fraction == pytest.approx(np.mean(rates), abs=0.02)
    low, high = absorbed.intervals["full"]
    assert low < absorbed.full < high
    assert (clean.full, clean.fraction) == (0, 0)
    assert clean.main_f1 > 0.99 > absorbed.main_f1
    assert [c.main for c in clean.classes] == [(c,) for c in range(CLASSES)]
    assert [c.main[0] for c in absorbed.classes] == list(range(CLASSES))
    assert absorbed.probe_f1 > 0.99
    lines = absorption_table(found).splitlines()
    assert lines[1].split()[:2] == ["absorbed", cell(absorbed.full)]


def test_what_is_taken_over_in_part_shows_in_the_fraction_alone():
    examples, has, directions = hierarchy(0.4)
    found = measure_absorption({"half": dictionary(directions, 0.5)}, examples, AbsorptionConfig(seeds=SEEDS))["half"]
    assert found.full == 0
    assert found.fraction == pytest.approx(0.5 * has.mean(), abs=0.03)


def test_of_few_groups_no_interval_is_given():
    examples, _, directions = hierarchy(0.4, n=600)
    groups = examples._replace(group=np.arange(600) % 7)
    found = measure_absorption({"a": dictionary(directions, 1.0)}, groups, AbsorptionConfig(seeds=SEEDS))["a"]
    assert found.intervals == {}
    assert found.full > 0


def test_without_children_nothing_can_be_absorbed():
    examples, _, directions = hierarchy(0.0)
    found = measure_absorption({"a": dictionary(directions, 1.0)}, examples, AbsorptionConfig(seeds=SEEDS))["a"]
    assert (found.full, found.fraction, found.by_seed) == (0, 0, [0, 0, 0])


def test_the_rules_are_those_of_the_paper_row_by_row():
    along = cosines = torch.tensor([1.0, 0.5, 0.02, 0.2, -0.5])
    acts = torch.tensor(
        [
            [1.0, 0, 0, 0, 0],  # the main latent fires
            [0, 1.0, 0, 0, 0],  # silent, and another adds half of the whole: absorbed
            [0, 0.5, 0, 0, 0],  # that adds a quarter: too little
            [0, 0, 50.0, 0, 0],  # all of it, but not aligned
            [0, 0, 0, 0, 9.0],  # points away
            [0.5, 0.8, 0, 0, 0],  # half each, nearly
        ]
    )
    full, fraction = absorption_of(acts, along, cosines, torch.ones(6), [0])
    assert full.tolist() == [False, True, False, False, False, False]
    assert fraction.tolist() == pytest.approx([0, 1, 0, 0, 0, 0.4 / 0.9])
    none, nothing = absorption_of(acts, along, cosines, -torch.ones(6), [0])
    assert not none.any()
    assert not nothing.any()


def test_a_class_that_is_split_over_latents_has_all_of_them_as_main():
    rng = np.random.default_rng(0)
    yes = rng.random(800) < 0.3
    acts = np.zeros((800, 6), np.float32)
    half = rng.random(800) < 0.5
    acts[yes & half, 2] = acts[yes & ~half, 4] = 1
    acts[:, 0] = rng.random(800) < 0.5
    from scipy.sparse import csr_matrix

    chosen, f1 = main_latents(csr_matrix(acts), csr_matrix(acts), yes, yes)
    assert sorted(chosen) == [2, 4]
    assert f1 == 1


def test_no_group_is_on_both_sides_of_a_split():
    examples, _, _ = hierarchy(0.4, n=600)
    for seed in SEEDS:
        train, test = split_groups(examples, 0.4, seed)
        assert not set(train.group) & set(test.group)
        assert len(train.x) + len(test.x) == 600
        assert 0.25 < len(test.x) / 600 < 0.55


def test_first_letters_are_those_of_words_in_the_text(tmp_path):
    vocabulary = ["<bos>", " the", " Tree", "tail", " 12", " a", " of", " of2", " zoo", "."]
    tokens = torch.arange(400) % 10
    x = torch.arange(400)[:, None].repeat(1, 3).float()
    document = torch.where(tokens == 0, -1, torch.arange(400) // 20)
    recording = write_recording(tmp_path / "r", x, tokens, document, context_length=20, shard_contexts=4)
    found = first_letters(recording, HOOK, vocabulary, AbsorptionConfig(per_word=3))
    words = [vocabulary[int(row) % 10] for row in found.x[:, 0]]
    assert sorted(set(words)) == [" Tree", " of", " the", " zoo"]
    assert all(words.count(word) == 3 for word in set(words))
    assert [found.names[i] for i in found.label] == [word[1].lower() for word in words]
    assert [vocabulary[i] for i in found.group] == words
    with pytest.raises(ConfigError, match="holds no words"):
        first_letters(recording, HOOK, ["."] * 10)


def test_what_a_linear_probe_cannot_tell_is_refused_with_its_scores():
    examples, _, directions = hierarchy(0.4, n=1500)
    noise = examples._replace(x=torch.randn(1500, N, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ConfigError, match=r"detects 0 of 5 classes .*class 0 0\.\d\d, class 1"):
        measure_absorption({"a": dictionary(directions, 1.0)}, noise, AbsorptionConfig(seeds=(0,)))
    few = examples._replace(x=examples.x[:20], label=examples.label[:20], group=examples.group[:20])
    with pytest.raises(ConfigError, match="no class has enough rows"):
        measure_absorption({"a": dictionary(directions, 1.0)}, few, AbsorptionConfig(seeds=(0,)))


def test_dictionaries_of_other_places_are_refused():
    examples, _, directions = hierarchy(0.4, n=300)
    sae = dictionary(directions, 0.0)
    across = Transcoder(sae.weights, metadata=SAEMetadata(hook_point=HOOK, hook_point_out="blocks.1.hook_mlp_out"))
    with pytest.raises(MismatchError, match="does not read and write"):
        measure_absorption({"across": across}, examples)
    with pytest.raises(MismatchError, match="does not read and write"):
        measure_absorption({"a": sae}, examples._replace(x=examples.x[:, :7]))


def test_features_in_columns_are_the_activations():
    examples, _, directions = hierarchy(0.4, n=100)
    sae = dictionary(directions, 0.0)
    np.testing.assert_allclose(sparse_columns(sae, examples.x).toarray(), sae.encode(examples.x).numpy(), atol=1e-5)
