"""Predicted against measured ablations of graphs, with parts frozen: `python -m tools.predictions MODEL FILE.json`.

Of 48 neurons of each of twelve prompts (half of the largest effect, half random), predictions are compared with
measured ablations: first order, along the edges, and direct. Parts of the model (`PARTS`) are held at their clean
values in the prediction or in the ablation. Then neurons are ablated together, against the sum of their predictions.
Eight minutes a model on one core, half a minute with `--free`; the file keeps finished prompts, so that an interrupted
command goes on.
"""

import math
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
from interp.models.passes import run_from
from interp.models.residual import FrozenNorm
from interp.options import Argument
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

PROMPTS = """The capital of France is
The opposite of hot is
Two plus three equals
The Eiffel Tower is in the city of
Monday, Tuesday, Wednesday,
She grew up in Berlin, so her first language is
When water freezes it turns into
The jury found the defendant
The Earth orbits the Sun, and the Moon orbits the
On a clear day the sky is
Bees collect nectar from flowers to make
When John and Mary went to the store, John gave a bottle of milk to""".splitlines()
"""Written before any was traced with a default target."""
PARTS = ("", "attention", "gates", "norms", "attention gates", "attention gates norms", "attention gates norms errors")
"""Parts that are frozen; with `errors` only the neurons of the graph respond."""
N = 48
TOGETHER, DRAWS = (2, 4, 8, 16), 12
Hooks = list[tuple[str, Hook]]


@dataclass(frozen=True, kw_only=True)
class Predictions(RunsModel, Threaded):
    """Compare predicted with measured ablations, with parts of the model frozen."""

    model: ModelArgument
    file: Annotated[Path, Argument("FILE")]
    """JSON file of the results."""
    alone: bool = False
    """Explain the target alone, without its contrast."""
    free: bool = False
    """Only ablate single neurons with nothing frozen; those drawn are of the 4,096 of largest effect, without edges."""

    def run(self) -> None:
        from interp.models.loading import load_model

        self.use_threads()
        model = load_model(self.model, device=self.use_device())
        known: dict[str, Any] = read_json(self.file) if self.file.is_file() else {}
        parts = PARTS[:1] if self.free else PARTS
        for prompt in PROMPTS:
            if prompt not in known:
                settings = trace_settings(model, prompt, Neurons(), TraceConfig())
                known[prompt] = measured(open_traced(model, settings, Neurons()), alone=self.alone, parts=parts)
                write_json(self.file, known)
            say(f"{prompt} {known[prompt]['target']}: {known[prompt]['value']:.1f}")
        rows = [*known.values()]
        for name in rows[0]["predicted"]:
            _line(f"predicted {name}", [(row["predicted"][name], row["measured"][""]) for row in rows])
        for held in PARTS[1:] if not self.free else ():
            _line(f"along the edges, {held}", [(row["predicted"]["edges"], row["measured"][held]) for row in rows])
        for n in rows[0]["together"]:
            _line(f"{n} ablated together", [np.transpose(row["together"][n]) for row in rows])


def _line(text: str, pairs: Sequence[Any]) -> None:
    rows = [np.array([x, y], dtype=float) for x, y in pairs]
    both = [row[:, np.isfinite(row[1])] for row in rows]
    rho = [rank_correlation(x, y) for x, y in both]
    slope = np.mean([np.dot(x, y) / np.dot(x, x) for x, y in both])
    lost = sum(row.shape[1] for row in rows) - sum(row.shape[1] for row in both)
    without = f"; {lost} ablations diverge" * (lost > 0)
    say(f"{text:60} rank correlation {np.mean(rho):.2f} ({min(rho):.2f} to {max(rho):.2f}), slope {slope:.2f}{without}")


def measured(system: System, *, alone: bool, parts: Sequence[str]) -> dict[str, Any]:
    """Return predictions and measurements of one prompt with parts frozen; of all, also edges and sums."""
    model, config = system.frozen.model, TraceConfig()
    aim = aim_at(model, system, config)
    aim = aim_at(model, system, config, aim.targets[0].sides[0]) if alone else aim
    read, predicted = aim.starts.read[0], {}
    effects = {held: first_order(system, read, held) for held in parts}
    if parts == PARTS:
        adjacency = assemble(system, aim, config)
        numbers = torch.as_tensor(adjacency.features)
        layers, activations = system.layer[numbers].numpy(), system.activation[numbers].double().numpy()
        predicted["edges"] = predicted_effects(adjacency, layers, activations)
        predicted["direct"] = adjacency.row_of_target()[: len(numbers)]
    else:
        numbers = effects[""].abs().topk(config.max_feature_nodes).indices
    predicted |= {held: values[numbers].numpy() for held, values in effects.items()}
    strongest = np.argsort(-np.abs(predicted[""]), kind="stable")[: N // 2]
    draw = np.random.default_rng(0)
    sample = np.concatenate([strongest, draw.permutation(np.setdiff1d(np.arange(len(numbers)), strongest))[: N // 2]])
    sizes = TOGETHER if parts == PARTS else ()
    together = {n: [draw.permutation(strongest)[:n] for _ in range(DRAWS)] for n in sizes}
    moved = {n: ablated(system, numbers, sets, read, "") for n, sets in together.items()}
    return {
        "target": aim.targets[0].label,
        "value": float(aim.values[0]),
        "predicted": {name: values[sample].tolist() for name, values in predicted.items()},
        "measured": {held: ablated(system, numbers, sample[:, None], read, held) for held in parts},
        "together": {
            n: [(float(predicted[""][one].sum()), effect) for one, effect in zip(sets, moved[n], strict=True)]
            for n, sets in together.items()
        },
    }


def first_order(system: System, read: Tensor, parts: str) -> Tensor:
    """Return the first-order effect of every latent, `[features]`, with parts frozen."""
    frozen = system.frozen
    probes = [torch.zeros_like(frozen.embedding).requires_grad_() for _ in frozen.blocks]
    added: Hooks = [(frozen.mlp_point(layer), adding(probe)) for layer, probe in enumerate(probes)]
    with torch.enable_grad():
        gradients = torch.autograd.grad((_final(system, parts, added, 1) @ read)[0], probes)
    effects = read.new_zeros(1, system.n_sources)
    for layer, gradient in enumerate(gradients):
        system.add_effects(effects, layer, gradient[:, None])
    return effects[0, : system.n_features]


@torch.no_grad()
def ablated(
    system: System, numbers: Tensor, sets: Sequence[Any] | np.ndarray, read: Tensor, parts: str
) -> list[float | None]:
    """Return what is taken from the target without each set of latents, with parts frozen.

    None where the values overflow, as they can with norms frozen: nothing bounds what grows from layer to layer.
    """
    written = [deltas(system, [ablation(system, int(numbers[i])) for i in some]) for some in sets]
    clean, out = _final(system, parts, [], 1), []
    for first in range(0, len(written), ROWS):
        some, none = written[first : first + ROWS], torch.zeros_like(system.frozen.embedding)
        hooks: Hooks = [
            (system.frozen.mlp_point(layer), adding(torch.stack([delta.get(layer, none) for delta in some])))
            for layer in sorted({layer for delta in some for layer in delta})
        ]
        out += ((clean - _final(system, parts, hooks, len(some))) @ read).tolist()
    return [value if math.isfinite(value) else None for value in out]


def _final(system: System, parts: str, hooks: Hooks, rows: int) -> Tensor:
    """Return the unembedding's input `[rows, d_model]` at the last position, with parts frozen."""
    frozen, kept = system.frozen, []
    last = f"blocks.{len(frozen.blocks) - 1}.hook_resid_post"
    hooks = [*hooks, *freezing(system, parts), (last, lambda value, hook: kept.append(value[:, -1].float()))]
    tokens = frozen.tokens.expand(rows, -1)
    if torch.is_grad_enabled():
        run_with_hooks(frozen.model, tokens, hooks)
    else:
        run_from(frozen.model, tokens, hooks, until=last)  # logits of a large vocabulary take half of the time
    if "norms" not in parts:
        return final_input(frozen, kept[0])
    return apply_linear(FrozenNorm(frozen.final.norm, frozen.final.scale[-1], frozen.final.bias), kept[0])


def freezing(system: System, parts: str) -> Hooks:
    """Return hooks that hold parts at their clean values."""
    frozen, hooks = system.frozen, []
    names = [f"blocks.{layer}.mlp.{name}" for layer in range(len(frozen.blocks)) for name in ("hook_pre", "hook_post")]
    clean = {name: value[0] for name, value in run_with_cache(frozen.model, frozen.tokens, names)[1].items()}
    for layer, block in enumerate(frozen.blocks):
        at = f"blocks.{layer}."
        hooks += [(at + "attn.hook_pattern", inserting(block.pattern))] if "attention" in parts else []
        hooks += [(at + "mlp.hook_pre", inserting(clean[at + "mlp.hook_pre"]))] if "gates" in parts else []
        if "errors" in parts:
            here, post = system.layer == layer, clean[at + "mlp.hook_post"]
            responds = torch.zeros_like(post, dtype=torch.bool)
            responds[system.position[here], system.latent[here]] = True
            hooks.append((at + "mlp.hook_post", lambda value, hook, r=responds, p=post: torch.where(r, value, p)))
        norms = [
            ("hook_resid_pre", "ln1", block.norm1),
            ("hook_resid_mid", "ln2", block.norm2),
            ("ln1_post.hook_in", "ln1_post", block.post1),
            ("ln2_post.hook_in", "ln2_post", block.post2),
        ]
        for source, name, norm in norms if "norms" in parts else ():
            hooks += [] if norm is None else _holding(at + source, f"{at}{name}.hook_out", norm)
    return hooks


def _holding(source: str, output: str, norm: FrozenNorm) -> Hooks:
    """Return hooks that compute the output of a norm with its clean scale."""
    kept: dict[str, Tensor] = {}
    return [
        (source, lambda value, hook: kept.update(value=value)),
        (output, lambda value, hook: apply_linear(norm, kept["value"]) + norm.bias),
    ]


if __name__ == "__main__":
    run_tool(Predictions)
