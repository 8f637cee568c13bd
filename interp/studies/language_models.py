"""Language models of several sizes trained on the same text, as data for a scaling law (`ScalingRecipe`).

Every model reads the same bytes once, in the same order. It has two layers, with MLPs four times as wide as the
residual stream. AdamW has a constant learning rate, inversely proportional to the square root of the width. With a
constant rate every checkpoint is equivalent to a run of its length. Losses are on held-out documents.

Positions are rotary. With learned positions a model stays at the bigram loss until its heads attend to the previous
byte, earlier for wider models, and no power law holds across that change.
"""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from interp.errors import ConfigError
from interp.progress import Progress
from interp.runtime import derive_seed
from interp.studies.config import ScalingRecipe
from interp.studies.language_scaling import LanguageRun

if TYPE_CHECKING:
    from torch import Tensor

    from interp.text.corpora import Corpus


def train_language_models(
    corpus: "Corpus", recipe: ScalingRecipe, *, progress: Progress | None = None
) -> Iterator[LanguageRun]:
    """Train every width with every seed, the narrowest first, and yield the runs.

    Raises `ConfigError` where the corpus has too little text.
    """
    rows = read_contexts(corpus, recipe)
    train, heldout = rows[: -recipe.heldout_contexts], rows[-recipe.heldout_contexts :]
    total, done = len(recipe.widths) * len(recipe.seeds) * recipe.steps, 0
    for width in sorted(recipe.widths):
        for seed in recipe.seeds:
            steps, losses = [], []
            for step, loss in _checkpoint_losses(train, heldout, recipe, width, seed):
                steps.append(step)
                losses.append(loss)
                if progress is not None:
                    progress(done + step, total, {"width": width, "loss": round(loss, 3)})
            done += recipe.steps
            yield LanguageRun(
                n_params=recipe.n_params(width),
                seed=seed,
                tokens=tuple(step * recipe.batch_size * recipe.context_length for step in steps),
                losses=tuple(losses),
                name=f"width {width}",
            )


def read_contexts(corpus: "Corpus", recipe: ScalingRecipe) -> "Tensor":
    """Return bytes `[n, context_length]`; the last `heldout_contexts` rows are from held-out documents."""
    import torch

    n_train, n_heldout = recipe.steps * recipe.batch_size, recipe.heldout_contexts
    heldout, train = bytearray(), bytearray()
    for document in corpus:
        # the first documents are held out: few, and from another part of the corpus than the last ones
        part = heldout if len(heldout) < n_heldout * recipe.context_length else train
        part += document.text.encode() + b"\n\n"
        if len(train) >= n_train * recipe.context_length:
            break
    rows = [_rows(each, recipe.context_length) for each in (train, heldout)]
    if len(rows[0]) < n_train or len(rows[1]) < n_heldout:
        raise ConfigError(
            f"{corpus.spec} has {len(train):,} bytes besides the {len(heldout):,} held out, "
            f"{n_train * recipe.context_length:,} are needed; ask for fewer tokens"
        )
    return torch.cat([rows[0][:n_train], rows[1][:n_heldout]])


def _rows(text: bytearray, length: int) -> "Tensor":
    import torch

    whole = text[: len(text) // length * length]
    if not whole:
        return torch.empty(0, length, dtype=torch.long)
    return torch.frombuffer(whole, dtype=torch.uint8).view(-1, length).long()


def _checkpoint_losses(
    train: "Tensor", heldout: "Tensor", recipe: ScalingRecipe, width: int, seed: int
) -> Iterator[tuple[int, float]]:
    import torch

    from interp.models.small import SmallConfig, build_small
    from interp.models.training import TrainingConfig, train_small

    config = SmallConfig(
        n_layers=recipe.n_layers,
        d_model=width,
        n_heads=4,
        d_mlp=4 * width,
        n_ctx=recipe.context_length,
        positions="rotary",
    )
    model = build_small(
        config, seed=derive_seed(seed, "scaling weights", width) % 2**31, device="cpu", dtype=torch.float32
    )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(derive_seed(seed, "order") % 2**63))
    taken = iter(train[order].split(recipe.batch_size))
    wanted = set(recipe.checkpoints)
    loop = TrainingConfig(
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        lr=recipe.lr * math.sqrt(16 / width),
        warmup_steps=min(50, recipe.steps // 10),
        log_every=1,
        seed=seed,
    )
    for state in train_small(model, lambda n, generator: next(taken), loop):
        if state.step in wanted:
            yield state.step, heldout_loss(model, heldout, recipe.batch_size)


def heldout_loss(model: object, rows: "Tensor", batch_size: int) -> float:
    """Return the loss in nats per byte over `rows [n, pos]`."""
    import torch
    from torch.nn.functional import cross_entropy

    total = 0.0
    with torch.no_grad():
        for batch in rows.split(batch_size):
            logits = model(batch)[:, :-1]  # type: ignore[operator]
            total += float(
                cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1), reduction="sum")
            )
    return total / (rows.shape[0] * (rows.shape[1] - 1))
