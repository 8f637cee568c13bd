"""A set of transcoders: rows that add up exactly, files that circuit-tracer has, and clear errors."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.artifacts import Draft
from interp.errors import MismatchError, MissingError, NonFiniteError, UnknownNameError
from interp.workspace import Workspace
from saes.kinds.base import JumpReLU, ReLU, SAEMetadata, TopK, Weights
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.transcoder import Transcoder
from saes.sets import CrossLayerSet, PerLayerSet, TranscoderSet, open_set, read_set
from saes.sets.set import SetConfig, write_config, write_cross_layer, write_layer

N_LAYERS, D, D_SAE, POS = 3, 8, 24, 6
READS, WRITES = "mlp.hook_in", "hook_mlp_out"
ABOUT = SAEMetadata(model="small:mlp-2l", weight_hash="a" * 64, context_size=16, bos="context")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def per_layer(*, skip: bool = True) -> PerLayerSet:
    """One transcoder for each activation function."""
    activations = [ReLU(), JumpReLU(torch.rand(D_SAE, generator=torch.Generator().manual_seed(1))), TopK(5)]
    made = {}
    for layer, activation in enumerate(activations):
        weights = Weights(draw(D, D_SAE, seed=layer), draw(D_SAE, seed=layer), draw(D_SAE, D, seed=layer), draw(D))
        made[layer] = Transcoder(weights, activation=activation, W_skip=draw(D, D, seed=layer) if skip else None)
    return PerLayerSet(made, reads=READS, writes=WRITES, about=ABOUT)


def cross_layer() -> CrossLayerSet:
    clt = CrossLayerTranscoder(
        [draw(D, D_SAE, seed=n) for n in range(N_LAYERS)],
        [draw(D_SAE, seed=n) for n in range(N_LAYERS)],
        [draw(D_SAE, N_LAYERS - n, D, seed=n) for n in range(N_LAYERS)],
        [draw(D, seed=n) for n in range(N_LAYERS)],
        threshold=[draw(D_SAE, seed=n).abs() for n in range(N_LAYERS)],
        W_skip=[draw(D, D, seed=n) for n in range(N_LAYERS)],
    )
    return CrossLayerSet(clt, reads=READS, writes=WRITES, about=ABOUT)


SETS = {"per layer": per_layer, "cross layer": cross_layer}


def saved(folder, found: TranscoderSet):
    """Write a set as an artefact."""
    config = SetConfig(
        reads=found.reads, writes=found.writes, layers=found.layers, cross_layer=found.cross_layer, about=found.about
    )
    draft = Draft.open(folder, kind="transcoders", config={"made": "by hand"})
    write_config(draft.path, config)
    if isinstance(found, CrossLayerSet):
        write_cross_layer(draft.path, found.clt)
    elif isinstance(found, PerLayerSet):
        for layer in found.layers:
            write_layer(draft.path, layer, found.transcoder(layer))
    draft.finish()
    return folder


@pytest.mark.parametrize("made", SETS.values(), ids=SETS)
def test_rows_rebuild_pre_activations_and_outputs_exactly(made):
    found = made().double()
    inputs = {layer: draw(POS, D, seed=layer).double() for layer in found.layers}
    if isinstance(found, PerLayerSet):
        whole = [found.transcoder(n)(inputs[n]) for n in found.layers]
    else:
        assert isinstance(found, CrossLayerSet)
        whole = list(found.clt(torch.stack(list(inputs.values()))))
    for layer in found.layers:
        firings = found.encode(layer, inputs[layer])
        assert len(firings.values)
        assert (firings.values > 0).all()
        pre = (found.encoder_rows(layer, firings.latents) * inputs[layer][firings.positions]).sum(1)
        assert torch.allclose(pre + found.encoder_bias(layer, firings.latents), firings.values)  # all three are gates
        assert torch.allclose(found.reconstruct(layer, inputs), whole[layer])
        skip = found.skip(layer)
        by_hand = found.output_bias(layer) + inputs[layer] @ skip.T
        for source in found.layers:
            if layer in found.targets(source):
                at = found.encode(source, inputs[source])
                rows = at.values[:, None] * found.decoder_rows(source, at.latents, layer)
                by_hand = by_hand.index_add(0, at.positions, rows)
        assert torch.allclose(by_hand, whole[layer])


def test_latents_write_to_their_own_layer_or_to_later_ones():
    assert per_layer().targets(1) == (1,)
    assert cross_layer().targets(1) == (1, 2)
    for made, target in ((per_layer, 2), (cross_layer, 0)):
        with pytest.raises(UnknownNameError, match="layer that latents of layer 1 write to"):
            made().decoder_rows(1, torch.tensor([0]), target)
    with pytest.raises(UnknownNameError, match="layer of the set"):
        per_layer().encode(7, draw(POS, D))


@pytest.mark.parametrize("made", SETS.values(), ids=SETS)
def test_a_set_is_read_back_to_the_same_bits(made, tmp_path):
    first = made()
    again = read_set(saved(tmp_path / "set", first))
    assert (again.layers, again.reads, again.writes, again.about) == (first.layers, READS, WRITES, ABOUT)
    assert again.cross_layer == first.cross_layer
    ours, theirs = first.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    inputs = {layer: draw(POS, D, seed=layer) for layer in first.layers}
    assert all(torch.equal(first.reconstruct(n, inputs), again.reconstruct(n, inputs)) for n in first.layers)


def test_a_set_opens_by_name_and_refuses_other_models(tmp_path, tiny_model):
    from interp.models.adapter import weight_hash

    workspace = Workspace(tmp_path / "ws", create=True)
    saved(workspace.path("transcoders", "mine"), per_layer())
    found = open_set(workspace, "mine")
    with pytest.raises(UnknownNameError, match="mine"):
        open_set(workspace, "mina")
    with pytest.raises(MismatchError, match="the set was trained on small:mlp-2l with aaaaaaaaaaaa"):
        found.check_model(tiny_model)
    found.about = replace(ABOUT, weight_hash=weight_hash(tiny_model))
    with pytest.raises(MismatchError, match="has a layer 2"):
        found.check_model(tiny_model)
    two = per_layer()
    one = PerLayerSet({1: two.transcoder(1)}, reads=READS, writes=WRITES, about=found.about)
    one.check_model(tiny_model, all_layers=False)
    with pytest.raises(MismatchError, match="no transcoder for layer 0 of 2"):
        one.check_model(tiny_model)


@pytest.mark.parametrize(("made", "file"), [(per_layer, "layer_1"), (cross_layer, "W_dec_1")], ids=SETS)
def test_damaged_files_say_what_is_wrong(made, file, tmp_path):
    folder = saved(tmp_path / "set", made())
    path = folder / f"{file}.safetensors"
    tensors = load_file(path)
    spoilt = {name: t.clone() for name, t in tensors.items()}
    next(t for t in spoilt.values() if t.ndim > 1).view(-1)[3] = float("nan")
    save_file(spoilt, path)
    with pytest.raises(NonFiniteError, match=f"{file}.*1 of its"):
        read_set(folder)
    path.unlink()
    with pytest.raises(MissingError, match=rf"has no {file}.safetensors"):
        read_set(folder)
    with pytest.raises(MissingError, match=r"config\.yaml is missing"):
        read_set(tmp_path)
