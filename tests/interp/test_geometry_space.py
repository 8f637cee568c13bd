"""Spaces of representations measured and compared: planted answers, and nothing where there is nothing."""

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, MismatchError, UnknownNameError
from interp.geometry.space import EMBEDDINGS, compare_spaces, measure_space, read_points
from interp.models.adapter import bos_token_id, run_with_cache, untrained_model


@pytest.fixture(scope="module")
def tokens(tiny_model):
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(32, 127, (30, 24), generator=generator)
    drawn[:, 0] = bos_token_id(tiny_model)
    return drawn


def test_points_are_those_of_the_model_without_bos(tiny_model, tokens):
    place = "blocks.1.hook_resid_post"
    whole = 30 * 23
    rows = read_points(tiny_model, tokens, [place], whole, seed=0)[place]
    _, values = run_with_cache(tiny_model, tokens, [place])
    expected = values[place][:, 1:].reshape(whole, -1).numpy()
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="the text has 690"):
        read_points(tiny_model, tokens, [place], whole + 1, seed=0)
    with pytest.raises(UnknownNameError, match=r"blocks\.1"):
        read_points(tiny_model, tokens, ["blocks.9.hook_resid_post"], 10, seed=0)


def test_random_embeddings_are_isotropic(tiny_model):
    report = measure_space(tiny_model, n_points=256)
    (row,) = report.to_records()
    assert row["space"] == EMBEDDINGS
    assert row["participation_ratio"] == pytest.approx(row["isotropic"], rel=0.1)
    assert abs(row["cosine"]) < 0.02
    assert row["two_nn"] == pytest.approx(row["two_nn_gaussian"], rel=0.5)
    assert all(isinstance(found, str) for found in report.relations.values()), "bytes are no words"


def test_a_model_is_the_same_space_as_itself(tiny_model, tokens):
    found = compare_spaces(tokens, tiny_model, tiny_model, n_points=512, batch=128, n_shuffles=9)
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        (f"A blocks.{layer}.hook_resid_post", f"B blocks.{layer}.hook_resid_post") for layer in (0, 1)
    ]
    for pair in found.to_records():
        assert pair["cka"] == pytest.approx(1, abs=1e-5)
        assert pair["procrustes"] == pytest.approx(0, abs=1e-5)
        assert pair["procrustes_null"] > 0.5
        assert abs(pair["cka_null"]) < 0.1
        assert abs(pair["transport_excess"]) < 0.1 * pair["transport_floor"]
        assert pair["transport_p"] > 0.05


def test_another_initialisation_is_another_cloud_and_layers_of_one_model_are_neighbours(tiny_model, tokens):
    other = untrained_model(tiny_model, seed=1)
    found = compare_spaces(tokens, tiny_model, other, n_points=512, batch=128, n_shuffles=9)
    assert all(pair["transport_excess"] > 0 and pair["transport_p"] <= 0.05 for pair in found.to_records())
    own = compare_spaces(tokens, tiny_model, n_points=512, batch=128, n_shuffles=9)
    assert [(pair.first, pair.second) for pair in own.pairs] == [
        ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
    ]


def test_models_of_other_tokens_cannot_be_compared(tiny_model, tokens):
    from interp.models.toys import planted_induction

    with pytest.raises(MismatchError, match="tokenizers"):
        compare_spaces(tokens, tiny_model, planted_induction())
