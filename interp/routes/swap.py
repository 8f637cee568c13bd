"""One route with the values of another prompt: what it carries, by the answer that follows.

At the destination alone `z += A(dest, source) (v' - v)`: the attention A of the running pass stays, the value vectors
of the source come from the other prompt, and everything after is recomputed. Path patching restricted to values
(Goldowsky-Dill et al. 2023, arXiv 2304.05969). The null puts unrelated values of equal norm into the same edge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.tasks import encoder_with_bos
from interp.errors import PromptError, UnknownNameError
from interp.models.adapter import token_strings, token_text
from interp.models.hooked import Hook
from interp.routes.cut import CleanRun, clean_run, likeliest, run_rows
from interp.routes.routes import Swap, SwapEffect
from interp.seeds import make_generator

Values = dict[int, Float[Tensor, "pos heads d_head"]]
"""Value vectors by layer."""


@dataclass(frozen=True)
class SwapRow:
    """A word whose values some destinations read from elsewhere."""

    source: int
    destinations: tuple[int, ...]
    values: Values
    """of the last positions of the source: as many as both words have"""


def swap_pairs(run: CleanRun, swaps: Sequence[str]) -> list[tuple[int, str]]:
    """Return the number of a word and the word instead of it, for each `WORD=OTHER`; of a repeated word the last.

    Raises `PromptError` for another form, `UnknownNameError` for a word that is not in the prompt.
    """
    pairs = []
    for swap in swaps:
        word, _, instead = swap.partition("=")
        if not word.strip() or not instead.strip():
            raise PromptError(f"a swap is WORD=OTHER, such as France=Italy; got {swap!r}")
        numbers = [number for number, text in enumerate(run.texts) if text == word.strip()]
        if not numbers:
            raise UnknownNameError("word of the prompt", word.strip(), list(run.texts))
        pairs.append((numbers[-1], instead.strip()))
    return pairs


def with_word(run: CleanRun, source: int, instead: str) -> tuple[CleanRun, range, str]:
    """Return a run of the prompt with another word instead of one, the positions of that word, and the prompt.

    The spaces before the word stay. Raises `PromptError` for the last word, from which no edge leads, and for the sink.
    """
    span, model = run.words[source], run.model
    if source == len(run.words) - 1 or span.start == 0:
        where = "last word, and no later word can read it" if span.start else "first token, which every word attends to"
        raise PromptError(f"{run.texts[source]!r} is the {where}; swap another word")
    texts = token_strings(model, run.tokens[0])
    old = "".join(texts[position] for position in span)
    new = old[: len(old) - len(old.lstrip())] + instead
    ids = torch.tensor([encoder_with_bos(model)(new, bos=False)], device=run.tokens.device)
    tokens = torch.cat([run.tokens[:, : span.start], ids, run.tokens[:, span.stop :]], 1)
    others = [*texts[run.words[0].start : span.start], new, *texts[span.stop :]]
    return clean_run(model, tokens), range(span.start, span.start + ids.shape[1]), "".join(others)


def values_of(run: CleanRun, positions: range) -> Values:
    """Return the value vectors of some positions."""
    layers = range(run.n_layers)
    return {layer: run.values[f"blocks.{layer}.attn.hook_v"][0, positions.start : positions.stop] for layer in layers}


@torch.no_grad()
def swapped(run: CleanRun, rows: Sequence[SwapRow]) -> Float[Tensor, "rows vocab"]:
    """Return the log-probabilities after the last position with the values of each row swapped."""
    group = run.model.cfg.n_heads // (run.model.cfg.n_key_value_heads or run.model.cfg.n_heads)
    state: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def hook(value: Tensor, hook: object) -> None:
            state[name] = value

        return hook

    def changing(layer: int) -> Hook:
        def hook(value: Tensor, hook: object) -> Tensor:
            value, flat = value.clone(), value.ndim == 3
            z = value.unflatten(-1, (run.model.cfg.n_heads, -1)) if flat else value
            for at, row in enumerate(rows):
                other = row.values[layer].to(z)
                source = run.words[row.source]
                kept = range(source.stop - len(other), source.stop)
                added = other - state["v"][at, kept.start : kept.stop]
                added = added.repeat_interleave(group, 1)
                for destination in row.destinations:
                    span = run.words[destination]
                    weights = state["pattern"][at, :, span.start : span.stop, kept.start : kept.stop]
                    z[at, span.start : span.stop] += torch.einsum("hqk,khd->qhd", weights.to(z), added)
            return value

        return hook

    hooks: list[tuple[str, Hook]] = []
    for layer in range(run.n_layers):
        points = {"v": "hook_v", "pattern": "hook_pattern"}
        hooks += [(f"blocks.{layer}.attn.{point}", keep(name)) for name, point in points.items()]
        hooks.append((f"blocks.{layer}.attn.hook_z", changing(layer)))
    return run_rows(run, len(rows), hooks)


def equal_norm(values: Values, others: Sequence[CleanRun], number: int) -> Values:
    """Return values of one position of an unrelated text, in each layer as long as those they stand for."""
    draw = make_generator(number, "unrelated values")
    text = others[number % len(others)]
    n = text.tokens.shape[1]
    at = torch.randint(1, n, (len(next(iter(values.values()))),), generator=draw)
    scaled: Values = {}
    for layer, wanted in values.items():
        drawn = text.values[f"blocks.{layer}.attn.hook_v"][0, at]
        length = drawn.flatten(1).norm(dim=1).clamp(min=1e-12)
        scaled[layer] = drawn * (wanted.flatten(1).norm(dim=1) / length)[:, None, None]
    return scaled


@torch.no_grad()
def swap_routes(
    run: CleanRun, source: int, instead: str, destinations: Sequence[int], unrelated: Sequence[CleanRun], draws: int
) -> list[Swap]:
    """Return what the values of the word `instead` do on each edge from `source` to `destinations`, the largest first.

    `unrelated` are texts from which the null draws values.
    Raises `PromptError` where both prompts have the same likeliest next token, or no edge leads out of the word.
    """
    swapped_run, theirs, prompt = with_word(run, source, instead)
    counterpart = int(swapped_run.log_probs.argmax())
    if counterpart == run.answer:
        raise PromptError(
            f"with {instead!r} the model says {token_text(run.model, counterpart)!r} too; choose a word that changes it"
        )
    size = min(len(theirs), len(run.words[source]))
    values = values_of(swapped_run, range(theirs.stop - size, theirs.stop))
    nulls = [equal_norm(values, unrelated, number) for number in range(draws)]
    later = tuple(range(source + 1, len(run.words)))
    whole = _moved(run, swapped(run, [SwapRow(source, later, values)])[0], counterpart)
    swaps = []
    for destination in destinations:
        rest = tuple(word for word in later if word != destination)
        rows = [SwapRow(source, (destination,), v) for v in (values, *nulls)]
        changed = swapped(run, [*rows, *([SwapRow(source, rest, values)] if rest else [])])
        movements = [_moved(run, row, counterpart) for row in changed]
        swaps.append(
            Swap(
                source=source, destination=destination, word=run.texts[source], instead=instead, prompt=prompt,
                answer=token_text(run.model, run.answer), counterpart=token_text(run.model, counterpart),
                before=_effect(run, run.log_probs, counterpart), after=_effect(run, changed[0], counterpart),
                says=likeliest(run.model, changed[0]), whole=whole, others=movements[-1] if rest else None,
                null=tuple(movements[1 : 1 + draws]), aligned=len(theirs) != len(run.words[source]),
            )
        )  # fmt: skip
    return sorted(swaps, key=lambda swap: -swap.after.moved)


def _moved(run: CleanRun, changed: Tensor, counterpart: int) -> float:
    """Return the rise of the log-probability of the counterpart's answer."""
    return float(changed[counterpart] - run.log_probs[counterpart])


def _effect(run: CleanRun, changed: Tensor, counterpart: int) -> SwapEffect:
    return SwapEffect(
        answer=float(changed[run.answer].exp()), counterpart=float(changed[counterpart].exp()),
        moved=_moved(run, changed, counterpart),
    )  # fmt: skip
