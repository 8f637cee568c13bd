"""Checks that every hook point sees the value it is named after, and that writing it back changes nothing."""

import warnings
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from interp.doctor._reference import Reference
from interp.doctor.trials import Outcome, Setup, Skip, gap, relative, trial, worst
from interp.models.adapter import Hook, head_shape, hook_points_by_name, pattern_is_editable, run_with_cache
from interp.models.passes import run_from, storing_hook
from interp.names import parse_hook_point


def edited_prompt(setup: Setup) -> Tensor:
    """Return a short prompt `[1, pos]` whose length no other axis of the model has: the axis of positions is found by
    it."""
    shape = head_shape(setup.model)
    length = next(n for n in (4, 5, 6, 7) if n not in (shape.n_heads, shape.n_kv_heads, shape.d_head))
    return setup.prompts.rows[-1][:, :length]


def _seen(setup: Setup) -> dict[str, Tensor]:
    """Return what every hook point sees on two rows of one prompt, computed once; one that does not fire is missing."""
    if "seen" not in setup.known:
        seen: dict[str, Tensor] = {}
        hooks = [(name, storing_hook(seen, name)) for name in hook_points_by_name(setup.model)]
        run_from(setup.model, edited_prompt(setup).repeat(2, 1), hooks)
        setup.known["seen"] = seen
    return setup.known["seen"]


def editable_points(setup: Setup) -> list[str]:
    """Return the hook points that can be edited row by row."""
    names = [name for name, value in _seen(setup).items() if value.is_floating_point() and value.shape[0] == 2]
    return names if pattern_is_editable(setup.model) else [name for name in names if not name.endswith("hook_pattern")]


@trial(
    "hooks", "read",
    did="Attached a hook to every hook point that the workbench offers and ran a prompt.",
    expected="each fires, with finite values (scores that are masked are minus infinity)",
    means="A hook point never fires or sees nothing: recordings there are empty, and edits there do nothing.",
)  # fmt: skip
def read(setup: Setup) -> Outcome:
    seen, offered = _seen(setup), hook_points_by_name(setup.model)
    silent = sorted(set(offered) - set(seen))
    broken = [name for name, value in seen.items() if not _is_sound(name, value)]
    wrong = [*silent, *broken]
    return not wrong, f"{len(seen)} of {len(offered)} fired" + (f"; not sound: {', '.join(wrong[:3])}" if wrong else "")


def _is_sound(name: str, value: Tensor) -> bool:
    if name.endswith("hook_attn_scores"):
        return not bool(value.isnan().any() | (value == torch.inf).any())
    return bool(value.isfinite().all())


@trial(
    "hooks", "same value written",
    did="Wrote the same value back at every hook point at once.",
    expected="the same logits but for rounding",
    means="Reading a value through a hook that returns it changes the model: an intervention has an effect of its own.",
)  # fmt: skip
def same_value(setup: Setup) -> Outcome:
    row = edited_prompt(setup)
    hooks: list[tuple[str, Hook]] = [(name, lambda value, hook: value.clone()) for name in editable_points(setup)]
    return setup.alike(gap(logits_of(setup, row, hooks), setup.logits(row)))


def logits_of(setup: Setup, value: Tensor, hooks: list[tuple[str, Hook]], layer: int = 0) -> Tensor:
    """Return the logits of a pass with hooks, from tokens, or from the residual before a block.

    The warning that an edited norm differs by rounding is left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = run_from(setup.model, value, hooks, layer=layer)
    assert logits is not None  # only a pass with `until` has none
    return logits


@trial(
    "hooks", "residual stream", cheap=True,
    did="Read the residual before and after every block, here and as transformers' own hidden states.",
    expected="the same values",
    means="Hook points are at other places than their names say: a dictionary would be applied a layer off.",
)  # fmt: skip
def residual_stream(setup: Setup) -> Outcome:
    reference, row = setup.held_against(), setup.prompts.rows[1]
    hidden = reference.run(row, output_hidden_states=True).hidden_states
    n = setup.model.cfg.n_layers
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(n)]
    names += [f"blocks.{layer}.hook_resid_post" for layer in range(n - 1)]
    _, values = run_with_cache(setup.model, row, names)
    theirs = [*hidden[:n], *hidden[1:n]]
    gaps = {name: relative(values[name], value) for name, value in zip(names, theirs, strict=True)}
    name = max(gaps, key=gaps.__getitem__)
    return gaps[name] < setup.same_norm, f"a relative error up to {gaps[name]:.2g}, at {name}"


@trial(
    "hooks", "attention and MLP",
    did="Read what attention and MLP of every block write, here and with forward hooks of torch on transformers alone.",
    expected="the same values",
    means="Parts of a block are read at other places than their names say.",
)  # fmt: skip
def parts_of_blocks(setup: Setup) -> Outcome:
    reference, row = setup.held_against(), setup.prompts.rows[1]
    blocks = _blocks(reference.plain, setup.model.cfg.n_layers)
    theirs: dict[str, Tensor] = {}
    handles = []
    norm_follows = any("ln1_post" in name for name in hook_points_by_name(setup.model))
    wanted = {"mlp": "ln2_post.hook_in" if norm_follows else "hook_mlp_out"}
    wanted["attn"] = "ln1_post.hook_in" if norm_follows else "hook_attn_out"
    for layer, block in enumerate(blocks):
        for child, module in block.named_children():
            kind = "attn" if "attn" in child or "attention" in child else "mlp" if child == "mlp" else ""
            if kind and "norm" not in child:
                handles.append(module.register_forward_hook(_keep(theirs, f"blocks.{layer}.{wanted[kind]}")))
    reference.run(row)
    for handle in handles:
        handle.remove()
    theirs = {name: value for name, value in theirs.items() if name in hook_points_by_name(setup.model)}
    if not theirs:
        raise Skip("its blocks have no modules named after attention or MLP")
    _, values = run_with_cache(setup.model, row, list(theirs))
    gaps = {name: relative(values[name], value) for name, value in theirs.items()}
    name = max(gaps, key=gaps.__getitem__)
    return gaps[name] < setup.same_norm, f"{len(gaps)} values, a relative error up to {gaps[name]:.2g}, at {name}"


def _keep(store: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(module: torch.nn.Module, inputs: object, out: Tensor | tuple[Tensor, ...]) -> None:
        store[name] = (out[0] if isinstance(out, tuple) else out).detach()

    return hook


def _blocks(plain: torch.nn.Module, n_layers: int) -> list[torch.nn.Module]:
    """Return the blocks of a model of transformers: its one list of `n_layers` modules."""
    lists = [part for part in plain.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == n_layers]
    if not lists:
        raise Skip("transformers' model has no list of its blocks")
    return list(lists[0])


@trial(
    "hooks", "modules",
    did="Read every hook point, and what every module of transformers alone reads and writes on the same prompt, and "
    "looked for the same values.",
    expected="a hook point finds the same module in every block, or finds none in any",
    means="A hook point of one block differs from the same one in other blocks: another layer's value, a scaled one, "
    "or that of a neighbouring part.",
)  # fmt: skip
def modules(setup: Setup) -> Outcome:
    reference, row = setup.held_against(), setup.prompts.rows[1]
    theirs = _of_modules(reference, row, setup.model.cfg.n_layers)
    names = [name for name in hook_points_by_name(setup.model) if parse_hook_point(name).layer is not None]
    _, values = run_with_cache(setup.model, row, names)
    sources: dict[str, dict[int, frozenset[str]]] = {}
    for name, value in values.items():
        point = parse_hook_point(name)
        assert point.layer is not None
        sources.setdefault(point.suffix, {})[point.layer] = _same(value, theirs, point.layer, setup.same_norm)
    wrong = []
    for suffix, by_layer in sources.items():
        common = Counter(part for parts in by_layer.values() for part in parts).most_common(1)
        if common and common[0][1] > len(by_layer) / 2:
            wrong += [f"blocks.{layer}.{suffix}" for layer, parts in by_layer.items() if common[0][0] not in parts]
    judged = sum(any(by_layer.values()) for by_layer in sources.values())
    summary = f"{judged} of {len(sources)} hook points of a block are what a module reads or writes, in every block"
    return not wrong, summary if not wrong else f"not the same: {', '.join(wrong[:4])}"


def _of_modules(reference: Reference, row: Tensor, n_layers: int) -> list[dict[str, Tensor]]:
    """Return what the modules of every block read and write, by block, as `q_proj in` and `q_proj out`."""
    blocks: list[dict[str, Tensor]] = []
    handles = []
    for block in _blocks(reference.plain, n_layers):
        blocks.append(store := {})
        for name, module in block.named_modules():
            handles.append(module.register_forward_hook(_keep_both(store, name), with_kwargs=True))
    reference.run(row)
    for handle in handles:
        handle.remove()
    return blocks


def _keep_both(store: dict[str, Tensor], name: str) -> Callable[..., None]:
    def hook(
        module: torch.nn.Module, inputs: tuple[object, ...], named: dict[str, object], out: object | tuple[object, ...]
    ) -> None:
        parts = {"in": [*inputs, *named.values()], "out": out if isinstance(out, tuple) else [out]}
        for side, tensors in parts.items():
            store.update({f"{name} {side} {n}": t.detach() for n, t in enumerate(tensors) if torch.is_tensor(t)})

    return hook


def _same(value: Tensor, theirs: list[dict[str, Tensor]], layer: int, limit: float) -> frozenset[str]:
    """Return the parts of this block that hold a value, whatever its shape."""
    flat = value.flatten().float()
    parts = {name: part.flatten() for name, part in theirs[layer].items() if part.numel() == flat.numel()}
    return frozenset(name for name, part in parts.items() if relative(flat, part) < limit)


@trial(
    "hooks", "sum of a block", cheap=True,
    did="Added what heads and MLP of each block write to the residual before it, and compared with the residual after.",
    expected="the same vector",
    means="The output of a head or an MLP is not its contribution: attribution and patching by addition are wrong.",
)  # fmt: skip
def sum_of_blocks(setup: Setup) -> Outcome:
    from interp.models.residual import ResidualStream

    error = ResidualStream(setup.model).check_additive(tolerance=float("inf"))
    limit = 1e-3 if setup.model.cfg.dtype == torch.float32 else 0.05
    return error < limit, f"a relative error up to {error:.2g}"


def _attention(setup: Setup, suffixes: tuple[str, ...]) -> tuple[int, dict[str, Tensor]]:
    """Return the number of layers that have all of some hook points, and their values on a prompt."""
    have, n = hook_points_by_name(setup.model), setup.model.cfg.n_layers
    names = [f"blocks.{layer}.attn.{suffix}" for layer in range(n) for suffix in suffixes]
    if missing := [name for name in names if name not in have]:
        raise Skip(f"the model has no {missing[0]}")
    return n, run_with_cache(setup.model, setup.prompts.rows[1], names)[1]


@trial(
    "hooks", "patterns", cheap=True,
    did="Summed every attention pattern over its sources, and looked at later positions.",
    expected="sums of 1, and nothing on later positions",
    means="The values shown as attention are not attention: scores, or a pattern without its mask.",
)  # fmt: skip
def patterns(setup: Setup) -> Outcome:
    n, values = _attention(setup, ("hook_pattern",))
    every = torch.stack([values[f"blocks.{layer}.attn.hook_pattern"].float() for layer in range(n)])
    off = float((every.sum(-1) - 1).abs().max())
    later = float(every.triu(1).abs().max())
    passed = off < max(setup.same, 1e-3) and later == 0
    return passed, f"sums within {off:.2g} of 1, at most {later:.2g} on later positions"


@trial(
    "hooks", "values read by heads",
    did="Multiplied every head's pattern with the values of its key-value head.",
    expected="what the head's output hook point holds",
    means="Heads are permuted, or query heads are matched with wrong key-value heads.",
)  # fmt: skip
def values_by_heads(setup: Setup) -> Outcome:
    n, values = _attention(setup, ("hook_pattern", "hook_v", "hook_z"))
    shape = head_shape(setup.model)
    gaps = []
    for layer in range(n):
        pattern, v, z = (values[f"blocks.{layer}.attn.{name}"].float() for name in ("hook_pattern", "hook_v", "hook_z"))
        v = v.unflatten(-1, (shape.n_kv_heads, -1)) if v.ndim == 3 else v
        z = z.unflatten(-1, (shape.n_heads, -1)) if z.ndim == 3 else z
        repeated = v.repeat_interleave(shape.n_heads // v.shape[2], 2)
        gaps.append(gap(torch.einsum("bhqk,bkhd->bqhd", pattern, repeated), z))
    difference = worst(gaps)
    return difference < setup.same, f"differences up to {difference:.2g} of their spread"


@trial(
    "hooks", "scores",
    did="Took the softmax of every attention score, later positions left out.",
    expected="the attention pattern",
    means="Scores are read before rotation, cap or mask: they are not those that the pattern is made of.",
)  # fmt: skip
def scores(setup: Setup) -> Outcome:
    n, values = _attention(setup, ("hook_attn_scores", "hook_pattern"))
    gaps = []
    for layer in range(n):
        score, pattern = (
            values[f"blocks.{layer}.attn.{name}"].float() for name in ("hook_attn_scores", "hook_pattern")
        )
        hidden = pattern == 0
        gaps.append(gap(score.masked_fill(hidden, -torch.inf).softmax(-1), pattern))
    difference = worst(gaps)
    return difference < max(setup.same, 1e-2), f"differences up to {difference:.2g} of their spread"
