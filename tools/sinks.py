"""Attention to the first position of a text, and the loss without it: `python -m tools.sinks MODEL`.

The measurement behind docs/findings/attention-sinks.md. Texts are the same `length` tokens of docstrings; only what
stands first differs: BOS, a line break, a random token, nothing ("text": its own first token), or BOS in the middle.

- **share**: attention on position 0, mean over queries from position 8 on (Gu et al. 2024), per head; a head with more
  than 0.3 is a sink head. Its nulls are uniform attention and an untrained model.
- **loss**: rise of the loss in nats per token where a key is hidden from all heads' queries from position 8 on, and the
  rest of their attention renormalised: the first position (Xiao et al. 2023), or the null, in every head the strongest
  other key of each query. "muted" zeroes the attention to the first position without renormalising: what its value
  adds. Hidden from the start, the first position is as if it had never been there, and the second one is the first.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from interp.models.adapter import Hook, bos_token_id, ordinary_tokens, run_with_hooks, to_tokens, untrained_model
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.seeds import make_generator
from interp.statistics import t_interval
from interp.text.corpora import open_corpus

SINK, FIRST_QUERY = 0.3, 8
"""Share of attention above which a head is a sink head (Gu et al. 2024), and the first query that counts."""
Edit = Callable[[Tensor], Tensor]


def texts(model: HookedModel, n: int, length: int, seed: int) -> Int64[Tensor, "{n} {length}"]:
    """Draw `n` documents that have enough tokens, without BOS."""
    rows: list[Tensor] = []
    for document in open_corpus("docstrings", seed=seed):
        tokens = to_tokens(model, document.text[: 12 * length], prepend_bos=False)[0]
        if len(tokens) >= length:
            rows.append(tokens[:length])
        if len(rows) == n:
            return torch.stack(rows)
    raise SystemExit(f"only {len(rows)} docstrings here have {length} tokens")


def starts(model: HookedModel, text: Int64[Tensor, "n length"], seed: int) -> dict[str, tuple[Tensor, int]]:
    """Return the tokens of every condition, and the position whose attention is its share."""
    n, length = text.shape
    ordinary = ordinary_tokens(model)
    drawn = ordinary[torch.randint(len(ordinary), (n,), generator=make_generator(seed, "first tokens"))]
    lines = to_tokens(model, "\n", prepend_bos=False)[0, -1].expand(n)
    found = {"text": (text, 0), "random token": (_with(text, drawn, 0), 0), "line break": (_with(text, lines, 0), 0)}
    if (bos := bos_token_id(model)) is not None:
        row = torch.full((n,), bos)
        found |= {"BOS": (_with(text, row, 0), 0), "BOS in the middle": (_with(text, row, length // 2), length // 2)}
    return found


def _with(text: Tensor, token: Tensor, at: int) -> Tensor:
    return torch.cat([text[:, :at], token[:, None], text[:, at:-1]], 1)


@torch.no_grad()
def shares(model: HookedModel, tokens: Int64[Tensor, "n length"], at: int) -> Float[Tensor, "n n_layers n_heads"]:
    """Return the attention of every head on position `at`, mean over the queries that lie `FIRST_QUERY` after it."""
    found: list[Tensor] = []
    hooks: list[tuple[str, Hook]] = [
        (_point(layer), lambda p, hook: found.append(p[:, :, at + FIRST_QUERY :, at].mean(2)))
        for layer in _layers(model)
    ]
    run_with_hooks(model, tokens, hooks)
    return torch.stack(found, 1)


def _layers(model: HookedModel) -> range:
    return range(int(model.cfg.n_layers))


def _point(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_pattern"


def muted(pattern: Tensor, since: int = FIRST_QUERY) -> Tensor:
    """Zero the attention on position 0, of the queries from position `since` on."""
    new = pattern.clone()
    new[:, :, since:, 0] = 0
    return new


def without_first(pattern: Tensor, since: int = FIRST_QUERY) -> Tensor:
    """Hide position 0 from the queries from position `since` on."""
    return _renormalised(muted(pattern, since))


def without_other(pattern: Tensor, since: int = FIRST_QUERY) -> Tensor:
    """Hide from each of these queries of every head its strongest key other than position 0."""
    new = pattern.clone()
    strongest = pattern[:, :, since:, 1:].argmax(-1, keepdim=True) + 1
    new[:, :, since:] = new[:, :, since:].scatter(-1, strongest, 0)
    return _renormalised(new)


def never_there(pattern: Tensor) -> Tensor:
    """Hide position 0 from all other queries."""
    return without_first(pattern, 1)


def _renormalised(pattern: Tensor) -> Tensor:
    return pattern / pattern.sum(-1, keepdim=True).clamp_min(1e-30)


@torch.no_grad()
def losses(model: HookedModel, tokens: Int64[Tensor, "n length"], edit: Edit | None = None) -> Float[Tensor, " n"]:
    """Return the loss per text in nats, over predictions from position `FIRST_QUERY` on."""
    hooks: list[tuple[str, Hook]] = []
    if edit:
        hooks = [(_point(layer), partial(_edited, edit)) for layer in _layers(model)]
    logits = run_with_hooks(model, tokens, hooks)[:, FIRST_QUERY:-1].float()
    return torch.nn.functional.cross_entropy(
        logits.transpose(1, 2), tokens[:, FIRST_QUERY + 1 :], reduction="none"
    ).mean(1)


def _edited(edit: Edit, pattern: Tensor, hook: object) -> Tensor:
    return edit(pattern)


def batched(run: Callable[[Tensor], Tensor], tokens: Tensor, size: int = 4) -> Tensor:
    """Return what a function says of all rows, a few at a time."""
    return torch.cat([run(part) for part in tokens.split(size)])


def measure(model: HookedModel, n: int, length: int, seeds: list[int]) -> dict[str, object]:
    """Return shares and losses of all conditions; intervals are over texts of all seeds."""
    blank = untrained_model(model, 0)
    drawn = [starts(model, texts(model, n, length, seed), seed) for seed in seeds]
    found: dict[str, object] = {"uniform": float((1 / torch.arange(FIRST_QUERY + 1, length + 1)).mean())}
    for name in drawn[0]:
        parts = [(by[name][0], by[name][1]) for by in drawn]
        share = torch.cat([batched(partial(shares, model, at=at), tokens) for tokens, at in parts])
        row: dict[str, object] = {
            "share": t_interval(share.mean((1, 2)).numpy()),
            "by seed": [float(part.mean()) for part in share.split(n)],
            "sink heads": float((share.mean(0) > SINK).float().mean()),
        }
        if name in ("BOS", "text"):
            null = batched(partial(shares, blank, at=0), parts[0][0])
            row |= {
                "untrained": float(null.mean()),
                "untrained sink heads": float((null.mean(0) > SINK).float().mean()),
            }
            tokens = torch.cat([tokens for tokens, _ in parts])
            plain = batched(partial(losses, model), tokens)
            row["loss"] = float(plain.mean())
            for edit in (without_first, without_other, muted, never_there):
                row[edit.__name__] = t_interval((batched(partial(losses, model, edit=edit), tokens) - plain).numpy())
            row["heads"] = share.mean(0).tolist()
        found[name] = row
        print(name, {key: value for key, value in row.items() if key != "heads"}, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--texts", type=int, default=8, help="per seed")
    parser.add_argument("--length", type=int, default=128, help="tokens")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found = measure(load_model(asked.model), asked.texts, asked.length, asked.seeds)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
