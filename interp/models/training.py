"""The one training loop for small models: a generator of metrics, which a script, a notebook and a test read alike.

    for step in train_small(model, batches, TrainingConfig(steps=1000)):
        print(step.step, step.loss)

`batches(n, generator)` gives `n` rows of tokens `[n, pos]`; the loss is the mean next-token cross-entropy in nats.
Plain AdamW, a linear warm-up, then a constant rate. The same seed gives the same weights for one number of threads.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import ConfigError, NonFiniteError
from interp.runtime import make_generator

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Batches = Callable[[int, "torch.Generator"], "Tensor"]
"""`batches(n, generator)` -> `[n, pos]` int64 tokens"""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a small model is trained."""

    steps: int = 1000
    batch_size: int = 64
    """rows of tokens per step"""
    lr: float = 1e-3
    warmup_steps: int = 100
    """the rate rises linearly from 0 to `lr` over these"""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    log_every: int = 50
    """steps between the values that the loop yields; the last step is always among them"""
    seed: int = 0
    """of the data; the weights have their own, given when the model is built"""

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size, self.log_every) < 1 or self.lr <= 0 or self.warmup_steps < 0:
            raise ConfigError("steps, batch_size, log_every and lr must be above 0, and warmup_steps at least 0")


@dataclass(frozen=True)
class TrainingStep:
    """The state after one step; the model itself is the one that was given, trained in place."""

    step: int
    """1 after the first update"""
    tokens: int
    """tokens seen"""
    loss: float
    """nats, mean over the steps since the last value"""
    metrics: dict[str, float]
    """what `measure` returned; empty without it"""


def train_small(
    model: Any,
    batches: Batches,
    config: TrainingConfig,
    *,
    measure: Callable[[Any], dict[str, float]] | None = None,
) -> Iterator[TrainingStep]:
    """Train a model in place, yielding every `log_every` steps; `measure(model)` runs at each of those.

    Stop iterating to stop training. The model is in evaluation mode whenever the caller has control.
    Raises `NonFiniteError` when the loss is no number.
    """
    import torch

    from interp.models.unhooked import training_forward

    generator = make_generator(config.seed, "training data")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, foreach=True
    )
    losses: list[Tensor] = []
    tokens, forward = 0, training_forward(model.train())
    for step in range(1, config.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * min(1.0, step / max(1, config.warmup_steps))
        batch = batches(config.batch_size, generator).to(model.cfg.device)
        losses.append(_update(forward, optimizer, batch))
        tokens += batch.numel()
        if step % config.log_every == 0 or step == config.steps:
            loss = float(torch.stack(losses).mean())
            losses.clear()
            if not loss < float("inf"):
                raise NonFiniteError(f"the loss is {loss} at step {step}; use a lower lr (it is {config.lr})")
            model.eval()
            yield TrainingStep(step, tokens, loss, _measured(model, measure))
            forward = training_forward(model.train())  # the caller may have hooked it


def _update(forward: Any, optimizer: Any, tokens: "Tensor") -> "Tensor":
    import torch
    from torch.nn.functional import cross_entropy

    with torch.enable_grad():
        logits = forward(tokens)[:, :-1]
        loss = cross_entropy(logits.reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return loss.detach()


def _measured(model: Any, measure: Callable[[Any], dict[str, float]] | None) -> dict[str, float]:
    import torch

    if measure is None:
        return {}
    with torch.no_grad():
        return measure(model)
