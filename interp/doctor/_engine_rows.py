"""The rows that transformers alone computes at the hook points of an engine, and the causes of wrong ones."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.doctor.trials import relative
from interp.engines.modules import BLOCK, Site
from interp.names import parse_hook_point

LOOKED_AT = 6
"""Contexts in which the cause of a difference is looked for."""
AT_ONCE = 8
"""Contexts of a pass of transformers."""
_ALIKE = 1e-3
_MOST = 0.7


@torch.no_grad()
def reference_rows(
    plain: Any,
    sites: dict[str, Site],
    contexts: Sequence[list[int]],
    adding: dict[str, Tensor] | None = None,
    at_once: int = AT_ONCE,
) -> dict[str, Tensor]:
    """Return `[n_rows, d]` by hook point: contexts of like length together through a model of transformers.

    Shorter ones are filled up behind their end, where no token looks; the unembedding is left out. `adding` gives
    vectors `[d]` by the path of the module after which they are added.
    """
    seen: dict[str, list[Tensor]] = {name: [] for name in sites}
    modules = dict(plain.named_modules())
    handles = [modules[path].register_forward_hook(_added(vector)) for path, vector in (adding or {}).items()]
    for name, site in sites.items():
        handles.append(_hooked(modules[site.path], site.side, seen[name]))
    order = sorted(range(len(contexts)), key=lambda number: len(contexts[number]))
    try:
        for first in range(0, len(order), at_once):
            together = [contexts[number] for number in order[first : first + at_once]]
            filled = [context + [0] * (len(together[-1]) - len(context)) for context in together]
            plain.base_model(input_ids=torch.tensor(filled), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {name: _unfilled(batches, contexts, order) for name, batches in seen.items()}


def _unfilled(batches: list[Tensor], contexts: Sequence[list[int]], order: list[int]) -> Tensor:
    """Return the rows of contexts one after another, from batches that had them in another order."""
    filled = dict(zip(order, (rows for batch in batches for rows in batch), strict=True))
    return torch.cat([filled[number][: len(context)] for number, context in enumerate(contexts)])


def _added(vector: Tensor) -> Any:
    return lambda module, args, out: (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector


def _hooked(module: Any, side: str, batches: list[Tensor]) -> Any:
    def before(module: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = (*args, *kwargs.values())
        batches.append(next(v for v in values if isinstance(v, Tensor) and v.is_floating_point()).clone())

    def after(module: object, args: object, out: Any) -> None:
        batches.append((out[0] if isinstance(out, tuple) else out).clone())

    return (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if side == "in"
        else module.register_forward_hook(after)
    )


def cause_of(plain: Any, sites: dict[str, Site], name: str, came: Tensor, contexts: Sequence[list[int]]) -> str:
    """Return what wrong rows of a hook point are instead, in words; empty where they are none of the known mistakes.

    `came [n_rows, d]` are the rows of the contexts, NaN where none came.
    """
    expected = _one(plain, sites[name], contexts)
    if known := _other_contexts(came, expected) or _missing(came, contexts):
        return known
    chosen = sorted(range(len(contexts)), key=lambda number: -len(contexts[number]))[:LOOKED_AT]
    few = [contexts[number] for number in chosen]
    starts = [sum(map(len, contexts[:number])) for number in chosen]
    rows = torch.cat([came[start : start + len(context)] for start, context in zip(starts, few, strict=True)])
    for words, mistake in _mistakes(plain, sites, name, few):
        if relative(rows, mistake) < _ALIKE:
            return words
    return ""


def _missing(came: Tensor, contexts: Sequence[list[int]]) -> str:
    """Say where rows are missing: the beginnings of contexts, or what came after a part of them."""
    parts = came.isnan().any(1).split([len(context) for context in contexts])
    holes = [part for part in parts if bool(part.any())]
    if not holes:
        return ""
    what = f"rows of {len(holes)} of {len(contexts)} contexts never came"
    at_the_start = sum(bool(hole[0]) and not bool(hole[-1]) for hole in holes)
    at_the_end = sum(bool(hole[-1]) and not bool(hole[0]) for hole in holes)
    if at_the_start > _MOST * len(holes):
        return f"{what}, their beginnings: cached prefixes were not computed again"
    if at_the_end > _MOST * len(holes):
        return f"{what}, their ends: prompts were computed in chunks, of which one was kept"
    return what


def _mistakes(
    plain: Any, sites: dict[str, Site], name: str, contexts: Sequence[list[int]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield known mistakes and the rows that each gives, cheapest first."""
    point = parse_hook_point(name)
    for shift in (1, -1):
        other = f"blocks.{(point.layer or 0) + shift}.{point.suffix}"
        if other in sites:
            yield f"they are those of {other}: a layer off by one", _one(plain, sites[other], contexts)
    near = {f"blocks.{point.layer}.{suffix}": words for suffix, words in _PARTS.items()}
    for other, words in near.items():
        if other in sites and other != name:
            yield f"they are those of {other}: {words}", _one(plain, sites[other], contexts)
    if (norm := _next_norm(plain, point.layer or 0, point.suffix)) is not None:
        yield f"they were taken after the norm {norm.path}", _one(plain, norm, contexts)
    yield from _wrong_tokens(plain, sites[name], contexts)
    yield from _one_part(plain, sites[name], contexts)


_PARTS = {
    "hook_mlp_out": "the fused residual is left out",
    "hook_resid_mid": "what the MLP wrote is left out",
    "hook_attn_out": "the fused residual is left out",
    "hook_resid_pre": "what the block wrote is left out",
    "ln2_post.hook_in": "the norm after the MLP is left out",
    "ln1_post.hook_in": "the norm after attention is left out",
}


def _one(plain: Any, site: Site, contexts: Sequence[list[int]]) -> Tensor:
    return reference_rows(plain, {"it": site}, contexts)["it"]


def _next_norm(plain: Any, layer: int, suffix: str) -> Site | None:
    """Return the norm that reads the residual stream of a hook point."""
    modules = dict(plain.named_modules())
    block = BLOCK.format(layer=layer)
    following = {
        "hook_resid_pre": [f"{block}.input_layernorm"],
        "hook_resid_mid": [f"{block}.pre_feedforward_layernorm", f"{block}.post_attention_layernorm"],
        "hook_resid_post": [f"{BLOCK.format(layer=layer + 1)}.input_layernorm", "model.norm"],
    }.get(suffix, [])
    path = next((path for path in following if path in modules), None)
    return None if path is None else Site(path, "out", residual=False)


def _wrong_tokens(plain: Any, site: Site, contexts: Sequence[list[int]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the rows of contexts with a token before them, or filled up to one length."""
    vocabulary, config = plain.get_input_embeddings().weight.shape[0], plain.config.get_text_config()
    bos = next((i for i in (config.bos_token_id, config.eos_token_id) if isinstance(i, int) and i < vocabulary), 0)
    longer = _one(plain, site, [[bos, *context] for context in contexts])
    parts = longer.split([len(context) + 1 for context in contexts])
    yield "a BOS token was put before every context", torch.cat([part[1:] for part in parts])
    yield "a BOS token was put before every context, and its row taken", torch.cat([part[:-1] for part in parts])
    longest = max(map(len, contexts))
    for pad in dict.fromkeys((0, bos)):
        filled = _one(plain, site, [[pad] * (longest - len(context)) + context for context in contexts])
        rows = [part[-len(context) :] for part, context in zip(filled.split(longest), contexts, strict=True)]
        yield "padding before the contexts was attended to", torch.cat(rows)


def _one_part(plain: Any, site: Site, contexts: Sequence[list[int]]) -> Iterator[tuple[str, Tensor]]:
    """Yield the part of an output that one of several processes computes before they are summed."""
    last = {"self_attn": "o_proj", "mlp": "down_proj"}.get(site.path.rpartition(".")[2])
    if last is None or site.side == "in":
        return
    path = f"{site.path}.{last}"
    module = plain.get_submodule(path)
    inner = _one(plain, Site(path, "in", residual=False), contexts)
    for world in (2, 3, 4, 8):
        if inner.shape[1] % world == 0:
            width = inner.shape[1] // world
            for rank in range(world):
                share = slice(rank * width, (rank + 1) * width)
                part = inner[:, share] @ module.weight[:, share].T
                yield f"they are the part of process {rank + 1} of {world}, not the sum", part


def _other_contexts(came: Tensor, expected: Tensor) -> str:
    """Say whether most rows, `[n_rows, d]` both, are right but for the context and position that they stand for."""
    at = (~came.isnan().any(1)).nonzero().flatten()
    if not len(at):
        return ""
    size = came[at].norm(dim=1).clamp_min(1e-12)
    apart = torch.cdist(came[at].double(), expected.double()) / size[:, None]
    agreeing = float((apart[torch.arange(len(at)), at] < _ALIKE).double().mean())
    anywhere = float((apart.min(1).values < _ALIKE).double().mean())
    if anywhere > 0.9 > 2 * agreeing:
        return "they are rows of other contexts: requests came back in another order than they went"
    return ""


def parts_of(contexts: Sequence[list[int]], n_rows: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Cut contexts into parts of `n_rows` tokens, or of one context, each with the number of its first."""
    first, room = 0, n_rows
    for number, context in enumerate(contexts):
        if number > first and room < len(context):
            yield first, list(contexts[first:number])
            first, room = number, n_rows
        room -= len(context)
    yield first, list(contexts[first:])
