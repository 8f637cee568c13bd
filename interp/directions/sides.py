"""Activations of the two sides of a direction, at several layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from interp.directions.examples import ContrastPair, ContrastPairs
from interp.errors import ConfigError, PromptError
from interp.geometry.words import SENTENCES, WordList, read_words
from interp.models.hooked import HookedModel
from interp.names import check_hook_points

TEXT_TOKENS = 64
"""Tokens that are read of a text."""
EACH = 4
"""Fewest words on either side of a direction: half are held out."""


@dataclass(frozen=True)
class Sides:
    """One row per text or word, those of the positive side first."""

    points: dict[str, Float64[np.ndarray, "n d"]]
    """hook point -> activations"""
    yes: Bool[np.ndarray, " n"]
    """the row belongs to the positive side"""
    heldout: Bool[np.ndarray, " n"]
    """the row makes no direction and judges it"""
    paired: bool
    """row i and row i + n / 2 are the two sides of one example"""


def words_as_sides(
    model: HookedModel,
    towards: Sequence[str],
    away: Sequence[str],
    hook_points: Sequence[str],
    *,
    sentences: Sequence[str] = SENTENCES,
) -> Sides:
    """Read two lists of words in fixed sentences, the mean over them; every second word is held out.

    Raises `ConfigError` on fewer than four words on a side or a word on both, otherwise as `read_words` does.
    """
    sides = [
        WordList(name=side, words=tuple(words), cyclic=False) for side, words in (("towards", towards), ("away", away))
    ]
    for side in sides:
        if len(side.words) < EACH:
            raise ConfigError(
                f"{side.name} has {len(side.words)} words; a direction needs {EACH} of each side: give more"
            )
    if both := set(towards) & set(away):
        raise ConfigError(f"a word cannot lie on both sides, {', '.join(sorted(both))} does; leave it out of one")
    read = [read_words(model, side, sentences=sentences, hook_points=list(hook_points)) for side in sides]
    counts = [len(side.words) for side in sides]
    return Sides(
        points={name: np.concatenate([words.points(name) for words in read]) for name in read[0].hook_points},
        yes=np.repeat([True, False], counts),
        heldout=np.concatenate([np.arange(n) % 2 == 1 for n in counts]),
        paired=False,
    )


def read_sides(
    model: HookedModel, examples: ContrastPairs, hook_points: Sequence[str], *, batch_size: int = 16
) -> Sides:
    """Run both sides of every example: the mean over a reply's or text's tokens, or a prompt's last token.

    Raises `UnknownNameError` for a hook point that the model does not have, `PromptError` for a text that is too long.
    """
    from interp.models.adapter import available_hook_points

    encoded = [encode_sides(model, pair, examples) for pair in examples.pairs]
    spans = [(pair[side], start) for side in (0, 1) for *pair, start in encoded]
    if examples.kind == "prompts":
        spans = [(ids, len(ids) - 1) for ids, _ in spans]
    names = check_hook_points(list(hook_points), available_hook_points(model), model.cfg.n_layers)
    points = span_means(model, spans, names, batch_size=batch_size)
    n = len(encoded)
    return Sides(
        points=points,
        yes=np.repeat([True, False], n),
        heldout=np.tile(np.arange(n) % 2 == 1, 2),
        paired=True,
    )


def span_means(
    model: HookedModel,
    spans: Sequence[tuple[list[int], int]],
    hook_points: Sequence[str],
    *,
    batch_size: int = 16,
) -> dict[str, Float64[np.ndarray, "n d"]]:
    """Return the mean of activations over each text from a position on, `[n, d]` by hook point.

    `spans` are the token ids of a text and the first position that is read. Texts are padded at their end, where
    nothing that is read attends.
    """
    import torch

    from interp.models.passes import Capture

    rows: dict[str, list[np.ndarray]] = {point: [np.empty(0)] * len(spans) for point in hook_points}
    order = sorted(range(len(spans)), key=lambda i: len(spans[i][0]))
    with Capture(model, hook_points) as capture, torch.no_grad():
        for at in range(0, len(order), batch_size):
            group = order[at : at + batch_size]
            tokens = torch.tensor(padded([spans[i][0] for i in group]), device=model.cfg.device)
            values = {point: value.flatten(2) for point, value in capture(tokens).items()}
            for point in hook_points:
                for row, i in zip(values[point], group, strict=True):
                    ids, start = spans[i]
                    rows[point][i] = row[start : len(ids)].cpu().double().numpy().mean(0)
    return {point: np.stack(values) for point, values in rows.items()}


def encode_sides(
    model: HookedModel, example: ContrastPair, examples: ContrastPairs
) -> tuple[list[int], list[int], int]:
    """Return the token ids of both sides, and the first position at which they differ.

    Raises `PromptError` for a text beyond the context, or two texts of the same tokens.
    """
    from interp.models.generation import prompt_tokens

    def ids(text: str) -> list[int]:
        if examples.kind == "prompts":
            return prompt_tokens(model, text, chat=examples.chat)[0].tolist()
        if examples.chat:
            start = prompt_tokens(model, example.prompt, chat=True)[0].tolist()
            return [*start, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]
        return prompt_tokens(model, example.prompt + text)[0].tolist()

    yes, no = ids(example.towards), ids(example.away)
    if examples.kind == "texts":
        yes, no = yes[:TEXT_TOKENS], no[:TEXT_TOKENS]
    start = next((i for i, (a, b) in enumerate(zip(yes, no, strict=False)) if a != b), min(len(yes), len(no)))
    if start >= min(len(yes), len(no)):
        raise PromptError(
            f"{example.towards[:40]!r} and {example.away[:40]!r} have the same tokens up to the end of one of them; "
            "let them differ before that"
        )
    longest = max(len(yes), len(no))
    if longest > model.cfg.n_ctx:
        raise PromptError(f"{example.prompt[:40]!r} has {longest} tokens, the context holds {model.cfg.n_ctx}")
    return yes, no, start


def padded(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return rows of one length, with token 0 at their end."""
    longest = max(map(len, rows))
    return [[*row, *[0] * (longest - len(row))] for row in rows]
