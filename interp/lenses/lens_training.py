"""Training of a tuned lens (Belrose et al. 2023; `interp.lenses.tuned_lens` says what it is).

    lens = train_tuned_lens(model, contexts, heldout, TunedLensConfig(steps=250))
    readings = logit_lens(model, tokens, lens=lens)

Translators are trained by distillation: the loss is `KL(model's output || reading)`, and the text itself is not a
target.

1. Run a few contexts. Take the residual after every layer, and the model's own log-probabilities, at a few random
   positions. The first position of a context is never drawn: its residual is an outlier.
2. For each layer, compute `KL(model || reading)` and its gradient in that layer's translator, and take one step of
   Adam. The logits of one layer at `positions` positions are in memory at a time.
3. At the end, set a translator to zero unless it beats the plain logit lens on contexts held out for this choice.
   Both lenses are then measured once on `heldout`.

Belrose et al. 2023 train with SGD and Nesterov momentum on 2^18 tokens a step; Adam needs far fewer tokens. The bias is
learned in units of its layer's root mean square residual, so that one learning rate suits all layers. With a draft an
interrupted run retains its last whole step; the same call resumes it, and gives the same numbers as a run without
interruption.

`distances` judges any reading by its distance from the model's own output on held-out text.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.artifacts import Draft
from interp.errors import ConfigError, NonFiniteError
from interp.lenses.lens import CHECKPOINT
from interp.lenses.tuned_lens import LensLayer, LensSettings, TunedLens, TunedLensConfig
from interp.models.adapter import final_norm_and_unembed, weight_hash
from interp.models.hooked import HookedModel
from interp.models.identity import model_spec
from interp.models.passes import Capture
from interp.models.training import TrainingFile
from interp.names import lens_hook_points
from interp.progress import Progress
from interp.seeds import make_generator
from interp.statistics import Interval, t_interval

LOGITS, COMPARED = 2**24, 2**18
"""logits of one reading in memory at a time, and of them those compared at a time, so that they stay in the cache"""
WARMUP = 10
"""Steps over which the learning rate rises."""
N_TEXTS = 64
"""held-out texts that a lens is measured on"""


def kl_divergence(
    target: Float[Tensor, "*batch d_vocab"], logits: Float[Tensor, "*batch d_vocab"]
) -> Float[Tensor, "*batch"]:
    """Return `KL(target || reading)` in nats, `[...]`, of log-probabilities `target` and a reading's `logits`.

    Both are `[..., d_vocab]`. 0 means the same distribution; above 0, the expected excess surprise of the reading on
    tokens drawn from the target.
    """
    return (target.exp() * (target - logits.log_softmax(-1))).sum(-1)


class Positions(NamedTuple):
    """Residuals at drawn positions."""

    resid: dict[str, Tensor]
    """hook point -> `[n, d_model]`"""
    last: Tensor
    """`[n, d_model]` after the last block"""
    text: Tensor
    """`[n]` number of the context of each"""

    @torch.no_grad()
    def target(self, model: HookedModel, rows: slice = slice(None)) -> Tensor:
        """Return the model's output, log-probabilities `[n, d_vocab]` float32."""
        return final_norm_and_unembed(model, self.last[rows]).float().log_softmax(-1)


@torch.no_grad()
def draw_positions(
    model: HookedModel,
    contexts: Int[Tensor, "m pos"],
    hook_points: list[str],
    n: int,
    *,
    n_contexts: int,
    seed: int,
    stream: tuple[str | int, ...],
) -> Positions:
    """Return `n` positions, as many of each of `n_contexts` contexts, drawn by a seed and a name.

    The first position of a context is never drawn: its residual is an outlier.
    """
    generator = make_generator(seed, *stream)
    text = torch.randperm(len(contexts), generator=generator)[: min(n_contexts, n)]
    row = torch.arange(n) % len(text)
    position = torch.randint(1, contexts.shape[1], (n,), generator=generator)
    last = lens_hook_points(model.cfg.n_layers)[-1]
    with Capture(model, list(dict.fromkeys([*hook_points, last]))) as capture:
        values = capture(contexts[text].to(model.cfg.device))
    values = {name: value[row, position] for name, value in values.items()}
    return Positions({name: values[name] for name in hook_points}, values[last], text[row])


Reading = Callable[[str, Tensor], Tensor]
"""From a hook point and residuals `[n, d_model]` there to residuals before the final norm; one row for a constant."""


def rows_at_once(model: HookedModel) -> int:
    """Return how many positions have their logits in memory at a time."""
    return max(1, LOGITS // model.cfg.d_vocab)


@torch.no_grad()
def distances(
    model: HookedModel, sample: Positions, readings: Mapping[str, Reading], *, products: str = "float32"
) -> dict[str, dict[str, Float[Tensor, " n"]]]:
    """Return the KL (nats) of the model's output from every reading of every hook point, one for each position.

    Logits are computed in blocks of positions, and none is kept. `products` is the dtype of the unembedding's products.
    """
    parts: dict[str, dict[str, list[Tensor]]] = {p: {name: [] for name in readings} for p in sample.resid}
    n, step, few = len(sample.last), rows_at_once(model), max(1, COMPARED // model.cfg.d_vocab)
    for rows in (slice(start, start + step) for start in range(0, n, step)):
        target = sample.target(model, rows)
        shares = target.exp()
        with autocast(model, products):  # around all readings, so that the unembedding is rounded once
            for point, resid in sample.resid.items():
                for name, reading in readings.items():
                    with autocast(model, "float32"):
                        read = reading(point, resid[rows].float()).to(resid.dtype)
                    logits = final_norm_and_unembed(model, read).expand_as(target)
                    blocks = zip(shares.split(few), target.split(few), logits.split(few), strict=True)
                    parts[point][name] += [(p * (log_p - x.float().log_softmax(-1))).sum(-1) for p, log_p, x in blocks]
    return {p: {name: torch.cat(blocks).cpu() for name, blocks in of.items()} for p, of in parts.items()}


def autocast(model: HookedModel, products: str) -> contextlib.AbstractContextManager[object]:
    """Return a context in which a float32 model multiplies in a dtype; residuals and sums stay float32."""
    rounded = products == "bfloat16" and model.cfg.dtype == torch.float32
    return torch.autocast(str(model.cfg.device).partition(":")[0], dtype=torch.bfloat16, enabled=rounded)


def over_texts(values: Float[Tensor, " n"], text: Int[Tensor, " n"]) -> Interval[float]:
    """Return the mean of values at positions, with its 95 % interval over texts."""
    number = text.unique(return_inverse=True)[1]
    sums = torch.zeros(int(number.max()) + 1, dtype=torch.float64).index_add_(0, number, values.double())
    interval = t_interval((sums / number.bincount()).numpy())
    return Interval(*(float(end) for end in interval))


def train_tuned_lens(
    model: HookedModel,
    contexts: Int[Tensor, "n pos"],
    heldout: Int[Tensor, "m heldout_pos"],
    config: TunedLensConfig | None = None,
    *,
    source: str = "",
    draft: Callable[[LensSettings], Draft] | None = None,
    progress: Progress | None = None,
) -> TunedLens:
    """Train a lens and measure it on held-out tokens.

    Args:
        model: the model that it reads.
        contexts: tokens to train on, `[n, pos]`.
        heldout: tokens to measure on, `[m, heldout_pos]`.
        config: the settings of the training.
        source: origin of the tokens.
        draft: returns the work in progress of some settings, with the checkpoints of an earlier run if there are any.
        progress: called after every step.

    Raises `ConfigError` for too few contexts, `NonFiniteError` when the loss is not finite, and what `draft` raises.
    """
    config = config or TunedLensConfig()
    if len(contexts) < 10 or len(heldout) < 1 or contexts.shape[1] < 2:
        raise ConfigError(
            f"expected at least 10 contexts to train on and 1 held out, of 2 tokens or more, got "
            f"{list(contexts.shape)} and {list(heldout.shape)}; use more text"
        )
    n, length = contexts.shape
    names = config.hook_points(model.cfg.n_layers)
    origin = {"model": model_spec(model), "weight_hash": weight_hash(model), "source": source}
    settings = LensSettings(**origin, n_contexts=n, context_length=length, **asdict(config))
    run = _Run(model, contexts, config, names, None if draft is None else draft(settings))
    try:
        while run.done < config.steps:
            loss = run.step()
            if run.done % config.checkpoint_every == 0:
                run.checkpoint(loss)
            if progress:
                progress(run.done, config.steps, {"kl": loss})
    except NonFiniteError:
        raise
    except BaseException:  # Ctrl-C too
        run.checkpoint(None)
        raise
    return run.finish(heldout, settings)


class _Run:
    """One training run: opened or resumed, advanced step by step, finished."""

    def __init__(
        self,
        model: HookedModel,
        contexts: Tensor,
        config: TunedLensConfig,
        names: list[str],
        draft: Draft | None,
    ):
        self.model, self.config, self.names, self.draft = model, config, names, draft
        n_decide = max(1, len(contexts) // 10)
        self.contexts, self.deciding = contexts[:-n_decide], contexts[-n_decide:]
        d, device = model.cfg.d_model, model.cfg.device
        start = {f"{name}.weight": torch.zeros(d, d, device=device) for name in names}
        start |= {f"{name}.bias": torch.zeros(d, device=device) for name in names}
        self.values = {key: value.requires_grad_() for key, value in start.items()}
        """`<hook point>.weight` and `.bias`"""
        self.optimizer = torch.optim.Adam(self.values.values())
        self.done = 0
        """steps taken"""
        self.whole = True
        """False during an optimizer step: an interrupt then writes no checkpoint"""
        if draft is not None:
            self.done, _ = TrainingFile(draft.path / CHECKPOINT).load(self.values, self.optimizer, [])
        self.units = {n: float(r.float().pow(2).mean().sqrt()) for n, r in self.sample(self.contexts, 0).resid.items()}

    def step(self) -> float:
        """Take one step for every layer and return the mean loss."""
        sample, losses = self.sample(self.contexts, self.done + 1), []
        target = sample.target(self.model)
        for name in self.names:
            weight, bias = self.translator(name)
            with torch.enable_grad():
                loss = kl_divergence(target, self.read(name, sample.resid[name], weight, bias)).mean()
            weight.grad, bias.grad = torch.autograd.grad(loss, (weight, bias))
            losses.append(float(loss.detach()))
        mean = sum(losses) / len(losses)
        if mean != mean or mean == float("inf"):
            raise NonFiniteError(f"the loss is not finite at step {self.done + 1}; lower lr (now {self.config.lr:g})")
        rise = min(1.0, (self.done + 1) / WARMUP)
        self.optimizer.param_groups[0]["lr"] = self.config.lr * rise * (1 - self.done / self.config.steps)
        self.whole = False
        self.optimizer.step()
        self.done += 1
        self.whole = True
        return mean

    def translator(self, name: str) -> tuple[Tensor, Tensor]:
        """Return the weight and bias of one hook point."""
        return self.values[f"{name}.weight"], self.values[f"{name}.bias"]

    def read(self, name: str, resid: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return logits of `resid [n, d_model]` through a translator whose bias is in units of the layer."""
        translated = resid.float()
        translated = translated + translated @ weight + bias * self.units[name]
        return final_norm_and_unembed(self.model, translated.to(resid.dtype)).float()

    def sample(self, contexts: Tensor, draw: int) -> Positions:
        """Return sample `draw` of positions; it depends on the seed and `draw` only, not on earlier samples."""
        options = {"n_contexts": self.config.contexts, "seed": self.config.seed, "stream": ("tuned lens", draw)}
        return draw_positions(self.model, contexts, self.names, self.config.positions, **options)

    def measure(self, contexts: Tensor, stream: str) -> dict[str, tuple[float, float]]:
        """Return the mean KL per hook point, `(logit lens, tuned lens)`, on a sample of the named random stream."""

        def tuned(point: str, resid: Tensor) -> Tensor:
            weight, bias = self.translator(point)
            return resid + resid @ weight + bias * self.units[point]

        options = {"n_contexts": N_TEXTS, "seed": self.config.seed, "stream": ("tuned lens", stream)}
        sample = draw_positions(self.model, contexts, self.names, self.config.heldout_positions, **options)
        kl = distances(self.model, sample, {"logit": lambda _, resid: resid, "tuned": tuned})
        return {name: (float(kl[name]["logit"].mean()), float(kl[name]["tuned"].mean())) for name in self.names}

    def checkpoint(self, loss: float | None) -> None:
        """Write what the rest of the run depends on, if there is a draft and no optimizer step is half done."""
        if self.draft is None or not self.whole:
            return
        TrainingFile(self.draft.path / CHECKPOINT).save(self.values, self.optimizer, [], self.done)
        self.draft.update(step=self.done, steps=self.config.steps, loss=loss)

    def finish(self, heldout: Tensor, settings: LensSettings) -> TunedLens:
        """Set translators to zero that do not help, measure the lens, and return it."""
        better = {name: tuned < plain for name, (plain, tuned) in self.measure(self.deciding, "decide").items()}
        with torch.no_grad():
            for key, value in self.values.items():
                value.mul_(better[key.rpartition(".")[0]])
        measured = self.measure(heldout, "heldout")
        if self.draft is not None:
            (self.draft.path / CHECKPOINT).unlink(missing_ok=True)
        pairs = [self.translator(name) for name in self.names]
        biases = [bias.detach() * self.units[name] for name, (_, bias) in zip(self.names, pairs, strict=True)]
        return TunedLens(
            settings=settings,
            layers=tuple(
                LensLayer(hook_point=name, kl_logit=plain, kl_tuned=tuned, kept=better[name])
                for name, (plain, tuned) in measured.items()
            ),
            weights=np.stack([weight.detach().cpu().numpy() for weight, _ in pairs]),
            biases=np.stack([bias.cpu().numpy() for bias in biases]),
        )
