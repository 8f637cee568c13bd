"""Texts of the experiments, as tokens of a model: the same for every model that reads text."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.models.adapter import bos_token_id, ordinary_tokens, to_tokens
from interp.models.hooked import HookedModel
from interp.models.identity import tokenizer_of
from interp.seeds import make_generator

PROMPTS = (
    "The capital of France is",
    "When Mary and John went to the store, John gave a drink to",
    "def add(a, b):\n    return a +",
    "One, two, three, four, five, six, seven, eight, nine, ten, eleven,",
)

PASSAGES = (
    "The river rises in the hills north of the town and flows for about forty miles before it reaches the sea. In "
    "spring the meadows along its banks are flooded, and the farmers drive their cattle to higher ground. A mill stood "
    "at the bridge until the last century, when the railway came and flour was brought from the city.",
    "Water boils at a lower temperature on a mountain because the pressure of the air is lower there. The same is true "
    "of every liquid: its molecules leave the surface when their pressure equals that of the air above it. In a closed "
    "pot the pressure rises, the water becomes hotter, and the food is done sooner.",
    "She had not expected him to come back so soon. He put his bag on the chair by the door, looked at the letters on "
    "the table and asked whether anyone had called. Nobody had, she said, except the doctor, who wanted to know if the "
    "boy was better. He was, but he still slept most of the day.",
    "To install the package, open a terminal and run the command below. It creates a new folder with a file of "
    "settings, which you can change with any editor. If the server does not start, look at the last lines of the log: "
    "most errors are caused by a port that another program uses. Stop that program, or choose another port.",
    "The court held that the contract was void, since one of the parties had been misled about the value of the land. "
    "The seller appealed. In its judgment of March 1987 the higher court agreed with him in part: the price had been "
    "too high, but the buyer had known of the flood in the previous year and had signed nevertheless.",
    "In the second half the home team played better. After a long pass from the left the captain scored with his head, "
    "and five minutes later the new striker hit the post. The visitors, who had won all their games this season, lost "
    "the ball again and again. The coach said that his players were tired after the match on Wednesday.",
    "A square has four equal sides and four right angles. If the length of a side is doubled, the area becomes four "
    "times as large, and the volume of a cube becomes eight times as large. This is why a large animal needs thicker "
    "legs than a small one of the same shape: its weight grows faster than the area of its bones.",
    "The history of printing in Europe begins in the fifteenth century, but paper and wooden blocks had been used in "
    "China long before. Books became cheaper, more people learned to read, and ideas spread from one country to the "
    "next within months. Within fifty years there were presses in more than two hundred towns.",
)
"""Plain prose on eight subjects, written for this purpose: no model has been trained on it."""
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
