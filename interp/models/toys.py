"""Small models by recipe, with a known mechanism: toys that are trained, and transformers with analytic weights.

**Trained toys**, the same in many training runs:

    toy:induction-2l    learns to copy the token that followed before, by a previous-token head and induction heads
    toy:induction-1l    one layer on the same data: cannot learn it (the loss stays at 3.0 nats)
    toy:fixed-period-1l a one-layer control whose rows all repeat with period 16: it copies perfectly, by position and
                        not by content, which misleads a detector that reads behaviour or tests a single lag

The data of the first two are random tokens that repeat with a period drawn per row.
`load_model("toy:induction-2l")` trains one (about a minute) and stores it in the cache.

**Planted transformers** are exact known answers for analyses. The planted induction transformer has two layers of one
head, no norms, no biases. Its residual stream is four subspaces:

    tok    the token, one-hot                       d_vocab
    prev   the token before, one-hot                d_vocab   written by L0H0
    out    what to predict, one-hot                 d_vocab   written by L1H0, read by the unembedding
    pos    the position, one-hot                    n_ctx

`L0H0` attends one position back (query pos i, key pos i - 1) and copies tok to prev; `L1H0` attends to a prev that
equals its own tok and copies that key's tok to out. So the edges are the following, and all others are exactly zero:

    embed -q,k,v-> L0H0,  L0H0 -k-> L1H0,  embed -q-> L1H0,  embed -v-> L1H0,  L1H0 -> logits

Position 0 has nothing before it and attends to itself: its prev is its own token. So without a BOS the first repeated
token has two keys that match, and its attention is split evenly between them: the mean over the second half of 32
tokens that repeat 16 is 31/32. Start the prompt with a token used nowhere else and it is 1.

The planted control, `planted_copying`, behaves the same and has no induction head: `L1H0` attends one position
*later*, to a key whose token *two* before matches, and reads there the token before (V-composition). A detector that
infers induction heads from behaviour is wrong about it.

`planted_post_norm` is the planted induction transformer as a Gemma 2. It has RMS norms before and after attention,
soft caps on scores and logits, rotary positions, a sliding window of 4 in layer 0, and MLPs of zeros. Two query heads
share a key-value head. `L0H1` and `L1H1` attend uniformly and write to a subspace that nothing reads, so each post-norm
takes a head that matters together with one that does not. The circuit is the same, and attention exact to 1e-5.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from interp.errors import ConfigError, UnknownNameError
from interp.models.hooked import HookedModel, wrap_in_memory
from interp.models.small import SmallConfig, build_small, is_small_folder, load_small, save_small
from interp.models.training import TrainingConfig, TrainingStep, train_small
from interp.threads import one_thread

TOY_PREFIX = "toy:"


@dataclass(frozen=True, kw_only=True)
class Toy:
    """A recipe: the model, its data, and how it is trained."""

    model: SmallConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    min_period: int
    max_period: int
    """each row repeats with a period drawn evenly from these"""

    def batches(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw `[n, n_ctx]` tokens, each row random and repeating with its own period."""
        return repeating_rows(n, self.model.n_ctx, self.model.d_vocab, self.min_period, self.max_period, generator)


_POSITIVE = SmallConfig(n_layers=2, d_model=64, n_heads=4, d_vocab=64, n_ctx=64)
TOYS = {
    "induction-2l": Toy(model=_POSITIVE, min_period=8, max_period=32),
    "induction-1l": Toy(model=replace(_POSITIVE, n_layers=1), min_period=8, max_period=32),
    "fixed-period-1l": Toy(
        model=replace(_POSITIVE, n_layers=1, n_ctx=32),
        training=TrainingConfig(lr=3e-3, steps=600),
        min_period=16,
        max_period=16,
    ),
}


def find_toy(spec: str) -> Toy:
    """Return the recipe of a spec such as `"toy:induction-2l"`. Raises `UnknownNameError` with the nearest names."""
    name = spec.removeprefix(TOY_PREFIX)
    if name not in TOYS:
        raise UnknownNameError("toy", spec, [TOY_PREFIX + toy for toy in TOYS])
    return TOYS[name]


def train_toy(
    spec: "str | Toy", *, seed: int = 0, progress: Callable[[TrainingStep, int], None] | None = None
) -> HookedModel:
    """Train a toy, and return it in evaluation mode. `seed` determines both the weights and the data."""
    toy = find_toy(spec) if isinstance(spec, str) else spec
    model = build_small(toy.model, seed=seed, device="cpu", dtype=torch.float32)
    training = replace(toy.training, seed=seed)
    with one_thread():
        for step in train_small(model, toy.batches, training):
            if progress is not None:
                progress(step, training.steps)
    return model


def cached_toy(spec: str, folder: Path, *, seed: int, device: str, dtype: torch.dtype) -> HookedModel:
    """Return the toy of a spec, trained first when `folder` has none by this recipe and seed."""
    toy = find_toy(spec)
    recipe = hashlib.sha256(repr(toy).encode()).hexdigest()[:12]
    path = folder / f"{spec.removeprefix(TOY_PREFIX)}-seed{seed}-{recipe}"
    if not is_small_folder(path):
        save_small(train_toy(toy, seed=seed), toy.model, path)
    return load_small(path, device=device, dtype=dtype)


def repeating_rows(
    n: int, length: int, d_vocab: int, min_period: int, max_period: int, generator: torch.Generator
) -> Tensor:
    """Draw `[n, length]` random tokens; row i repeats with a period drawn uniformly from `min_period .. max_period`."""
    tokens = torch.randint(d_vocab, (n, max_period), generator=generator)
    periods = torch.randint(min_period, max_period + 1, (n, 1), generator=generator)
    return tokens.gather(1, torch.arange(length)[None] % periods)


PLANTED_PREFIX = "planted:"
PLANTED_SPEC = PLANTED_PREFIX + "induction"
PLANTED_NAMES = (PLANTED_SPEC, PLANTED_PREFIX + "copying", PLANTED_PREFIX + "post-norm")


def planted_induction(
    *,
    d_vocab: int = 16,
    n_ctx: int = 32,
    sharpness: float = 100.0,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> HookedModel:
    """Build the planted induction transformer, `d_model = 3 * d_vocab + n_ctx`.

    `sharpness` is the attention score of a match (of no match: 0), and the logit of the predicted token: at 100 the
    softmax is exact in float32. Raises `ConfigError` when there is nothing to repeat.
    """
    _check_sizes(d_vocab, n_ctx)
    d_model = 3 * d_vocab + n_ctx
    model = _blank(d_model, 1, d_vocab, n_ctx, device, dtype)
    tok, prev, out = (slice(i * d_vocab, (i + 1) * d_vocab) for i in range(3))
    pos = slice(3 * d_vocab, d_model)
    eye, gain = torch.eye, sharpness * d_model**0.5  # attention scores are divided by sqrt(d_head) = sqrt(d_model)
    with torch.no_grad():
        model.W_E[:, tok], model.W_pos[:, pos] = eye(d_vocab), eye(n_ctx)
        _set(model, 0, "q", pos, slice(0, n_ctx), gain * eye(n_ctx).roll(-1, 1).tril())
        _set(model, 0, "k", pos, slice(0, n_ctx), eye(n_ctx))
        _set(model, 0, "v", tok, slice(0, d_vocab), eye(d_vocab))
        _set_output(model, 0, slice(0, d_vocab), prev, eye(d_vocab))
        _set(model, 1, "q", tok, slice(0, d_vocab), gain * eye(d_vocab))
        _set(model, 1, "k", prev, slice(0, d_vocab), eye(d_vocab))
        _set(model, 1, "v", tok, slice(0, d_vocab), eye(d_vocab))
        _set_output(model, 1, slice(0, d_vocab), out, eye(d_vocab))
        model.unembed.original_component.weight[:, out] = sharpness * eye(d_vocab)
    return model


def planted_copying(
    *,
    d_vocab: int = 16,
    n_ctx: int = 32,
    sharpness: float = 100.0,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> HookedModel:
    """Build the negative control: it copies the token that followed before, without attending to it. Two heads a layer.

    Subspaces tok, prev, prev2 (the token two before), out, pos; `L0H0` writes prev, `L0H1` prev2; `L1H0` has query tok,
    key prev2, value prev; `L1H1` is zero. Its induction scores are 0 up to the uniform attention of queries without
    match.
    """
    _check_sizes(d_vocab, n_ctx)
    d_model = 4 * d_vocab + n_ctx + (n_ctx % 2)
    model = _blank(d_model, 2, d_vocab, n_ctx, device, dtype)
    tok, prev, prev2, out = (slice(i * d_vocab, (i + 1) * d_vocab) for i in range(4))
    pos = slice(4 * d_vocab, 4 * d_vocab + n_ctx)
    eye, gain, second = torch.eye, sharpness * (d_model // 2) ** 0.5, d_model // 2
    with torch.no_grad():
        model.W_E[:, tok], model.W_pos[:, pos] = eye(d_vocab), eye(n_ctx)
        for head, (offset, write) in enumerate([(1, prev), (2, prev2)]):
            at = head * second
            positions, tokens = slice(at, at + n_ctx), slice(at, at + d_vocab)
            _set(model, 0, "q", pos, positions, gain * eye(n_ctx).roll(-offset, 1).tril())
            _set(model, 0, "k", pos, positions, eye(n_ctx))
            _set(model, 0, "v", tok, tokens, eye(d_vocab))
            _set_output(model, 0, tokens, write, eye(d_vocab))
        first = slice(0, d_vocab)
        _set(model, 1, "q", tok, first, gain * eye(d_vocab))
        _set(model, 1, "k", prev2, first, eye(d_vocab))
        _set(model, 1, "v", prev, first, eye(d_vocab))
        _set_output(model, 1, first, out, eye(d_vocab))
        model.unembed.original_component.weight[:, out] = sharpness * eye(d_vocab)
    return model


def planted_post_norm(
    *, d_vocab: int = 16, n_ctx: int = 32, device: str = "cpu", dtype: torch.dtype | None = None
) -> HookedModel:
    """Build the planted induction transformer in a Gemma 2, whose blocks norm what they write.

    `d_model = 4 * d_vocab + 2`: tok, prev, out, a subspace that nothing reads, a constant, and one unused dimension.
    Raises `ConfigError` when there is nothing to repeat.
    """
    _check_sizes(d_vocab, n_ctx)
    d_model = 4 * d_vocab + 2
    model = _blank_gemma(d_model, d_vocab, n_ctx, device, dtype or torch.float32)
    tok, prev, out, unread = (slice(i * d_vocab, (i + 1) * d_vocab) for i in range(4))
    eye, always = torch.eye(d_vocab), slice(4 * d_vocab, 4 * d_vocab + 1)
    value = slice(0, d_vocab)
    slow = slice(d_vocab, 2 * d_vocab)  # dimensions that rotary positions turn by less than 0.01 within the context
    turn = torch.tensor(1.0)  # radians: the score of a key at distance d is about 46 cos(d - 1), before the cap
    with torch.no_grad():
        # the model multiplies embeddings by sqrt(d_model), and its norms give vectors of that length
        embedding = model.embed.original_component.weight
        embedding[:, tok], embedding[:, always] = d_model**-0.5 * eye, d_model**-0.5
        for dimension, turned in ((0, turn.cos()), (2 * d_vocab, -turn.sin())):  # the fastest pair of dimensions
            _set(model, 0, "q", always, slice(dimension, dimension + 1), 92 / d_model * turned[None, None])
        _set(model, 0, "k", always, slice(0, 1), torch.ones(1, 1))
        _set(model, 1, "q", tok, slow, 132 / d_model * eye)
        _set(model, 1, "k", prev, slow, eye)
        for layer, write in ((0, prev), (1, out)):
            _set(model, layer, "v", tok, value, eye)
            _set_output(model, layer, value, write, eye)
            second = slice(value.start + 4 * d_vocab, value.stop + 4 * d_vocab)
            _set_output(model, layer, second, unread, eye)
        model.unembed.original_component.weight[:, out] = 32 * d_model**-0.5 * eye
    return model


def _set(model: HookedModel, layer: int, side: str, read: slice, head: slice, value: Tensor) -> None:
    """Set a weight so that head dimensions `head` get `x[read] @ value`; torch stores linear weights as [out, in]."""
    getattr(model.blocks[layer].attn, side).original_component.weight[head, read] = value.T.to(model.W_E)


def _set_output(model: HookedModel, layer: int, head: slice, write: slice, value: Tensor) -> None:
    model.blocks[layer].attn.o.original_component.weight[write, head] = value.T.to(model.W_E)


def build_planted(spec: str, *, device: str, dtype: torch.dtype) -> HookedModel:
    """Build `"planted:induction"`, `"planted:copying"` or `"planted:post-norm"`. Raises `UnknownNameError`."""
    known = {"induction": planted_induction, "copying": planted_copying, "post-norm": planted_post_norm}
    build = known.get(spec.removeprefix(PLANTED_PREFIX))
    if build is None:
        raise UnknownNameError("planted model", spec, PLANTED_NAMES)
    return build(device=device, dtype=dtype)


def _check_sizes(d_vocab: int, n_ctx: int) -> None:
    if d_vocab < 2 or n_ctx < 4:
        raise ConfigError(f"a planted circuit needs 2 tokens and 4 positions, got {d_vocab} and {n_ctx}")


def _blank(d_model: int, n_heads: int, d_vocab: int, n_ctx: int, device: str, dtype: torch.dtype | None) -> HookedModel:
    """Return two layers of zeros, without norms."""
    config = SmallConfig(n_layers=2, d_model=d_model, n_heads=n_heads, d_vocab=d_vocab, n_ctx=n_ctx, normalization=None)
    model = build_small(config, seed=0, device=device, dtype=dtype or torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def _blank_gemma(d_model: int, d_vocab: int, n_ctx: int, device: str, dtype: torch.dtype) -> HookedModel:
    """Return a Gemma 2 of two layers of zeros; its norms have gain 1, those after attention 0.15."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        vocab_size=d_vocab, hidden_size=d_model, intermediate_size=1, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4 * d_vocab, max_position_embeddings=n_ctx, query_pre_attn_scalar=1,
        sliding_window=4, layer_types=["sliding_attention", "full_attention"], attn_logit_softcapping=50.0,
        final_logit_softcapping=30.0, rope_parameters={"rope_type": "default", "rope_theta": 1e8},
        tie_word_embeddings=False, attn_implementation="eager",  # pyright: ignore[reportCallIssue]
    )  # fmt: skip
    plain = Gemma2ForCausalLM(config)
    plain.to(device=device, dtype=dtype).eval()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            parameter.fill_(-0.85 if "post_attention" in name else 0.0)  # Gemma stores gain - 1
    return wrap_in_memory(plain)
