"""Measure every head of a model over a text: kinds, words, outputs and examples, in one pass that resumes.

1. Read the text in batches; each layer's patterns become sums inside their hook (`TextSums`). The sums are stored now
   and then, so an interrupted run continues.
2. Read a sample of its contexts with an untrained model.
3. Kinds: the score of each head beside shuffled keys and untrained heads, with an interval over groups of documents.
4. Words: tokens and words that get more attention than shuffled keys give, what the OV circuit makes of them, and how
   much it raises the attended token itself, beside permuted tokens.

Shuffled keys are not drawn: the attention of a query outside BOS, spread over its keys at random, has a known mean.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.artifacts import Draft, Table
from interp.artifacts.draft import RESUME
from interp.circuits._head_outputs import N_WORDS, HeadOutputs
from interp.circuits._text_sums import VALUES, TextRead, TextSums
from interp.circuits.head_kinds import SMALLEST_FOUND
from interp.circuits.heads_in_text import (
    HeadExample,
    HeadInText,
    HeadKindInText,
    HeadPassage,
    HeadsInText,
    HeadsInTextConfig,
    HeadsInTextSettings,
    HeadWord,
)
from interp.circuits.text_kinds import TEXT_KINDS, TextKind, any_key
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.names import HeadName
from interp.nulls import ALPHA, prediction_bound
from interp.progress import Progress
from interp.statistics import t_interval

if TYPE_CHECKING:
    from interp.lenses.jacobian_lens import JacobianLens

LEAST_DOCUMENTS, LEAST_CONTEXTS = 4, 8
"""Of a text with fewer documents each context counts as one."""
RARE = 3
"""Contexts with most targets of each kind, which the untrained model reads besides: some kinds are rare."""
SAVE_SECONDS = 60


def measure_heads(
    model: HookedModel,
    tokens: Int[Tensor, "n_contexts pos"],
    documents: Int[Tensor, "n_contexts pos"],
    config: HeadsInTextConfig | None = None,
    *,
    kinds: Mapping[str, TextKind] | None = None,
    source: str = "",
    lens: "JacobianLens | None" = None,
    batch_size: int = 8,
    seed: int = 0,
    draft: Callable[[HeadsInTextSettings], Draft] | None = None,
    progress: Progress | None = None,
) -> HeadsInText:
    """Measure every head over a text.

    Args:
        model: its heads are measured; kinds of words need a tokenizer.
        tokens: contexts of the text, BOS first where the model has one.
        documents: the document of each token, -1 for BOS and padding.
        config: the sample of the untrained model; the text is already cut.
        kinds: kinds that are looked for (default: `TEXT_KINDS`); a kind of one's own is a function of tokens and words.
        source: name of the text in the result.
        lens: reads what heads write through later layers.
        batch_size: contexts per forward pass.
        seed: draws the untrained model and the permutations.
        draft: returns the work in progress of some settings, which an interrupted run continues.
        progress: called with (contexts done, all, facts).
    Returns: statistics, kinds, words and examples of every head.
    Raises:
        ConfigError: too few contexts, or a model without patterns.

    >>> tokens, documents = torch.randint(1, 8, (8, 24)), torch.arange(8)[:, None].expand(-1, 24)
    >>> found = measure_heads(load_model("planted:induction"), tokens, documents)
    >>> found.shape
    (2, 1)
    """
    from interp.models.adapter import token_strings, untrained_model, weight_hash
    from interp.models.identity import model_spec

    config, kinds = config or HeadsInTextConfig(), TEXT_KINDS if kinds is None else kinds
    if len(tokens) < LEAST_CONTEXTS:
        raise ConfigError(
            f"statistics of heads need at least {LEAST_CONTEXTS} contexts, this text has {len(tokens)} of "
            f"{tokens.shape[1]} tokens; take a longer text or a smaller --text-context"
        )
    if (n_documents := len(documents[documents >= 0].unique())) < LEAST_DOCUMENTS:
        documents = torch.arange(len(tokens))[:, None].where(documents >= 0, -1)
    ids = tokens.unique().tolist()
    text_of = dict(zip(ids, token_strings(model, ids), strict=True))
    settings = HeadsInTextSettings(
        text_tokens=config.text_tokens, text_context=tokens.shape[1], untrained_contexts=config.untrained_contexts,
        model=model_spec(model), weight_hash=weight_hash(model), source=source, contexts=len(tokens),
        documents=n_documents, kinds=tuple(kinds), lens="" if lens is None else lens.about.content_hash, seed=seed,
    )  # fmt: skip
    total = len(tokens) + min(config.untrained_contexts, len(tokens))
    text = TextRead(tokens, documents, text_of, kinds)
    sums = TextSums(model, text)
    _read(sums, batch_size, None if draft is None else draft(settings), _from(progress, 0, total, "model"))
    sample = _untrained_sample(sums, config.untrained_contexts)
    null = TextSums(untrained_model(model, seed), TextRead(tokens[sample], documents[sample], text_of, kinds))
    _read(null, batch_size, None, _from(progress, len(tokens), len(tokens) + len(sample), "untrained model"))
    outputs = HeadOutputs(model, text.token_ids, seed)
    received = sums.state["items"][1 : 1 + len(text.token_ids)]
    heads, scores = _scores(sums, null, outputs, received)
    chosen = _examples(sums)
    return HeadsInText(
        settings=settings,
        heads=Table.of(HeadInText, heads),
        kinds=Table.of(HeadKindInText, scores),
        words=Table.of(HeadWord, _words(sums, outputs, received, lens)),
        examples=Table.of(HeadExample, [example for example, _ in chosen]),
        passages=Table.of(HeadPassage, [
            HeadPassage(context=at, ids=tokens[at].tolist(), pieces=[text_of[token] for token in tokens[at].tolist()])
            for at in sorted({example.context for example, _ in chosen})
        ]),
        attention=np.stack([attention for _, attention in chosen])
        if chosen else np.zeros((0, 2, tokens.shape[1]), np.float16),
    )  # fmt: skip


def _untrained_sample(sums: TextSums, least: int) -> Int[Tensor, " n_sample"]:
    n = len(sums.text.tokens)
    spread = torch.linspace(0, n - 1, min(least, n)).long()
    return torch.cat([spread, sums.state["targets"].topk(min(RARE, n), dim=0).indices.flatten()]).unique()


def _from(progress: Progress | None, done: int, total: int, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda at, _, facts: progress(done + at, total, {"reads": name})


def _read(sums: TextSums, batch_size: int, draft: Draft | None, progress: Progress | None) -> None:
    """Read the text from where an earlier run stopped; the sums are stored every minute."""
    n, file, saved = len(sums.text.tokens), None, time.monotonic()
    if draft is not None:
        file = draft.path / RESUME / "sums.safetensors"
        file.parent.mkdir(exist_ok=True)
        if file.exists():
            sums.resume(file)
    for start in range(int(sums.state["done"]), n, batch_size):
        sums.add(slice(start, min(start + batch_size, n)))
        done = int(sums.state["done"])
        if file is not None and draft is not None and (done == n or time.monotonic() - saved > SAVE_SECONDS):
            sums.save(file)
            draft.update(step=done, steps=n)
            saved = time.monotonic()
        if progress is not None:
            progress(done, n, {})


def _by_group(sums: TextSums) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores, shuffled scores `[n_heads, column, group]` and other values `[n_heads, value, group]`."""
    k = len(sums.text.columns)
    values, queries = (sums.state[name].numpy() for name in ("values", "queries"))
    with np.errstate(invalid="ignore", divide="ignore"):
        kinds = [values[:, :, at : at + k] / queries[:, None, :k] for at in (0, k)]
        others = values[:, :, 2 * k :] / queries[:, None, k:]
    scores, shuffled, others = (np.moveaxis(part, 0, 2) for part in (*kinds, others))
    return scores, shuffled, others


def _scores(
    sums: TextSums, null: TextSums, outputs: HeadOutputs, received: Tensor
) -> tuple[list[HeadInText], list[HeadKindInText]]:
    """Return the statistics and the scores of all heads."""
    kinds, names = sums.text.kinds, outputs.heads
    score, shuffled, others = _by_group(sums)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a kind that has no target in the text
        mean = {name: np.nanmean(others[:, i], 1) for i, name in enumerate(VALUES)}
        excess = t_interval(score - shuffled, 1 - 2 * ALPHA / len(names))
        certain = t_interval(score, 1 - 2 * ALPHA / len(names))
        interval, control = t_interval(score).clip(0, 1), np.nanmean(shuffled, 2)
        bound = _untrained_bound(null)
    share = sums.state["on_kind"][1 : 1 + len(received)] / sums.state["counts"][1 : 1 + len(received), None]
    weights = torch.cat([torch.ones(len(share), 1), share], 1)
    copied, own_null = outputs.about_own_token(received[..., 0, None] * weights[:, None])
    following, following_null = outputs.about_next_word() if any(kind.writes == "succeeds" for kind in kinds.values()) \
        else (copied[:, 0], own_null[:, 0])  # fmt: skip
    heads = [
        HeadInText(
            layer=head.layer, head=head.head, entropy=float(mean["entropy"][i]), strongest=float(mean["strongest"][i]),
            distance=float(mean["distance"][i] / mean["outside"][i]) if mean["outside"][i] > 1e-6 else float("nan"),
            outside=float(mean["outside"][i]), copies=float(copied[i, 0]), copies_null=float(own_null[i, 0]),
        )
        for i, head in enumerate(names)
    ]  # fmt: skip
    rows = []
    for k, (name, kind) in enumerate(kinds.items()):
        ends = (following, following_null) if kind.writes == "succeeds" else (copied[:, k + 1], own_null[:, k + 1])
        other = sums.text.control_of.get(name)
        for i, head in enumerate(names):
            value, limit = (float(x[i]) if kind.writes else float("nan") for x in ends)
            attends = excess.low[i, k] >= SMALLEST_FOUND and excess.low[i, k] > bound[k]
            if kind.targets is any_key:  # there is nothing to shuffle
                attends = certain.low[i, k] >= SMALLEST_FOUND
            if other is not None:
                attends &= certain.low[i, k] - certain.high[i, other] >= SMALLEST_FOUND
            rows.append(HeadKindInText(
                layer=head.layer, head=head.head, kind=name, score=float(interval.estimate[i, k]),
                low=float(interval.low[i, k]), high=float(interval.high[i, k]), shuffled=float(control[i, k]),
                elsewhere=float("nan" if other is None else interval.estimate[i, other]),
                untrained=float(bound[k]), writes=value, writes_null=limit,
                found=bool(attends and _writes(kind, value, limit)),
            ))  # fmt: skip
    return heads, rows


LEAST_WRITTEN = 1.0
"""Least size of what a head writes about the attended token, in standard deviations over tokens."""


def _writes(kind: TextKind, value: float, limit: float) -> bool:
    """Return True where a head writes what its kind does."""
    limit = max(limit, LEAST_WRITTEN)
    return {"": True, "copies": value > limit, "succeeds": value > limit, "suppresses": value < -limit,
            "other": abs(value) <= limit}[kind.writes]  # fmt: skip


def _untrained_bound(null: TextSums) -> np.ndarray:
    """Return the bound by kind of the score above shuffled keys that one untrained head of all reaches."""
    score, shuffled, _ = _by_group(null)
    heads = np.nanmean(score - shuffled, 2)
    bound = heads.max(0)  # NaN where its text has no target: nothing is found then
    if len(heads) > 1:
        bound = np.fmax(bound, prediction_bound(heads.mean(0), heads.std(0, ddof=1), len(heads), n_tests=len(heads)))
    return bound


def _words(sums: TextSums, outputs: HeadOutputs, received: Tensor, lens: "JacobianLens | None") -> list[HeadWord]:
    """Return the words of all heads, by head and side."""
    text, state, n = sums.text, sums.state, len(received)
    texts = {"token": [text.text_of[token] for token in text.token_ids.tolist()], "word": text.words}
    rows = {"token": slice(1, 1 + n), "word": slice(1 + n, None)}
    lines: dict[HeadName, list[HeadWord]] = {head: [] for head in outputs.heads}
    tops: dict[tuple[HeadName, str], list[int]] = {}
    overall = state["items"].sum(0)[:, 2] / state["counts"].sum()
    for unit, part in rows.items():
        items, counts = state["items"][part], state["counts"][part]
        for side, value, chance in (
            ("key", items[..., 0], items[..., 1]),
            ("query", items[..., 2], counts[:, None] * overall),
        ):
            lift = value / chance.clamp_min(1e-9)
            strength = value * lift.clamp_min(1e-9).log()
            for i, head in enumerate(outputs.heads):
                order = strength[:, i].argsort(descending=True)[:N_WORDS].tolist()
                best = [at for at in order if lift[at, i] > 1]
                tops[head, f"{side} {unit}"] = best
                lines[head] += [
                    HeadWord(layer=head.layer, head=head.head, side=f"{side} {unit}", text=texts[unit][at],
                             value=float(lift[at, i]), count=int(counts[at]), tokens=[])
                    for at in best
                ]  # fmt: skip
    for line in outputs.written(received[..., 0], received[..., 1], lens):
        lines[HeadName(line.layer, line.head)].append(line)
    keys = [(head, at) for head in outputs.heads for at in tops[head, "key token"][:5]]
    queries = [(head, at) for head in outputs.heads for at in tops[head, "query token"][:4]]
    for line in outputs.circuits(keys, queries):
        lines[HeadName(line.layer, line.head)].append(line)
    return [line for head in outputs.heads for line in lines[head]]


def _examples(sums: TextSums) -> list[tuple[HeadExample, np.ndarray]]:
    """Return the examples of all heads with their attention, strongest first."""
    examples = []
    for i in range(sums.n_layers * sums.n_heads):
        layer, head = divmod(i, sums.n_heads)
        for rank, strength in enumerate(sums.state["strength"][i].tolist()):
            if strength <= 0:
                continue
            context, document, query, key = sums.state["where"][i, rank].tolist()
            example = HeadExample(
                layer=layer, head=head, rank=rank, context=context, document=document, query=query, key=key,
                strength=strength,
            )  # fmt: skip
            examples.append((example, sums.state["attention"][i, rank].numpy()))
    return examples
