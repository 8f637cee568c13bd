"""Checks that the model here is the one that its authors published, in whatever way it is run."""

import math

import torch
from torch import Tensor

from interp.doctor.trials import Outcome, Setup, Skip, gap, trial, worst
from interp.models.adapter import bos_token_id, ordinary_tokens, to_tokens
from interp.models.generation import NextToken, Offset, generate, prompt_tokens
from interp.models.identity import tokenizer_of
from interp.seeds import make_generator

N_NEW = 6
"""Tokens that are generated."""
NATS = 0.25
"""Difference of losses that counts."""


@trial(
    "model", "logits alone", cheap=True,
    did="Ran prompts one at a time, here and in transformers alone (its own files, no hooks, float32 on the CPU).",
    expected="the same logits but for rounding",
    means="The numbers read here are not those of the published model: another attention scale, rotary base, soft cap "
    "or norm, weights that were edited or badly converted, or a hook that was left attached.",
)  # fmt: skip
def logits_alone(setup: Setup) -> Outcome:
    return setup.alike(worst(gap(setup.clean(row), setup.expected(row)) for row in setup.prompts.rows))


@trial(
    "model", "ranks", cheap=True,
    did="Compared the most likely next token at every position of the same prompts, and the distributions.",
    expected="the same token at 99 % of the positions (90 % in 16 bits), a mean KL below 0.001 nats (0.05 in 16 bits)",
    means="The precision or the device changes what the model says, not only the last digits.",
)  # fmt: skip
def ranks(setup: Setup) -> Outcome:
    full = setup.model.cfg.dtype == torch.float32
    both = [(setup.clean(row)[0], setup.expected(row)[0]) for row in setup.prompts.rows]
    pairs = [(ours.log_softmax(-1), theirs.log_softmax(-1)) for ours, theirs in both]
    same = torch.cat([(ours.argmax(-1) == theirs.argmax(-1)).float() for ours, theirs in pairs]).mean()
    kl = torch.cat([(theirs.exp() * (theirs - ours)).sum(-1) for ours, theirs in pairs]).mean()
    passed = float(same) >= (0.99 if full else 0.9) and float(kl) <= (1e-3 if full else 0.05)
    return passed, f"the same token at {float(same):.1%} of the positions, KL {float(kl):.2g} nats"


@trial(
    "model", "finite", cheap=True,
    did="Ran the longest prompt and looked for values that are not finite.",
    expected="no NaN or infinity",
    means="A value overflows, as one large coordinate does in float16: everything after it is void.",
)  # fmt: skip
def finite(setup: Setup) -> Outcome:
    n = int((~setup.clean(setup.prompts.rows[-1]).isfinite()).sum())
    return n == 0, f"{n or 'no'} values of NaN or infinity"


def _padded(setup: Setup, right: bool) -> float:
    """Return the largest gap between prompts in one padded batch and alone."""
    rows = setup.prompts.rows[:-1]
    longest, filler = max(row.shape[1] for row in rows), int(ordinary_tokens(setup.model)[0])
    tokens = torch.full((len(rows), longest), filler, device=rows[0].device)
    mask = torch.zeros(len(rows), longest, dtype=torch.long, device=rows[0].device)
    places = [slice(0, row.shape[1]) if right else slice(longest - row.shape[1], longest) for row in rows]
    for at, (row, place) in enumerate(zip(rows, places, strict=True)):
        tokens[at, place], mask[at, place] = row[0], 1
    logits = setup.logits(tokens, attention_mask=mask)
    pairs = zip(rows, places, strict=True)
    return worst(gap(logits[at, place], setup.clean(row)[0]) for at, (row, place) in enumerate(pairs))


@trial(
    "model", "padded right", cheap=True,
    did="Ran prompts of different lengths in one batch, padded at the end, and each alone.",
    expected="the same logits at the prompts' own positions",
    means="Padding leaks into the text: numbers of batches differ from those of single prompts.",
)  # fmt: skip
def padded_right(setup: Setup) -> Outcome:
    return setup.alike(_padded(setup, right=True))


@trial(
    "model", "padded left", cheap=True,
    did="Ran the same prompts padded at the start, with an attention mask, and each alone.",
    expected="the same logits at the prompts' own positions",
    means="Positions count the padding, or attention sees it: short prompts of a batch are computed as if shifted.",
)  # fmt: skip
def padded_left(setup: Setup) -> Outcome:
    return setup.alike(_padded(setup, right=False))


@trial(
    "model", "batch",
    did="Ran prompts cut to one length in one batch, and each alone.",
    expected="the same logits",
    means="Rows of a batch influence each other.",
)  # fmt: skip
def batch(setup: Setup) -> Outcome:
    rows = setup.prompts.rows[:-1]
    length = min(row.shape[1] for row in rows)
    cut = torch.cat([row[:, :length] for row in rows])
    together = setup.logits(cut)
    difference = worst(gap(together[at], setup.logits(row[:, :length])[0]) for at, row in enumerate(rows))
    return setup.alike(difference)


@trial(
    "model", "later tokens",
    did="Changed the last third of a prompt and compared the logits before it.",
    expected="no difference",
    means="A position sees tokens after it: the causal mask is missing or shifted.",
)  # fmt: skip
def later_tokens(setup: Setup) -> Outcome:
    row = setup.prompts.rows[-1][:, :48]
    start = row.shape[1] * 2 // 3
    changed = row.clone()
    changed[:, start:] = row[:, start:].roll(1, 1)
    changed[:, -1] = row[0, 0]
    return setup.alike(gap(setup.logits(changed)[:, :start], setup.clean(row)[:, :start]))


def _stepwise(setup: Setup, row: Tensor) -> Tensor:
    """Return the logits `[pos - 2, d_vocab]` of a prompt fed token by token through the key-value cache."""
    step = NextToken(setup.model, offset=Offset())
    return torch.cat([step(row[:, :n]).cpu() for n in range(3, row.shape[1] + 1)])


@trial(
    "model", "cache",
    did="Fed a prompt token by token, with keys and values of earlier tokens cached, and as a whole.",
    expected="the same logits",
    means="Generated text depends on the cache: it ignores the prompt, or counts positions wrongly.",
)  # fmt: skip
def cache(setup: Setup) -> Outcome:
    row = setup.prompts.rows[1]
    return setup.alike(gap(_stepwise(setup, row), setup.clean(row)[0, 2:]))


@trial(
    "model", "generated",
    did=f"Let the model write {N_NEW} tokens after two prompts, here and by transformers' own generation.",
    expected="the same tokens (any of two tokens that are equally likely)",
    means="Generation here is not the model's: cache, positions or the choice of tokens differ.",
)  # fmt: skip
def generated(setup: Setup) -> Outcome:
    reference, differ = setup.held_against(), []
    for row in setup.prompts.rows[:2]:
        ours = [int(token) for token in generate(NextToken(setup.model, offset=Offset()), row, N_NEW)]
        theirs = reference.continued(row, N_NEW)
        at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b), None)
        if at is not None:
            tokens = torch.cat([row.cpu(), torch.tensor([theirs[:at]], dtype=torch.long)], 1)
            logits = reference.logits(tokens)[0, -1]
            tied = float(logits[theirs[at]] - logits[ours[at]]) < setup.same * float(logits.std())
            differ += [] if tied else [f"token {at + 1} after {row.shape[1]}"]
    return not differ, ", ".join(differ) or f"the same {2 * N_NEW} tokens"


@trial(
    "model", "repeated", cheap=True,
    did="Ran the first prompt again, after all of the above.",
    expected="the same logits as in the first run",
    means="A pass changes the model: a hook or a flag stays behind, dropout is on, or a cache is reused.",
)  # fmt: skip
def repeated(setup: Setup) -> Outcome:
    row = setup.prompts.rows[0]
    difference = gap(setup.logits(row), setup.clean(row))
    return difference < setup.same / 10, f"differences up to {difference:.2g} of the spread of the logits"


@trial(
    "model", "tokens", cheap=True,
    did="Turned prompts and passages into tokens, here and with the tokenizer as its author publishes it.",
    expected="the same tokens, after at most one BOS at the start",
    means="The tokenizer is of another revision, adds or drops BOS, or strips spaces: the model reads another text.",
)  # fmt: skip
def tokens(setup: Setup) -> Outcome:
    from interp.doctor._prompts import PROMPTS
    from interp.text.passages import PASSAGES

    theirs = setup.held_against().tokenizer
    if theirs is None:
        raise Skip("the model has no tokenizer")
    first, wrong = theirs.bos_token_id, []
    for text in (*PROMPTS, *(passage[:120] for passage in PASSAGES)):
        ours, published = to_tokens(setup.model, text)[0].tolist(), theirs(text)["input_ids"]
        starts = _starts(ours, first)
        if ours[starts:] != published[_starts(published, first) :]:
            wrong.append(f"other tokens of {text[:20]!r}")
        elif starts != int(first is not None):
            wrong.append(f"{starts} times BOS before {text[:20]!r}")
    return not wrong, "; ".join(wrong[:2]) or "the same, " + ("BOS once" if first is not None else "no BOS")


def _starts(ids: list[int], first: int | None) -> int:
    """Return how many copies of `first` are at the start."""
    return next((at for at, token in enumerate(ids) if token != first), len(ids))


@trial(
    "model", "BOS",
    did="Measured the loss on prose with BOS as the workbench puts it, without it, and with it twice.",
    expected=f"the workbench's way at most {NATS} nats worse than any other",
    means="BOS is dropped, doubled or another token than in training: all that attends to the first token changes.",
)  # fmt: skip
def bos(setup: Setup) -> Outcome:
    texts, first = setup.prompts.texts, bos_token_id(setup.model)
    if texts is None or first is None:
        raise Skip("the model has no BOS token")
    text = texts[:6]
    rest = text[:, 1:] if bool((text[:, 0] == first).all()) else text
    column = torch.full_like(rest[:, :1], first)
    ways = {"as here": text, "without": rest, "once": torch.cat([column, rest], 1)}
    ways["twice"] = torch.cat([column, column, rest], 1)[:, : setup.model.cfg.n_ctx]
    n = rest.shape[1] - 2  # targets that every way has: all but the first two of the text
    loss = {way: float(setup.losses(tokens)[:, -n:].mean()) for way, tokens in ways.items()}
    summary = ", ".join(f"{way} {value:.2f}" for way, value in loss.items())
    return loss["as here"] <= min(loss.values()) + NATS, f"{summary} nats"


@trial(
    "model", "text",
    did="Measured the loss on prose and on the same tokens in random order.",
    expected="a lower loss on the prose",
    means="The model does not read text: tokenizer and weights do not belong together.",
)  # fmt: skip
def text(setup: Setup) -> Outcome:
    texts = setup.prompts.texts
    if texts is None:
        raise Skip("the model has no tokenizer")
    rows = texts[:6]
    order = torch.randperm(rows.shape[1] - 1, generator=make_generator(setup.seed, "doctor", "order")) + 1
    mixed = torch.cat([rows[:, :1], rows[:, order.to(rows.device)]], 1)
    loss, shuffled = (float(setup.losses(tokens).mean()) for tokens in (rows, mixed))
    uniform = math.log(setup.model.cfg.d_vocab)
    if min(loss, shuffled) > uniform - NATS:  # a model that was never trained is no mistake
        raise Skip(f"it predicts no text better than a uniform guess ({loss:.2f} of {uniform:.2f} nats): untrained")
    return loss < shuffled - NATS, f"{loss:.2f} nats, {shuffled:.2f} in random order ({uniform:.2f}: a uniform guess)"


@trial(
    "model", "chat template", cheap=True,
    did="Turned a message into tokens, here and with the author's chat template.",
    expected="the same tokens",
    means="A chat model is asked in a form that it was not trained on.",
)  # fmt: skip
def chat_template(setup: Setup) -> Outcome:
    if not getattr(tokenizer_of(setup.model, required=False), "tokenizer", None):
        raise Skip("the model has no tokenizer of transformers")
    theirs = setup.held_against().tokenizer
    if not getattr(theirs, "chat_template", None):
        raise Skip("the model has no chat template")
    message = [{"role": "user", "content": "What is the capital of France?"}]
    published = theirs.apply_chat_template(message, add_generation_prompt=True, tokenize=True, return_dict=True)
    ours = prompt_tokens(setup.model, message[0]["content"], chat=True)[0].tolist()
    return ours == list(published["input_ids"]), f"{len(ours)} tokens, {len(published['input_ids'])} by the author's"
