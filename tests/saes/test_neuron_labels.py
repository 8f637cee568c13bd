"""Neurons of all layers in words: a planted neuron gets its label, noise gets none, background is common."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.artifacts import open_artefact, save_artefact
from interp.errors import ConfigError, MismatchError
from interp.models.loading import load_model
from interp.models.small import SmallConfig
from interp.recording.live import LiveRecording
from interp.recording.record import record
from interp.recording.recorded import RecordConfig
from interp.recording.store import Recording
from interp.text.corpora import Document
from interp.tracing.background import background_nodes, influences, mean_influences, measure_background
from interp.tracing.graph import TraceConfig
from interp.tracing.replacement import Neurons
from interp.tracing.trace import open_system, trace
from saes.features.build import N_SAID
from saes.features.describe_neurons import (
    BLOCK_ROWS,
    SIGNS,
    SignedNeurons,
    Strongest,
    _readouts,
    describe_neurons,
    first_passages,
)
from saes.features.meaning import said_by_directions
from saes.features.neurons import NeuronLabels, NeuronsConfig
from saes.features.raised_words import with_raised_words
from saes.features.sources import neurons_of

SMALL = SmallConfig(n_layers=2, d_model=32, n_heads=2, d_mlp=12, act_fn="silu")
PLANTED, LETTER = 3, "q"


def text(seed: int = 0) -> list[Document]:
    rng = np.random.default_rng(seed)
    letters = list("abcdefghijklmnop      qrstuvwxyz.")
    return [Document("".join(rng.choice(letters, 90)), f"text-{n}", "random letters") for n in range(80)]


def planted_model():
    """One neuron of layer 0 reads the letter and nothing else; attention writes nothing, so that no context matters."""
    model = load_model(SMALL, seed=0)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_O.zero_()
        model.pos_embed.W_pos.zero_()
        seen = model.W_E - model.W_E.mean(1, keepdim=True)
        seen = seen / seen.norm(dim=1, keepdim=True)
        mlp = model.blocks[0].mlp
        mlp.W_in[:, PLANTED] = seen[ord(LETTER)] - 0.3 * seen.mean(0)
        mlp.b_in[PLANTED] = -2.0
    return model


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    model = planted_model()
    folder = tmp_path_factory.mktemp("neurons") / "text"
    record(
        model, text(), folder, RecordConfig(tokens=6000, context_length=32, batch_size=8), hook_points=["hook_embed"]
    )
    return model, Recording(folder)


@pytest.fixture(scope="module")
def described(recorded, tmp_path_factory: pytest.TempPathFactory) -> NeuronLabels:
    model, recording = recorded
    found = describe_neurons(model, recording, NeuronsConfig(prompts=3))
    folder = tmp_path_factory.mktemp("described") / "neurons" / "mine"
    save_artefact(found, folder, parents={}, seed=None)
    return open_artefact(NeuronLabels, folder)


def test_the_planted_neuron_is_named_by_its_letter(described: NeuronLabels):
    row = described.of([(0, PLANTED, 1)])[0, PLANTED, 1]
    assert row.confirmed
    assert f'"{LETTER}"' in row.label
    assert row.score > 0.95 > row.null_high
    examples = described.examples_of(0, PLANTED, 1)
    assert len(examples) == 2
    assert all(each.tokens[each.peak] == LETTER and each.percent[each.peak] == 100 for each in examples)
    assert max(each.activation for each in examples) == pytest.approx(row.maximum)


def test_every_direction_has_a_row_and_no_label_is_dense(described: NeuronLabels):
    keys = [(layer, neuron, sign) for layer in range(2) for neuron in range(12) for sign in (1, -1)]
    rows = described.of([*keys, (7, 0, 1)])
    assert sorted(rows) == sorted(keys)
    assert not any(row.label.startswith("dense") for row in rows.values())
    assert described.n_confirmed == sum(row.confirmed for row in rows.values())
    assert all(row.says == [] for row in rows.values()), "no lens was given"
    assert described.of([]) == {}


def test_some_layers_are_described_on_the_first_tokens(recorded, described: NeuronLabels):
    model, recording = recorded
    labels = describe_neurons(model, recording, NeuronsConfig(layers=(0,), tokens=3000, prompts=0))
    assert (labels.layers, described.layers) == ((0,), (0, 1))
    assert 3000 <= labels.n_tokens < 3000 + BLOCK_ROWS < described.n_tokens
    assert f'"{LETTER}"' in labels.of([(0, PLANTED, 1)])[0, PLANTED, 1].label
    assert labels.of([(1, PLANTED, 1)]) == {}
    assert f"of {2 * 12} directions" in labels.headline()
    assert "(1 of 2 layers)" in labels.headline()
    assert ("layers", "1 of 2 (0)") in labels.facts()
    with pytest.raises(ConfigError, match="layers of this model are 0 to 1, got 2"):
        describe_neurons(model, recording, NeuronsConfig(layers=(2,)))


def test_the_negative_direction_raises_what_the_positive_one_lowers(recorded):
    model, _ = recorded
    bases = [neurons_of(model, "blocks.0.mlp.hook_post", sign=sign) for sign in SIGNS]
    lens = SimpleNamespace(carry=lambda point, directions: directions)
    readouts = _readouts([SignedNeurons(0, basis, None) for basis in bases], lens, model)
    for basis, readout in zip(bases, readouts, strict=True):
        alone = said_by_directions(basis, lens, model, N_SAID)
        for name in ("raised", "raised_strength", "null_high"):
            np.testing.assert_allclose(readout[name], alone[name], rtol=1e-5)


def test_the_background_is_the_mean_influence_over_the_prompts(recorded, described: NeuronLabels):
    model, recording = recorded
    prompts = first_passages(LiveRecording(recording.folder, model=model), model, 3)
    assert [each.shape[1] for each in prompts] == [11, 11, 11], "BOS and ten tokens"
    expected = measure_background(model, prompts, Neurons())
    found = described.background()
    assert found == {key: pytest.approx(value) for key, value in expected.items() if value}


def test_what_leads_other_prompts_as_much_is_background_and_what_leads_one_is_not(recorded):
    model, recording = recorded
    prompts = first_passages(LiveRecording(recording.folder, model=model), model, 4)
    graphs = [trace(model, each, Neurons(), TraceConfig(effects=0, nulls=False)) for each in prompts]
    own = influences(graphs[0])
    latents = [n for n, node in enumerate(graphs[0].nodes) if node.kind == "feature"]
    assert background_nodes(graphs[0], mean_influences(graphs[:1])) == latents, "against itself, everything is common"
    assert background_nodes(graphs[0], {}) == []
    leader = max(own, key=lambda key: own[key])
    common = background_nodes(graphs[0], {leader: own[leader] / 2})
    assert {(graphs[0].nodes[n].layer, graphs[0].nodes[n].index) for n in common} == {leader[:2]}
    assert background_nodes(graphs[0], {leader: own[leader] / 2.1}) == []


def test_the_strongest_firings_are_those_of_a_plain_search():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(24, 16, 5, generator=draw)
    found = Strongest(5, 6, 2, 16)
    for first in range(0, 24, 8):
        found.add(x[first : first + 8], first * 16)
    values, at = x.max(1)
    best, context = values.T.topk(6)
    assert torch.equal(found.values, best)
    assert torch.equal(found.rows, context * 16 + at.T.gather(1, context))
    place = int(found.rows[0, 0]) % 16
    around = x[int(found.rows[0, 0]) // 16, :, 0].clamp_min(0)
    expected = [float(around[i]) if 0 <= i < 16 else 0.0 for i in range(place - 2, place + 3)]
    assert found.windows[0, 0].tolist() == pytest.approx(expected)


def test_activations_that_know_nothing_of_the_text_get_no_labels(recorded, monkeypatch: pytest.MonkeyPatch):
    model, recording = recorded
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)

        def noise(self, points, shard, local, draw=draw):
            return {point: torch.randn(len(local), 12, generator=draw) for point in points}

        monkeypatch.setattr(LiveRecording, "read_local", noise)
        assert describe_neurons(model, recording, NeuronsConfig(prompts=0)).n_confirmed <= 1, "of 48 directions"


def test_another_model_and_too_many_examples_are_refused(recorded):
    _, recording = recorded
    with pytest.raises(MismatchError, match="other weights"):
        describe_neurons(load_model(SMALL, seed=5), recording, NeuronsConfig(prompts=0))
    with pytest.raises(ConfigError, match="examples"):
        describe_neurons(planted_model(), recording, NeuronsConfig(examples=100, prompts=0))


def test_latents_of_a_graph_without_labels_are_named_by_the_words_that_they_raise(monkeypatch, tmp_path):
    """Planted neurons of the last layer write one token's direction, and its reverse; the others random ones."""
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    model = load_model(SMALL, seed=0)
    with torch.no_grad():
        read = model.W_U[:, ord(LETTER)] - model.W_U.mean(1)
        model.blocks[1].mlp.W_out[PLANTED] = 5 * read / read.norm()
    tokens, reading = torch.tensor([[5, 9, 7, 3]]), Neurons()
    lens: Any = SimpleNamespace(carry=lambda _point, directions: directions)
    graph = trace(model, tokens, reading, TraceConfig(effects=0, nulls=False))
    named = with_raised_words(graph, open_system(model, tokens, reading), lens)
    labels = {node.id: node.label for node in named.nodes if node.kind == "feature"}
    planted = [node for node in named.nodes if node.kind == "feature" and (node.layer, node.index) == (1, PLANTED)]
    assert planted
    for node in planted:
        raised = f'raises "{LETTER}"' in labels[node.id]
        assert raised == (node.activation > 0)
    others = [label for node, label in labels.items() if node not in {one.id for one in planted}]
    assert np.mean([bool(label) for label in others]) < 0.4, "5 % by chance, but for the planted neuron's reverse"
    kept = [replace(node, label="mine") if node.kind == "feature" else node for node in graph.nodes]
    again = with_raised_words(graph.with_parts(nodes=kept), open_system(model, tokens, reading), lens)
    assert {node.label for node in again.nodes if node.kind == "feature"} == {"mine"}
