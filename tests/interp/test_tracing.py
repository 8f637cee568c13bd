"""Attribution graphs: exact in the frozen model, for every architecture; planted circuits; resume; bad input."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.errors import ConfigError, NonFiniteError, PromptError
from interp.models.small import SmallConfig, build_small
from interp.tracing.attention import split_edge
from interp.tracing.config import TraceConfig
from interp.tracing.edges import System, influence_so_far
from interp.tracing.effects import Change, ablation, final_states, measure, predicted_effects, push
from interp.tracing.frozen import FrozenModel, Starts
from interp.tracing.influence import influence, normalise_rows
from interp.tracing.interventions import changes_of, continuations, graph_effects, intervene
from interp.tracing.replacement import Active, Neurons, NoReplacement
from interp.tracing.rows import RowStore, compute_rows
from interp.tracing.trace import assemble, trace
from tests.interp.architectures import NAMES, tiny

TOKENS = torch.tensor([[1, 5, 9, 5, 2, 7, 9]])
CONFIG = TraceConfig(effects=6, batch_size=8)


@dataclass
class RandomTranscoders:
    """Random transcoders of every layer: TopK or JumpReLU, per layer or cross-layer, with or without a skip."""

    cross_layer: bool = False
    k: int | None = 4
    with_skip: bool = False
    width: int = 24
    seed: int = 0
    name: str = "random"
    reads_point: str = "mlp.hook_in"
    writes_point: str = "mlp.hook_out"

    def prepare(self, frozen: FrozenModel) -> None:
        n, d = frozen.shape.n_layers, frozen.shape.d_model
        draw = torch.Generator().manual_seed(self.seed)
        self.W_enc, self.b_enc = (
            torch.randn(n, *size, generator=draw) / d**0.5 for size in ((self.width, d), (self.width,))
        )
        self.W_dec = torch.randn(n, n, self.width, d, generator=draw) / d**0.5
        self.b_dec, self.W_skip = torch.randn(n, d, generator=draw) / d, torch.randn(n, d, d, generator=draw) / d
        self._active = []
        for layer, block in enumerate(frozen.blocks):
            pre = block.mlp_in @ self.W_enc[layer].T + self.b_enc[layer]
            bound = 0.3 if self.k is None else pre.topk(self.k, -1).values[:, -1:]
            acts = torch.where(pre >= bound, pre, 0).relu()
            acts[: frozen.skip_from] = 0
            position, latent = acts.nonzero(as_tuple=True)
            self._active.append(Active(position, latent, acts[position, latent]))

    def active(self, layer: int) -> Active:
        return self._active[layer]

    def reads(self, layer: int, active: Active) -> Any:
        return self.W_enc[layer, active.latent], self.b_enc[layer, active.latent]

    def writes(self, layer: int, active: Active, target: int) -> Any:
        return self.W_dec[layer, target, active.latent]

    def output_bias(self, layer: int) -> Any:
        return self.b_dec[layer]

    def skip(self, layer: int) -> Any:
        return self.W_skip[layer] if self.with_skip else None

    def n_latents(self, layer: int) -> int:
        return self.width


DICTIONARIES = {
    "none": NoReplacement,
    "neurons": Neurons,
    "some neurons": lambda: Neurons(100),
    "topk": RandomTranscoders,
    "jumprelu skip": lambda: RandomTranscoders(k=None, with_skip=True),
    "cross-layer": lambda: RandomTranscoders(cross_layer=True),
    "cross-layer skip": lambda: RandomTranscoders(cross_layer=True, k=None, with_skip=True),
    "before the norm": lambda: RandomTranscoders(
        with_skip=True, reads_point="hook_resid_mid", writes_point="hook_mlp_out"
    ),
    "before the gain": lambda: RandomTranscoders(reads_point="ln2.hook_normalized", writes_point="hook_mlp_out"),
}


def system_of(name: str, dictionary: str, tokens: torch.Tensor = TOKENS) -> System:
    found = DICTIONARIES[dictionary]()
    frozen = FrozenModel(tiny(name), tokens, reads=found.reads_point, writes=found.writes_point)
    return System(frozen, found)


def logit_starts(system: System, tokens: tuple[int, ...] = (3, 4)) -> Starts:
    unembed = system.frozen.model.W_U.detach().float()
    reads = (unembed - unembed.mean(1, keepdim=True))[:, list(tokens)].T
    layer = torch.full((len(tokens),), system.frozen.shape.n_layers)
    return Starts(layer, torch.full_like(layer, system.frozen.n_pos - 1), reads)


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
    change = [Change(0, 3, 1, 2.0), Change(1, 6, 2, -1.0)]
    ours = final_states(system, [change], "direct")[0]
    theirs = with_everything_held(model, frozen, deltas_of(system, change)) - with_everything_held(model, frozen, {})
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def deltas_of(system: System, changes: list[Change]) -> dict[int, torch.Tensor]:
    from interp.tracing.effects import deltas

    return deltas(system, changes)


def with_everything_held(model: Any, frozen: FrozenModel, added: dict[int, torch.Tensor]) -> torch.Tensor:
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


def aim_of(system: System) -> Any:
    from interp.tracing.graph import GraphTarget
    from interp.tracing.trace import Aim

    starts = logit_starts(system)
    values = system.rows(starts)
    targets = [GraphTarget("3", 3, weight=0.6), GraphTarget("4", 4, weight=0.4)]
    return Aim(targets, starts, values.effects.sum(1) + values.constant)


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


def planted() -> Any:
    """A model without attention, whose only neuron of layer 0 turns token 5 into a direction that layer 1 passes on.

    Residual coordinates: token 5 (0), what layer 0 writes (1), what layer 1 writes (2), which logit 7 reads.
    """
    config = SmallConfig(d_model=8, n_heads=1, d_mlp=64, d_vocab=10, n_ctx=8, normalization=None, act_fn="relu")
    model = build_small(config, seed=0, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.original_component.weight[5, 0] = 1.0
        for layer in (0, 1):
            mlp = model.blocks[layer].mlp
            mlp.W_in[layer, 2] = 2.0
            mlp.W_out[2, layer + 1] = 3.0
        model.unembed.W_U[2, 7] = 1.0
    return model


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
    assert graph.scores["replacement"] == pytest.approx(1)
    assert graph.scores["completeness"] == pytest.approx(1)
    assert graph.scores["replacement_floor"] == pytest.approx(0)


def test_ablating_a_link_of_the_planted_chain_takes_the_whole_logit_and_random_latents_nothing():
    model, tokens = planted(), torch.tensor([[0, 3, 5]])
    graph = trace(model, tokens, Neurons(), replace(CONFIG, effects=0))
    system = System(FrozenModel(model, tokens), Neurons())
    found = intervene(system, changes_of(graph, ["feature:0:2:2"]), graph)
    assert found.measured == pytest.approx(found.predicted, rel=1e-5)
    assert found.predicted == pytest.approx(-36 * 0.9, rel=1e-5)
    assert found.random_low == found.random_high == 0
    assert found.p == 1 / 20
    assert found.tokens[0]["after"] == pytest.approx(0.1, abs=1e-6)  # all ten tokens are alike again


def test_without_norms_and_with_patterns_frozen_the_prediction_is_the_effect():
    """With ReLU neurons a small change flips none of them, so that the frozen model is the model itself."""
    model = relu_model()
    system = System(FrozenModel(model, torch.tensor([[1, 4, 2, 9, 3]])), Neurons())
    aim = aim_of(system)
    adjacency = assemble(system, aim, CONFIG)
    predicted = predicted_effects(adjacency, system.layer.numpy(), system.activation.numpy())
    tried = np.argsort(-np.abs(predicted))[:20]
    step = 1e-3
    changes = [[replace(ablation(system, int(i)), value=float(system.activation[i]) * (1 - step))] for i in tried]
    measured = -measure(system, changes, aim.starts.read[0], "attention").numpy() / step
    np.testing.assert_allclose(measured, predicted[tried], rtol=0.05, atol=1e-3 * np.abs(predicted).max())


@pytest.mark.parametrize("name", ["gpt2", "gemma-2"])
def test_in_direct_mode_an_effect_is_the_edge_and_in_a_range_it_does_not_compound(name):
    system = system_of(name, "neurons")
    aim = aim_of(system)
    adjacency = assemble(system, aim, CONFIG)
    late = int((system.layer == 0).nonzero()[7])
    change = [[ablation(system, late)]]
    direct = -measure(system, change, aim.starts.read[0], "direct")
    assert float(direct) == pytest.approx(float(adjacency.row_of_target()[late]), abs=1e-5)
    whole = -measure(system, change, aim.starts.read[0], "range", range(2))
    torch.testing.assert_close(whole, direct)
    free = float(-measure(system, change, aim.starts.read[0], "free"))
    attention = float(-measure(system, change, aim.starts.read[0], "attention"))
    part = float(-measure(system, change, aim.starts.read[0], "range", range(1, 2)))
    assert len({round(value, 7) for value in (free, attention, part, float(direct))}) == 4


def test_an_untrained_dictionary_scores_below_perfect_latents_and_both_stand_above_the_floor():
    model = tiny("llama-gqa")
    graph = trace(model, TOKENS, Neurons(), CONFIG, untrained=RandomTranscoders())
    scores = graph.scores
    assert scores["replacement"] == pytest.approx(1, abs=1e-4)
    assert scores["replacement"] > scores["replacement_untrained"] > scores["replacement_floor"]
    assert scores["effects"]["n"] == 6
    assert "without any latent" in graph.headline()


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
        ({"contrast": "b"}, ConfigError, "needs a target"),
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


def relu_model(layers: int = 3) -> Any:
    config = SmallConfig(
        d_model=16, n_heads=2, d_mlp=32, d_vocab=20, n_ctx=8, normalization=None, act_fn="relu", n_layers=layers
    )
    model = build_small(config, seed=1, device="cpu", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6)
    return model


def test_an_intervention_stands_beside_its_prediction_and_random_latents():
    model, tokens = relu_model(), torch.tensor([[1, 4, 2, 9, 3]])
    everything = replace(CONFIG, node_share=1.0, edge_share=1.0, effects=0)
    graph = trace(model, tokens, Neurons(), everything)
    system = System(FrozenModel(model, tokens), Neurons())
    effects = graph_effects(graph)
    best = sorted(range(len(effects)), key=lambda i: -abs(effects[i]) * (graph.nodes[i].kind == "feature"))[:2]
    changes = changes_of(graph, [graph.nodes[i].id for i in best], factor=0.999)
    found = intervene(system, changes, graph, mode="attention")
    assert found.predicted is not None
    assert found.measured == pytest.approx(found.predicted, rel=0.05)
    assert found.predicted == pytest.approx(-0.001 * effects[best].sum(), rel=1e-3)
    assert found.random_low <= found.random_mean <= found.random_high
    assert sum(row["after"] for row in found.tokens) <= 1 + 1e-6
    nothing = intervene(system, changes_of(graph, [graph.nodes[best[0]].id], factor=1.0), graph)
    assert nothing.measured == pytest.approx(0, abs=1e-6 * abs(nothing.clean))  # logits of millions, in float32
    assert nothing.p > 0.9


def test_interventions_refuse_what_they_cannot_change():
    model = tiny("gpt2")
    graph = trace(model, TOKENS, Neurons(), replace(CONFIG, effects=0))
    system = System(FrozenModel(model, TOKENS), Neurons())
    with pytest.raises(ConfigError, match="not a latent"):
        changes_of(graph, ["token:1:5"])
    with pytest.raises(ConfigError, match="at least one"):
        intervene(system, [], graph)
    with pytest.raises(ConfigError, match="outside the prompt"):
        intervene(system, [Change(0, 99, 1, 0.0)], graph)
    other = System(FrozenModel(model, TOKENS[:, :4]), Neurons())
    with pytest.raises(ConfigError, match="another prompt"):
        intervene(other, [Change(0, 1, 1, 0.0)], graph)
    with pytest.raises(ConfigError, match="range"):
        intervene(system, [Change(0, 1, 1, 0.0)], graph, mode="range")


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


def test_continuations_follow_the_changed_model_step_by_step():
    """The planted chain: token 5 makes 7 likely. Ablated onwards, its link is silent; random ones change nothing."""
    model, tokens = planted(), torch.tensor([[0, 3, 5]])
    with torch.no_grad():
        model.embed.original_component.weight[7, 0] = 1.0  # 7 leads to 7 again
    system = System(FrozenModel(model, tokens), Neurons())
    link = Change(0, 2, 2, 0.0, onwards=True)
    found = continuations(system, [link], n_tokens=3, n_random=1)
    assert found.clean == "777" == found.random[0]
    assert "7" not in found.changed
    once = continuations(system, [replace(link, onwards=False)], n_tokens=2, n_random=1)
    assert once.changed != "77"
    with pytest.raises(ConfigError, match="free or attention"):
        continuations(system, [link], mode="direct")


def test_a_change_onwards_is_one_change_at_every_later_position():
    system = system_of("gpt2", "neurons")
    onwards = final_states(system, [[Change(0, 4, 3, 1.0, onwards=True)]])
    each = final_states(system, [[Change(0, position, 3, 1.0) for position in (4, 5, 6)]])
    torch.testing.assert_close(onwards, each)
