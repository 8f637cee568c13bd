"""Attribution graphs over sets of transcoders: exact for every activation, planted sets perfect, untrained sets not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.errors import MismatchError
from interp.models.adapter import weight_hash
from interp.models.small import SmallConfig, build_small
from interp.tracing.edges import System
from interp.tracing.frozen import FrozenModel
from interp.tracing.graph import TraceConfig
from interp.tracing.trace import open_system, trace
from saes.kinds.base import ReLU, SAEMetadata, Weights
from saes.kinds.transcoder import Transcoder
from saes.sets.replacement import SetReplacement, untrained_set
from saes.sets.set import PerLayerSet, TranscoderSet
from tests.saes.test_sets import SETS, D

TOKENS = torch.tensor([[0, 3, 5, 9, 5, 2]])


def model_of(layers: int):
    config = SmallConfig(n_layers=layers, d_model=D, n_heads=2, d_mlp=16, d_vocab=12, n_ctx=8, act_fn="relu")
    model = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model


def owned(found: TranscoderSet, model) -> TranscoderSet:
    found.about = replace(found.about, weight_hash=weight_hash(model))
    return found


def perfect(model) -> PerLayerSet:
    """The MLPs themselves, which with ReLU neurons are transcoders."""
    made = {}
    for layer, block in enumerate(model.blocks):
        mlp = block.mlp
        weights = Weights(*(each.detach().clone() for each in (mlp.W_in, mlp.b_in, mlp.W_out, mlp.b_out)))
        made[layer] = Transcoder(weights, activation=ReLU())
    about = SAEMetadata(model="small", weight_hash=weight_hash(model))
    return PerLayerSet(made, reads="mlp.hook_in", writes="hook_mlp_out", about=about)


@pytest.mark.parametrize("made", SETS.values(), ids=SETS)
def test_rows_of_a_set_sum_to_what_its_latents_read(made):
    model = model_of(3)
    found = SetReplacement(owned(made(), model), "mine")
    system = System(FrozenModel(model, TOKENS, reads=found.reads_point, writes=found.writes_point), found)
    numbers = torch.arange(system.n_features).flip(0)
    rows = system.rows(system.feature_starts(numbers))
    value = rows.effects.sum(1) + rows.constant
    torch.testing.assert_close(value, system.read_values(numbers), atol=1e-4, rtol=1e-4)
    assert set(system.layer.tolist()) == {0, 1, 2}


def test_a_perfect_set_scores_one_and_an_untrained_one_does_not():
    model = model_of(2)
    found = perfect(model)
    null = SetReplacement(untrained_set(found, 0), "untrained")
    graph = trace(model, TOKENS, SetReplacement(found, "perfect"), TraceConfig(effects=0), untrained=null)
    assert graph.scores.replacement == pytest.approx(1, abs=1e-4)
    assert graph.scores.completeness == pytest.approx(1, abs=1e-4)
    for null in (graph.untrained.replacement, graph.floor.replacement, graph.untrained.completeness):
        assert null < 0.9


@pytest.mark.parametrize("made", SETS.values(), ids=SETS)
def test_a_null_on_the_same_frozen_model_leaves_the_rows_as_they_were(made):
    model = model_of(3)
    found = SetReplacement(owned(made(), model), "mine")
    system = open_system(model, TOKENS, found)
    starts = system.feature_starts(torch.arange(system.n_features).flip(0))
    before = system.rows(starts).effects
    null = System(system.frozen, SetReplacement(untrained_set(found.set, 0), "untrained"))
    assert torch.equal(system.rows(starts).effects, before)
    assert not torch.equal(null.errors, system.errors)


def test_an_untrained_set_has_the_lengths_but_not_the_directions():
    found = perfect(model_of(2))
    null = untrained_set(found, 0)
    one, other = found.transcoder(1), null.transcoder(1) if isinstance(null, PerLayerSet) else None
    torch.testing.assert_close(one.W_dec.norm(dim=1), other.W_dec.norm(dim=1))
    cosine = torch.nn.functional.cosine_similarity(one.W_dec, other.W_dec)
    assert float(cosine.abs().max()) < 0.95
    assert abs(float(cosine.mean())) < 0.3
    same = untrained_set(found, 0)
    assert isinstance(same, PerLayerSet)
    np.testing.assert_array_equal(same.transcoder(0).W_enc, null.transcoder(0).W_enc)  # pyright: ignore


def test_a_set_of_other_weights_or_with_a_missing_layer_is_refused():
    model = model_of(2)
    with pytest.raises(MismatchError):
        trace(model, TOKENS, SetReplacement(SETS["per layer"](), "other"))
    with pytest.raises(MismatchError, match="layer 2"):
        trace(model, TOKENS, SetReplacement(owned(SETS["per layer"](), model), "longer"))
    deeper = model_of(4)
    found = SetReplacement(owned(SETS["per layer"](), deeper), "shorter")
    with pytest.raises(MismatchError, match="no transcoder for layer 3"):
        trace(deeper, TOKENS, found)


def test_the_null_has_as_many_active_latents_as_the_set():
    model = model_of(2)
    found = perfect(model)
    with torch.no_grad():
        for layer in found.layers:
            found.transcoder(layer).b_enc -= 0.5  # sparser than its random directions are
    systems = {
        name: open_system(model, TOKENS, each)
        for name, each in {
            "set": SetReplacement(found, "set"),
            "alike": SetReplacement(untrained_set(found, 0), "untrained", as_many_as=found),
            "more": SetReplacement(untrained_set(found, 0), "untrained"),
        }.items()
    }
    counts = {name: torch.bincount(system.layer, minlength=2) for name, system in systems.items()}
    assert (counts["alike"] == torch.minimum(counts["set"], counts["more"])).all()
    kept = {tuple(row) for row in zip(*(getattr(systems["alike"], n).tolist() for n in NAMES), strict=True)}
    every = {tuple(row) for row in zip(*(getattr(systems["more"], n).tolist() for n in NAMES), strict=True)}
    assert kept <= every
    for layer in found.layers:
        dropped = [value for at, _, _, value in every - kept if at == layer]
        held = [value for at, _, _, value in kept if at == layer]
        assert not dropped or max(dropped) <= min(held), "the largest stay"


NAMES = ("layer", "position", "latent", "activation")
