"""Interventions on latents of a graph: the model's answer against the graph's prediction and random latents.

    found = intervene(system, [set_latent(12, 4, 703, 0.0)], graph)
    found.measured, found.predicted, found.random_low, found.random_high

Each intervention (`interp.interventions`) changes the activation of a latent at a position: `(value - clean activation)
* output direction` is added to the MLP's output there. The prediction is linear in the changes: it scales the effects
of nodes, so that what bends counts as its error. The null sets the same amounts on random latents of the same layers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from interp.errors import ConfigError
from interp.interventions.edits import adding, changed
from interp.interventions.intervention import Intervention
from interp.models.adapter import Hook, logit_cap, token_strings
from interp.models.generation import NextToken, Offset, generate
from interp.models.hooked import HookedModel
from interp.nulls import DRAWS, SHOWN, p_from_null
from interp.results import Record, Result
from interp.seeds import make_generator
from interp.tracing.edges import System
from interp.tracing.effects import Mode, deltas, final_input, final_states, latent_of, read_of, set_latent
from interp.tracing.graph import AttributionGraph
from interp.tracing.part import graph_effects
from interp.view import View

ROUNDING = 1e-6
"""Part of the clean value by which draws may differ from the effect and still count as reaching it: float32 rounds."""
N_TOKENS = 8
"""Next tokens that are listed."""


class TokenChange(TypedDict):
    """A next token, with its probability without and with a change."""

    token: str
    before: float
    after: float


@dataclass(frozen=True, repr=False)
class GraphIntervention(Result):
    """Effect of some changes on the first target of a graph, in logits above the mean logit or above the contrast's."""

    changes: tuple[Intervention, ...]
    mode: Mode
    target: str
    clean: float
    measured: float
    """change of the target's value"""
    predicted: float | None
    """the same by the effects of its nodes; None for latents that are not nodes of it"""
    random_mean: float
    random_low: float
    random_high: float
    """smallest and largest change by random latents of the same layers, set by the same amounts"""
    p: float
    """share of random draws with at least the size of the effect, counting the effect itself"""
    tokens: list[TokenChange] = field(default_factory=list)
    """most likely next tokens, before or after"""

    def view(self) -> View:
        beside = "no prediction" if self.predicted is None else f"predicted {self.predicted:+.3g}"
        yield (
            f"One run, {len(self.changes)} latent{'s' * (len(self.changes) > 1)} changed: {self.target!r} moves by "
            f"{self.measured:+.3g} logits ({beside}; random latents {self.random_low:+.3g} to {self.random_high:+.3g}, "
            f"p {self.p:.2g})."
        )

    def to_records(self) -> list[Record]:
        """Return one row per token: `token, before, after`."""
        return [{**row} for row in self.tokens]


def predict(graph: AttributionGraph, changes: Sequence[Intervention]) -> float | None:
    """Return the change of the first target that a graph predicts; None when a latent is not one of its nodes."""
    effects, total = graph_effects(graph), 0.0
    for step in changes:
        layer, first, latent = latent_of(step)
        for position in range(first, min((step.positions or (0, None))[1] or len(graph.tokens), len(graph.tokens))):
            number = graph.number.get(f"feature:{layer}:{position}:{latent}")
            if number is None or not (clean := graph.nodes[number].activation):
                return None
            total += (_value(step, clean) / clean - 1) * effects[number]
    return float(total)


def _value(step: Intervention, clean: float) -> float:
    """Return the activation that an intervention gives to a latent."""
    return float(changed(torch.tensor(clean, dtype=torch.float64), step.action, step.amount))


@torch.no_grad()
def intervene(
    system: System,
    changes: Sequence[Intervention],
    graph: AttributionGraph,
    *,
    mode: Mode = "free",
    layers: range | None = None,
    n_random: int = DRAWS["standard"],
    seed: int = 0,
    done: Callable[[int], None] | None = None,
) -> GraphIntervention:
    """Change latents and measure the first target of a graph of the same prompt, with prediction and null.

    Args:
        system: the frozen model of the prompt, of `open_system`.
        changes: of latents, as `changes_of` returns them.
        graph: of the same prompt; its first target is measured and its prediction compared.
        mode: what is held at its clean value. `free`: nothing; `attention`: attention patterns; `range`: these, and the
            MLPs of `layers`; `direct`: everything, so that the effect equals the direct effect of the graph.
        layers: of `range`.
        n_random: draws of the null, random latents of the same layers changed by the same amounts.
        seed: of the null.
        done: called with the number of tokens of each pass.
    Returns: the measured effect (nats or logits, as the graph's target), the predicted one, and the null.
    Raises:
        ConfigError: no changes, a position outside the prompt, or a graph of another prompt.

    >>> system = open_system(model, to_tokens(model, graph.prompt), Neurons())
    >>> latent = next(row["node"] for row in graph.to_records() if row["kind"] == "feature")
    >>> intervene(system, changes_of(graph, [latent]), graph, n_random=3).headline()
    "One run, 1 latent changed: ... (predicted ...; random latents ...)."
    """
    if not changes:
        raise ConfigError("no latent was chosen; choose at least one")
    if list(graph.tokens) != system.frozen.tokens[0].tolist():
        raise ConfigError(f"the graph belongs to another prompt, {graph.prompt[:60]!r}; trace this one")
    read = read_of(system, graph)
    draws = changes_and_nulls(system, changes, n_random, seed)
    states = final_states(system, draws, mode, layers, done)
    moved = (states @ read).double().cpu().numpy()
    clean = final_input(system.frozen, system.frozen.resid_post[-1])
    null, rounding = moved[1:], ROUNDING * max(1.0, abs(float(clean @ read)))
    return GraphIntervention(
        changes=tuple(changes),
        mode=mode,
        target=graph.targets[0].label,
        clean=float(clean @ read),
        measured=float(moved[0]),
        predicted=predict(graph, changes),
        random_mean=float(null.mean()) if n_random else float("nan"),
        random_low=float(null.min()) if n_random else float("nan"),
        random_high=float(null.max()) if n_random else float("nan"),
        p=p_from_null(moved[0], null, alternative="two-sided", tolerance=rounding),
        tokens=_next_tokens(system, clean, states[0]),
    )


def changes_and_nulls(
    system: System, changes: Sequence[Intervention], n_random: int, seed: int = 0
) -> list[list[Intervention]]:
    """Return changes of latents, then as many of random latents of the same layers, by the same amounts, as asked."""
    return [list(changes), *(_random(system, changes, seed, draw) for draw in range(n_random))]


@dataclass(frozen=True, repr=False)
class LatentContinuations(Result):
    """The most likely continuation of a prompt: unchanged, with latents changed, and with random latents changed."""

    prompt: str
    clean: str
    changed: str
    random: tuple[str, ...]

    def view(self) -> View:
        yield f"Most likely continuations of {self.prompt!r}"

    def to_records(self) -> list[Record]:
        """Return one row per continuation: `run` (clean, changed, random), `text`."""
        rows = [{"run": "clean", "text": self.clean}, {"run": "changed", "text": self.changed}]
        return rows + [{"run": "random", "text": text} for text in self.random]


@torch.no_grad()
def continuations(
    system: System,
    changes: Sequence[Intervention],
    *,
    n_tokens: int = 12,
    n_random: int = SHOWN,
    mode: Mode = "free",
    seed: int = 0,
) -> LatentContinuations:
    """Generate the most likely tokens with latents changed, and with random latents of the same layers.

    A change with `onwards` acts on generated tokens too: each step encodes the text so far, and moves the latent from
    the activation that it then has.

    Args:
        system: the frozen model of the prompt, of `open_system`.
        changes: of latents, as `changes_of` returns them.
        n_tokens: the number of tokens to write.
        n_random: draws of random latents, each written from as well.
        mode: `free`, or `attention`, where patterns are held.
        seed: of the draws.
    Returns: the text without changes, with them, and with each draw.
    Raises:
        ConfigError: a mode that needs a clean run of the same length.

    >>> system = open_system(model, to_tokens(model, "abca"), Neurons())
    >>> latent = next(row["node"] for row in graph.to_records() if row["kind"] == "feature")
    >>> len(continuations(system, changes_of(graph, [latent]), n_tokens=2, n_random=1).random)
    1
    """
    if mode not in ("free", "attention"):
        raise ConfigError(f"text is generated in mode free or attention, got {mode}")
    runs = [[], list(changes), *(_random(system, changes, seed, draw) for draw in range(n_random))]
    if mode == "free" and not any(_onwards(step) for step in changes):
        texts = _generate_together(system, runs, n_tokens)
    else:
        texts = [_generate(system, run, n_tokens, mode) for run in runs]
    prompt = "".join(token_strings(system.frozen.model, system.frozen.tokens))
    return LatentContinuations(prompt, texts[0], texts[1], tuple(texts[2:]))


def _onwards(step: Intervention) -> bool:
    return step.positions is not None and step.positions[1] is None


def _generate_together(system: System, runs: Sequence[Sequence[Intervention]], n_tokens: int) -> list[str]:
    """Return the text of each run. What is changed in the prompt alone needs one pass of it; keys and values stay."""
    frozen, offset = system.frozen, Offset()
    model, written = frozen.model, [deltas(system, run) for run in runs]

    def within_prompt(added: Tensor) -> Callable[[Tensor], Tensor]:
        nothing = torch.zeros((), device=added.device)
        return lambda value: nothing if offset.tokens else pad(added, (0, 0, 0, value.shape[1] - added.shape[1]))

    hooks: list[tuple[str, Hook]] = []
    for layer in sorted({layer for delta in written for layer in delta}):
        added = torch.stack([delta.get(layer, torch.zeros_like(frozen.embedding)) for delta in written])
        hooks.append((frozen.mlp_point(layer), adding(within_prompt(added))))
    tokens = frozen.tokens.expand(len(runs), -1)
    new = torch.stack([*generate(NextToken(model, hooks, offset=offset), tokens, n_tokens)], 1)
    return ["".join(token_strings(model, row)) for row in new]


def _generate(system: System, changes: Sequence[Intervention], n_tokens: int, mode: Mode) -> str:
    model, start = system.frozen.model, system.frozen.tokens

    def step(tokens: Tensor) -> Tensor:
        """Encode the text so far again: a longer text is another replacement model."""
        now = system
        if tokens.shape[1] > start.shape[1]:
            now = System(system.frozen.again(tokens), system.replacement)
        state = final_input(now.frozen, now.frozen.resid_post[-1])
        moved = final_states(now, [changes], mode)[0] if changes else torch.zeros_like(state)
        return logits_of(model, state + moved)[None]

    return "".join(token_strings(model, torch.cat(list(generate(step, start, n_tokens)))))


def changes_of(
    graph: AttributionGraph, nodes: Sequence[str], *, factor: float = 0.0, values: Mapping[str, float] | None = None
) -> list[Intervention]:
    """Return the changes that multiply the activations of some nodes of a graph.

    Args:
        graph: has the nodes.
        nodes: their names, such as `3_12_5`.
        factor: 0 ablates, 2 doubles.
        values: activations to set outright, by node.
    Returns: interventions, for `intervene` and `continuations`.
    Raises:
        UnknownNameError: a node that the graph lacks.
        ConfigError: nodes without latents.

    >>> latent = next(row["node"] for row in graph.to_records() if row["kind"] == "feature")
    >>> changes_of(graph, [latent])[0].action
    'set'
    """
    out = []
    for name in nodes:
        node = graph.node(name)
        if node.kind != "feature":
            raise ConfigError(f"{name} is not a latent; only latents can be changed")
        value = (values or {}).get(name, factor * node.activation)
        out.append(set_latent(node.layer, node.position, node.index, value, dictionary=graph.dictionary or ""))
    return out


def _random(system: System, changes: Sequence[Intervention], seed: int, draw: int) -> list[Intervention]:
    """Return the same amounts on random latents of the same layers, at the same positions.

    A random latent that is active is moved from its own clean activation.
    """
    generator = make_generator(seed, "random latents", draw)
    out = []
    for step in changes:
        layer, position, latent = latent_of(step)
        control = int(torch.randint(system.replacement.n_latents(layer), (1,), generator=generator))
        clean = activation(system, layer, position, latent)
        value = activation(system, layer, position, control) + _value(step, clean) - clean
        out.append(set_latent(layer, position, control, value, onwards=_onwards(step)))
    return out


def activation(system: System, layer: int, position: int, latent: int) -> float:
    """Return the clean activation of a latent at a position; 0 where it is not active."""
    mask = (system.layer == layer) & (system.position == position) & (system.latent == latent)
    return float(system.activation[mask].sum())


def _next_tokens(system: System, clean: Tensor, moved: Tensor) -> list[TokenChange]:
    model = system.frozen.model
    before, after = logits_of(model, torch.stack([clean, clean + moved])).softmax(-1)
    ids = torch.cat([before.topk(N_TOKENS).indices, after.topk(N_TOKENS).indices]).unique().tolist()
    ids.sort(key=lambda token: -float(after[token]))
    texts = token_strings(model, ids)
    return [
        {"token": text, "before": float(before[token]), "after": float(after[token])}
        for token, text in zip(ids[: N_TOKENS + 4], texts, strict=False)
    ]


def logits_of(model: HookedModel, state: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows d_vocab"]:
    """Return the logits of inputs of the unembedding, with bias and cap."""
    bias, cap = getattr(model, "b_U", None), logit_cap(model)
    logits = state @ model.W_U.detach().float()
    logits = logits if bias is None else logits + bias.detach().float()
    return cap * torch.tanh(logits / cap) if cap is not None else logits
