"""What graphs predict of ablations, and the cost of each frozen part: `python -m tools.predictions MODEL FILE.json`.

Twelve prompts, each with the default contrast. Of 48 neurons a prompt (half of the largest effect, half random) three
predictions are compared with measured ablations: effects of nodes, effects along the edges, direct effects. Then parts
of the model (`PARTS`) are held at their clean values, in the prediction or in the ablation. Then neurons are ablated
together, against the sum of their predictions. Eight minutes a model on one core; the file keeps finished prompts, so
that an interrupted command goes on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import read_json, write_json
from interp.interventions.edits import adding, inserting
from interp.models.adapter import Hook, run_with_cache, run_with_hooks
from interp.models.residual import FrozenNorm
from interp.options import Argument
from interp.seeds import make_generator
from interp.statistics import rank_correlation
from interp.tracing.edges import System
from interp.tracing.effects import ROWS, ablation, deltas, final_input, predicted_effects
from interp.tracing.frozen import apply_linear
from interp.tracing.graph import TraceConfig
from interp.tracing.replacement import Neurons
from interp.tracing.targets import aim_at
from interp.tracing.trace import assemble, open_traced, trace_settings
from tools import run_tool
from workbench.terminal import ModelArgument, RunsModel, Threaded, say

PROMPTS = (
    "The capital of France is",
    "The opposite of hot is",
    "Two plus three equals",
    "The Eiffel Tower is in the city of",
    "Monday, Tuesday, Wednesday,",
    "She grew up in Berlin, so her first language is",
    "When water freezes it turns into",
    "The jury found the defendant",
    "The Earth orbits the Sun, and the Moon orbits the",
    "On a clear day the sky is",
    "Bees collect nectar from flowers to make",
    "When John and Mary went to the store, John gave a bottle of milk to",
)
"""Written before any was traced with a default target."""
PARTS = ("", "attention", "gates", "norms", "attention gates", "attention gates norms", "attention gates norms errors")
"""Parts that are frozen; with `errors` only the neurons of the graph respond."""
N = 48
TOGETHER, DRAWS = (1, 2, 4, 8, 16), 12
Hooks = list[tuple[str, Hook]]


@dataclass(frozen=True, kw_only=True)
class Predictions(RunsModel, Threaded):
    """Compare predicted with measured ablations, with parts of the model frozen."""

    model: ModelArgument
    file: Annotated[Path, Argument("FILE")]
    """JSON file of the results."""
    alone: bool = False
    """Explain the target alone, without its contrast."""

    def run(self) -> None:
        from interp.models.loading import load_model

        self.use_threads()
        model, known = load_model(self.model, device=self.use_device()), {}
        known: dict[str, Any] = read_json(self.file) if self.file.is_file() else {}
        for prompt in PROMPTS:
            if prompt not in known:
                settings = trace_settings(model, prompt, Neurons(), TraceConfig())
                system = open_traced(model, settings, Neurons())
                known[prompt] = _measured(system, alone=self.alone)
                write_json(self.file, known)
            say(f"{prompt} {known[prompt]['target']}")
        rows = [*known.values()]
        for name in rows[0]["predicted"]:
            _line(f"predicted by {name}", [(row["predicted"][name], row["measured"][""]) for row in rows])
        for parts in PARTS:
            _line(
                f"along the edges, ablated with {parts} frozen",
                [(r["predicted"]["edges"], r["measured"][parts]) for r in rows],
            )
        for n in map(str, TOGETHER):
            _line(f"{n} ablated together", [np.transpose(row["together"][n]) for row in rows])


def _line(text: str, pairs: Sequence[Any]) -> None:
    rho = [rank_correlation(np.array(x), np.array(y)) for x, y in pairs]
    slopes = [np.dot(x, y) / np.dot(x, x) for x, y in pairs]
    say(
        f"{text:70} rank correlation {np.mean(rho):.2f} ({min(rho):.2f} to {max(rho):.2f}), slope {np.mean(slopes):.2f}"
    )


def _measured(system: System, *, alone: bool) -> dict[str, Any]:
    """Return predictions and measurements of one prompt."""
    model, config = system.frozen.model, TraceConfig()
    aim = aim_at(model, system, config)
    ours, contrast = aim.targets[0].sides
    aim = aim_at(model, system, config, ours) if alone else aim
    read, adjacency = aim.starts.read[0], assemble(system, aim, config)
    numbers = torch.as_tensor(adjacency.features)
    effects = {parts: first_order_with(system, read, parts)[numbers].numpy() for parts in PARTS}
    layers, activations = system.layer[numbers].numpy(), system.activation[numbers].double().numpy()
    edges, direct = predicted_effects(adjacency, layers, activations), adjacency.row_of_target()[: len(numbers)]
    strongest = np.argsort(-np.abs(effects[""]), kind="stable")[: N // 2]
    rest = np.setdiff1d(np.arange(len(numbers)), strongest)
    draw = make_generator(0, "predictions")
    sample = np.concatenate([strongest, rest[torch.randperm(len(rest), generator=draw).numpy()[: N - N // 2]]])
    written = [deltas(system, [ablation(system, int(numbers[i]))]) for i in sample]
    together: dict[str, list[tuple[float, float]]] = {}
    for n in TOGETHER:
        chosen = [torch.randperm(N // 2, generator=draw)[:n].tolist() for _ in range(DRAWS)]
        sums = [_sum([written[i] for i in some]) for some in chosen]
        expected = [float(effects[""][sample[some]].sum()) for some in chosen]
        together[str(n)] = [*zip(expected, ablated(system, read, sums, ""), strict=True)]
    predicted = {f"first order, {parts or 'nothing'} frozen": values for parts, values in effects.items()}
    predicted |= {"edges": edges, "direct": direct}
    final = system.frozen.resid_post[-1]
    return {
        "target": aim.targets[0].label,
        "contrast": contrast,
        "value": float(aim.values[0]),
        "largest coordinates": float(final.square().topk(3).values.sum() / final.square().sum()),
        "predicted": {name: values[sample].tolist() for name, values in predicted.items()},
        "measured": {parts: ablated(system, read, written, parts) for parts in PARTS},
        "together": together,
    }


def _sum(written: list[dict[int, Tensor]]) -> dict[int, Tensor]:
    layers = {layer for delta in written for layer in delta}
    return {layer: torch.stack([delta[layer] for delta in written if layer in delta]).sum(0) for layer in layers}


def first_order_with(system: System, read: Tensor, parts: str) -> Tensor:
    """Return the first-order effect of every latent, `[features]`, with parts frozen."""
    frozen = system.frozen
    probes = [torch.zeros_like(frozen.embedding).requires_grad_() for _ in frozen.blocks]
    added: Hooks = [(frozen.mlp_point(layer), adding(probe)) for layer, probe in enumerate(probes)]
    with torch.enable_grad():
        value = _read(system, parts, added, 1) @ read
        gradients = torch.autograd.grad(value[0], probes)
    effects = read.new_zeros(1, system.n_sources)
    for layer, gradient in enumerate(gradients):
        system.add_effects(effects, layer, gradient[:, None])
    return effects[0, : system.n_features]


@torch.no_grad()
def ablated(system: System, read: Tensor, written: list[dict[int, Tensor]], parts: str) -> list[float]:
    """Return what ablations take from the target, with parts frozen."""
    out, clean = [], _read(system, parts, [], 1)
    for first in range(0, len(written), ROWS):
        some = written[first : first + ROWS]
        none, layers = torch.zeros_like(system.frozen.embedding), {layer for delta in some for layer in delta}
        hooks: Hooks = [
            (system.frozen.mlp_point(layer), adding(torch.stack([delta.get(layer, none) for delta in some])))
            for layer in sorted(layers)
        ]
        out += ((clean - _read(system, parts, hooks, len(some))) @ read).tolist()
    return out


def _read(system: System, parts: str, hooks: Hooks, rows: int) -> Tensor:
    """Return the unembedding's input `[rows, d_model]` at the last position, with parts frozen."""
    frozen, kept = system.frozen, []
    last = f"blocks.{frozen.shape.n_layers - 1}.hook_resid_post"
    run_with_hooks(
        frozen.model,
        frozen.tokens.expand(rows, -1),
        [*freezing(system, parts), *hooks, (last, lambda value, hook: kept.append(value[:, -1].float()))],
    )
    if "norms" not in parts:
        return final_input(frozen, kept[0])
    final = FrozenNorm(frozen.final.norm, frozen.final.scale[-1], frozen.final.bias)
    return apply_linear(final, kept[0]) + final.bias


def freezing(system: System, parts: str) -> Hooks:
    """Return hooks that hold parts at their clean values."""
    frozen, hooks = system.frozen, []
    names = [f"blocks.{layer}.mlp.{name}" for layer in range(len(frozen.blocks)) for name in ("hook_pre", "hook_post")]
    clean = run_with_cache(frozen.model, frozen.tokens, names)[1]
    for layer, block in enumerate(frozen.blocks):
        at = f"blocks.{layer}."
        if "attention" in parts:
            hooks.append((at + "attn.hook_pattern", inserting(block.pattern)))
        if "gates" in parts:
            hooks.append((at + "mlp.hook_pre", inserting(clean[at + "mlp.hook_pre"][0])))
        if "errors" in parts:
            post, here = clean[at + "mlp.hook_post"][0], system.layer == layer
            mask = torch.zeros_like(post, dtype=torch.bool)
            mask[system.position[here], system.latent[here]] = True
            hooks.append((at + "mlp.hook_post", _within(mask, post)))
        if "norms" in parts:
            norms = {"ln1": block.norm1, "ln2": block.norm2, "ln1_post": block.post1, "ln2_post": block.post2}
            inputs = {"ln1": "hook_resid_pre", "ln2": "hook_resid_mid"}
            for name, norm in norms.items():
                hooks += (
                    []
                    if norm is None
                    else _holding(at + inputs.get(name, f"{name}.hook_in"), f"{at}{name}.hook_out", norm)
                )
    return hooks


def _within(mask: Tensor, clean: Tensor) -> Hook:
    return lambda value, hook: torch.where(mask, value, clean)


def _holding(source: str, output: str, norm: FrozenNorm) -> Hooks:
    """Return hooks that compute the output of a norm with its clean scale."""
    kept: dict[str, Tensor] = {}

    def keep(value: Tensor, hook: object) -> None:
        kept["input"] = value

    return [(source, keep), (output, lambda value, hook: apply_linear(norm, kept["input"]) + norm.bias)]


if __name__ == "__main__":
    run_tool(Predictions)
