"""Neurons as a dictionary: the same numbers as the MLP, through the same protocol as an SAE."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from planted import random_recording

from interp.dictionary import Dictionary
from interp.errors import ConfigError, MismatchError
from interp.models.adapter import run_with_cache, weight_hash
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from saes.features.build import Described, build_features
from saes.features.sources import NeuronBasis, neurons_of

PLACE = "blocks.1.mlp.hook_post"


@pytest.fixture(scope="module")
def model():
    return load_model(SmallConfig(d_model=12, n_heads=4, d_mlp=20))


@pytest.mark.parametrize("sign", [1, -1])
def test_sparse_and_dense_encodings_agree(model, sign: int):
    neurons = neurons_of(model, PLACE, sign=sign)
    assert isinstance(neurons, Dictionary)
    x = torch.randn(9, 20)
    sparse = neurons.encode_sparse(x)
    dense = torch.zeros(9, 20).scatter_(1, sparse.indices.long(), sparse.values)
    assert torch.equal(dense, neurons.encode(x))
    assert (dense >= 0).all()


def test_both_signs_together_are_the_output_of_the_mlp(model):
    tokens = torch.randint(0, 200, (1, 30))
    _, cache = run_with_cache(model, tokens, [PLACE, "blocks.1.hook_mlp_out"])
    parts = [neurons_of(model, PLACE, sign=sign) for sign in (1, -1)]
    ours = sum(part.decode(part.encode(cache[PLACE])) for part in parts)
    bias = cache["blocks.1.hook_mlp_out"] - ours
    torch.testing.assert_close(bias, bias[:, :1].expand_as(bias), atol=1e-5, rtol=0)


def test_neurons_go_through_the_feature_tables(model, tmp_path: Path):
    recording = random_recording(tmp_path / "rec", d=20, hook_point=PLACE, weight_hash=weight_hash(model))
    build_features(
        Described(dictionary=neurons_of(model, PLACE), name=f"neurons:{PLACE}", folder=tmp_path / "f"), recording, model
    )
    features = pq.read_table(tmp_path / "f" / "features.parquet")
    assert len(features) == 20
    assert all(0.3 < density < 0.7 for density in features["density"].to_pylist()), "Gaussian input"
    assert all(len(tokens) == 10 for tokens in features["promoted_tokens"].to_pylist())


def test_a_place_without_neurons_is_refused(model):
    for place in ("blocks.1.hook_resid_post", "blocks.7.mlp.hook_post", "hook_embed"):
        with pytest.raises(ConfigError, match="neurons live at"):
            neurons_of(model, place)
    with pytest.raises(MismatchError, match="W_out"):
        NeuronBasis(5, PLACE, torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="sign"):
        NeuronBasis(4, PLACE, torch.zeros(4, 3), sign=2)
