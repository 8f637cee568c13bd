"""Attribution graphs: exact in the frozen model, for every architecture; planted circuits; resume; bad input."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, MissingError, NonFiniteError, PromptError
from interp.interventions.intervention import Intervention
from interp.models.hooked import HookedModel
from interp.tracing._influence import influence, normalise_rows
from interp.tracing.edges import RowStore, System, compute_rows, influence_so_far
from interp.tracing.effects import final_states, push, set_latent, split_edge
from interp.tracing.frozen import FrozenModel, Starts
from interp.tracing.replacement import Neurons, NoReplacement
from interp.tracing.trace import assemble, trace
from tests.interp.architectures import NAMES, tiny
from tests.interp.tracing_graphs import (
    CONFIG,
    DICTIONARIES,
    TOKENS,
    RandomTranscoders,
    aim_of,
    logit_starts,
    planted,
    system_of,
)


def all_starts(system: System) -> tuple[Starts, torch.Tensor]:
    """Return two logits and every latent as readers, and their numbers (-1 for a logit)."""
    logits, numbers = logit_starts(system), torch.arange(system.n_features).flip(0)
    features = system.feature_starts(numbers)
    joined = [torch.cat([one, two]) for one, two in zip(vars(logits).values(), vars(features).values(), strict=True)]
    return Starts(*joined), torch.cat([torch.tensor([-1, -1]), numbers])


@pytest.mark.parametrize("dictionary", DICTIONARIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_row_and_its_constant_sum_to_the_clean_value(name, dictionary):
    system = system_of(name, dictionary)
    starts, numbers = all_starts(system)
    rows = system.rows(starts)
    bias = getattr(system.frozen.model, "b_U", None)
    bias = torch.zeros(system.frozen.shape.d_vocab) if bias is None else bias.detach()
    logits = system.frozen.logits
    if getattr(system.frozen.model.cfg, "output_logits_soft_cap", 0) > 0:  # a graph explains the logit before its cap
        cap = system.frozen.model.cfg.output_logits_soft_cap
        logits = cap * torch.atanh(logits / cap)
    centred = (logits - bias) - (logits - bias).mean()
    expected = torch.cat([centred[[3, 4]], system.read_values(numbers[2:])])
    torch.testing.assert_close(rows.effects.sum(1) + rows.constant, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dictionary", ["neurons", "jumprelu skip", "cross-layer skip", "before the norm"])
@pytest.mark.parametrize("name", NAMES)
def test_an_edge_is_the_change_when_the_source_alone_moves(name, dictionary):
    """Sources are taken out one by one, forwards through the frozen model, which shares no code with `pull_back`."""
    system = system_of(name, dictionary)
    frozen, (starts, _) = system.frozen, all_starts(system)
    rows = system.rows(starts).effects
    tried = [*range(0, system.n_features, max(1, system.n_features // 25)), *range(system.n_features, system.n_sources)]
    for source in tried:
        written, embedding = moved(system, source)
        pushed = push(frozen, written, embedding)
        seen = torch.stack([*pushed.inputs, pushed.final])[starts.layer, starts.position]
        torch.testing.assert_close((seen * starts.read).sum(1), rows[:, source], atol=2e-5, rtol=1e-3)


def moved(system: System, source: int) -> tuple[dict[int, torch.Tensor], torch.Tensor | None]:
    """Return what a source writes on the clean run, into MLP outputs or into the embedding."""
    zero, n_pos = torch.zeros_like(system.frozen.embedding), system.frozen.n_pos
    if source < system.n_features:
        number = torch.tensor([source])
        written = {}
        for layer in range(system.frozen.shape.n_layers):
            vector = system.activation[source] * system.written_by(number, layer)[0]
            written[layer] = zero.clone().index_put_((system.position[number],), vector[None])
        return written, None
    layer, position = divmod(source - system.n_features, n_pos)
    if source < system.n_features + system.n_errors:
        return {layer: zero.index_put_((torch.tensor([position]),), system.errors[layer, position][None])}, None
    return {}, zero.index_put_((torch.tensor([position]),), system.frozen.embedding[position][None])


@pytest.mark.parametrize("name", NAMES)
def test_the_frozen_model_is_the_model_with_its_own_norms_and_patterns_held(name):
    """The model's own modules run, with norms replaced by linear ones and patterns put in; none of our maps is used."""
    system = system_of(name, "topk")
    frozen, model = system.frozen, system.frozen.model
    change = [set_latent(0, 3, 1, 2.0), set_latent(1, 6, 2, -1.0)]
    ours = final_states(system, [change], "direct")[0]
    theirs = with_everything_held(model, frozen, deltas_of(system, change)) - with_everything_held(model, frozen, {})
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def deltas_of(system: System, changes: list[Intervention]) -> dict[int, torch.Tensor]:
    from interp.tracing.effects import deltas

    return deltas(system, changes)


def with_everything_held(model: HookedModel, frozen: FrozenModel, added: dict[int, torch.Tensor]) -> torch.Tensor:
    """Return the unembedding's input at the last position of a run with norms, patterns and MLP outputs held."""
    from interp.models.passes import run_from
    from interp.models.residual import norm_of

    held, store = [], {}
    owners = [(block, each) for block in model.blocks for each in ("ln1", "ln2", "ln1_post", "ln2_post")]
    for owner, each in [*owners, (model, "ln_final")]:
        module = getattr(owner, each, None)
        norm = norm_of(owner, each, frozen.shape.d_model)
        if module is not None and norm is not None:
            held.append((module, norm))
    scales: dict[int, torch.Tensor] = {}

    def first_run(module: Any, norm: Any) -> Any:
        def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            x = module.hook_in(x)
            if id(module) not in scales:
                scales[id(module)] = norm.unit_and_scale(x)[1]
            centred = x - x.mean(-1, keepdim=True) if norm.centred else x
            y = centred / scales[id(module)] * (1 if norm.gain is None else norm.gain)
            return y if norm.bias is None else y + norm.bias

        return forward

    for module, norm in held:
        object.__setattr__(module, "forward", first_run(module, norm))
    try:
        run_from(model, frozen.tokens)  # notes the clean scales
        hooks = []
        for layer, block in enumerate(frozen.blocks):
            out = block.mlp_out + added.get(layer, 0)
            hooks.append((f"blocks.{layer}.attn.hook_pattern", lambda value, hook, put=block.pattern: put[None]))
            hooks.append((frozen.mlp_point(layer), lambda value, hook, put=out: put[None]))
        norm = getattr(model, "ln_final", None)
        last = f"blocks.{frozen.shape.n_layers - 1}.hook_resid_post"
        hooks.append((last, lambda value, hook: store.update(x=value)))
        run_from(model, frozen.tokens, hooks)
        return (store["x"] if norm is None else norm(store["x"]))[0, -1]
    finally:
        for module, _ in held:
            object.__delattr__(module, "forward")


@pytest.mark.parametrize("name", ["native-ln", "neox", "gemma-2"])
def test_later_tokens_do_not_change_earlier_rows(name):
    short, long = (system_of(name, "neurons", tokens) for tokens in (TOKENS[:, :5], TOKENS))
    readers = (short.position == 4).nonzero().flatten().flip(0)
    same = (long.position == 4).nonzero().flatten().flip(0)
    rows, wider = short.rows(short.feature_starts(readers)), long.rows(long.feature_starts(same))
    here = (long.position < 5).nonzero().flatten()
    torch.testing.assert_close(rows.effects[:, : short.n_features], wider.effects[:, here], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(rows.constant, wider.constant, atol=1e-5, rtol=1e-4)


def test_influence_so_far_is_the_influence_once_every_row_is_there():
    system = system_of("gpt2", "cross-layer")
    aim = aim_of(system)
    adjacency = assemble(system, aim, CONFIG)
    n = system.n_features
    rows = np.concatenate([adjacency.matrix[-2:], adjacency.matrix[:n]])[:, : system.n_sources]
    layers = np.concatenate([[2, 2], system.layer.numpy()])
    readers = np.concatenate([[-1, -1], np.arange(n)])
    weights = np.concatenate([adjacency.weights[-2:], np.zeros(n)])
    found = influence_so_far(layers, readers, rows, np.abs(rows).sum(1), weights, n)
    expected = influence(normalise_rows(adjacency.matrix), adjacency.weights)[:n]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_a_budget_chooses_the_latents_with_the_largest_influence():
    system = system_of("llama-gqa", "neurons")
    aim = aim_of(system)
    everything = assemble(system, aim, CONFIG)
    total = influence(normalise_rows(everything.matrix), everything.weights)[: system.n_features]
    chosen = assemble(system, aim, replace(CONFIG, max_feature_nodes=96))
    best = np.argsort(-total)[:96]
    assert len(chosen.features) == 96
    assert len(np.intersect1d(best, chosen.features)) >= 80
    assert total[chosen.features].sum() > 0.97 * total[best].sum()


def test_an_interrupted_run_goes_on_to_the_same_rows(tmp_path):
    system = system_of("native-ln", "neurons")
    aim, limit = aim_of(system), 120
    weights = np.array([0.6, 0.4])

    def fill(store: RowStore, progress: Any = None) -> RowStore:
        compute_rows(system, aim.starts, aim.values, weights, store, batch_size=16, progress=progress)
        return store

    def stop(done: int, total: int, facts: dict) -> None:
        if done >= 48:
            raise KeyboardInterrupt

    whole = fill(RowStore(2, limit, system.n_sources))
    with pytest.raises(KeyboardInterrupt):
        fill(RowStore(2, limit, system.n_sources, tmp_path), stop)
    resumed = RowStore(2, limit, system.n_sources, tmp_path)
    assert resumed.done == 50
    fill(resumed)
    assert resumed.chosen == whole.chosen
    np.testing.assert_array_equal(resumed.effects, whole.effects)
    resumed.remove()
    assert not list(tmp_path.iterdir())


def test_a_planted_chain_is_the_graph_and_perfect_latents_score_one():
    graph = trace(planted(), torch.tensor([[0, 3, 5]]), Neurons(), replace(CONFIG, effects=0), target=None)
    chain = ["token:2:5", "feature:0:2:2", "feature:1:2:2", "logit:2:0"]
    found = {(edge["source"], edge["target"]): edge["weight"] for edge in graph.edge_records() if edge["kept"]}
    assert set(found) >= {(chain[i], chain[i + 1]) for i in range(3)}
    assert {edge[0] for edge in found} == set(chain[:3])
    # token 1 * 2 = 2 into the first neuron, which writes 6, read as 12, written as 36, of which 9/10 above the mean
    assert found[chain[0], chain[1]] == pytest.approx(2)
    assert found[chain[1], chain[2]] == pytest.approx(12)
    assert found[chain[2], chain[3]] == pytest.approx(36 * 0.9)
    assert graph.scores.replacement == pytest.approx(1)
    assert graph.scores.completeness == pytest.approx(1)
    assert graph.floor.replacement == pytest.approx(0)


def test_an_untrained_dictionary_scores_below_perfect_latents_and_both_stand_above_the_floor():
    model = tiny("llama-gqa")
    graph = trace(model, TOKENS, Neurons(), CONFIG, untrained=RandomTranscoders())
    assert graph.scores.replacement == pytest.approx(1, abs=1e-4)
    assert graph.scores.replacement > graph.untrained.replacement > graph.floor.replacement
    assert len(graph.effects.nodes) == 6
    assert any("without any latent" in line for line in graph.details())


def test_a_named_target_has_the_weight_one_and_the_probability_of_the_model(tiny_model):
    chances = tiny_model(TOKENS)[0, -1].detach().softmax(-1)[:128]
    likely, chance = chr(int(chances.argmax())), float(chances.max())
    graph = trace(tiny_model, TOKENS, Neurons(), replace(CONFIG, effects=0), target=likely, contrast="s")
    assert likely != "s"
    assert chance > 0.01, "rounded, it is not that of most tokens"
    assert graph.probabilities == (pytest.approx(chance, rel=1e-4),)
    assert graph.targets[0].weight == 1
    assert f"({chance:.0%})" in graph.headline()


def test_targets_can_be_a_latent():
    model = tiny("gpt2")
    system = System(FrozenModel(model, TOKENS), Neurons())
    at = int((system.layer == 1).nonzero()[3])
    name = f"feature:1:{int(system.position[at])}:{int(system.latent[at])}"
    graph = trace(model, TOKENS, Neurons(), CONFIG, target=name)
    assert graph.targets[0].label == name
    row = system.rows(system.feature_starts(torch.tensor([at]))).effects[0]
    strongest = graph.edges_into(next(node.id for node in graph.nodes if node.kind == "logit"))[0]
    assert abs(strongest["weight"]) == pytest.approx(float(row.abs().max()), rel=1e-4)
    with pytest.raises(ConfigError, match="not active"):
        trace(model, TOKENS, RandomTranscoders(k=1), CONFIG, target="feature:1:0:3")


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"prompt": torch.tensor([[1]])}, PromptError, "at least one more"),
        ({"prompt": torch.tensor([[1, 99]])}, PromptError, "token ids"),
        ({"target": "feature:1:x:3"}, ConfigError, "LAYER:POSITION:LATENT"),
        ({"contrast": "b"}, MissingError, "no tokenizer"),
    ],
)
def test_bad_input_is_one_clear_error(options, error, text):
    options = {"prompt": TOKENS, **options}
    with pytest.raises(error, match=text):
        trace(tiny("gpt2"), options.pop("prompt"), Neurons(), CONFIG, **options)


def test_a_dictionary_with_nan_is_refused():
    class Broken(RandomTranscoders):
        def prepare(self, frozen: FrozenModel) -> None:
            super().prepare(frozen)
            self.W_dec[0] = float("nan")

    with pytest.raises(NonFiniteError, match="not finite"):
        trace(tiny("gpt2"), TOKENS, Broken(), CONFIG)


@pytest.mark.parametrize("dictionary", ["neurons", "jumprelu skip", "cross-layer skip"])
@pytest.mark.parametrize("name", NAMES)
def test_the_split_of_an_edge_by_heads_sums_to_the_edge(name, dictionary):
    found = DICTIONARIES[dictionary]()
    everything = replace(CONFIG, node_share=1.0, edge_share=1.0, effects=0, nulls=False)
    graph = trace(tiny(name), TOKENS, found, everything)
    system = system_of(name, dictionary)
    rows = graph.edge_records()
    crossing = [row for row in rows if graph.node(row["source"]).position != graph.node(row["target"]).position]
    for row in [*crossing[:12], *rows[:12]]:
        split = split_edge(system, graph, row["source"], row["target"])
        assert split.total == pytest.approx(row["weight"], abs=1e-4, rel=1e-3)
        if row in crossing:
            assert split.stays == pytest.approx(0, abs=1e-6)
            assert set(split.to_records()[0]) == {"head", "position", "token", "effect", "attention"}
    assert len(crossing) > 12


def test_the_planted_induction_head_carries_its_edge():
    """L1H0 copies the token it attends to: the edge from that token to the logit goes through it alone."""
    from interp.models.loading import load_model

    model = load_model("planted:induction")
    tokens = torch.tensor([[3, 5, 7, 9, 1, 2, 3, 5, 7]])
    config = replace(CONFIG, node_share=1.0, edge_share=1.0, effects=0)
    graph = trace(model, tokens, NoReplacement(), config)
    system = System(FrozenModel(model, tokens), NoReplacement())
    logit = next(node for node in graph.nodes if node.kind == "logit")
    assert graph.targets[0].token == 9
    best = graph.edges_into(logit.id)[0]
    assert best["node"] == "token:3:9"
    split = split_edge(system, graph, best["node"], logit.id)
    first = split.to_records()[0]
    assert (first["head"], first["position"]) == ("L1H0", 3)
    assert first["effect"] == pytest.approx(split.total, rel=1e-4)
    with pytest.raises(ConfigError, match="reads nothing"):
        split_edge(system, graph, "token:3:9", "token:8:7")
