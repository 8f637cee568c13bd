"""Texts of the experiments, as tokens of a model: the same for every model that reads text."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.models.adapter import bos_token_id, ordinary_tokens, to_tokens
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.seeds import make_generator
from interp.text.passages import PASSAGES

PROMPTS = (
    "The capital of France is",
    "When Mary and John went to the store, John gave a drink to",
    "def add(a, b):\n    return a +",
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven,",
)

LENGTH = 48
LONG = 200
"""Tokens of one long prompt, where the context allows it: errors of positions grow with them."""


@dataclass(frozen=True)
class ExperimentTokens:
    """Tokens of the experiments, all on the model's device."""

    rows: tuple[Tensor, ...]
    """Prompts `[1, pos]` of different lengths; the last one is long."""
    texts: Tensor | None
    """Prose `[n, pos]`, BOS first where the model has one; None for a model without a tokenizer."""


def prompts_of(model: HookedModel, seed: int = 0, *, few: bool = False) -> ExperimentTokens:
    """Return the prompts as the workbench reads them; for a model without a tokenizer, random tokens.

    `few`: two short ones and the first half of the long one.
    """
    prompts = _prompts(model, seed)
    return replace(prompts, rows=(*prompts.rows[:2], prompts.rows[-1][:, : LONG // 2])) if few else prompts


def _prompts(model: HookedModel, seed: int) -> ExperimentTokens:
    longest = min(LONG, model.cfg.n_ctx - 8)
    if tokenizer_of(model, required=False) is None:
        ids, generator = ordinary_tokens(model), make_generator(seed, "prompts of the doctor")
        lengths = [min(n, longest) for n in (4, 6, 7, 9, longest)]
        drawn = [ids[torch.randint(len(ids), (1, n), generator=generator)] for n in lengths]
        return ExperimentTokens(tuple(row.to(model.cfg.device) for row in drawn), None)
    bos = [] if (first := bos_token_id(model)) is None else [first]
    ids = tokenizer_of(model).encode_batch([" ".join(PASSAGES)])[0]
    size = min(LENGTH, longest) - len(bos)
    blocks = [bos + ids[start : start + size] for start in range(0, len(ids) - size + 1, size)]
    long = torch.tensor([bos + ids[: longest - len(bos)]], device=model.cfg.device)
    rows = [to_tokens(model, text)[:, :longest] for text in PROMPTS]
    return ExperimentTokens((*rows, long), torch.tensor(blocks[:24], device=model.cfg.device))
