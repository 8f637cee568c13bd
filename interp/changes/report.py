"""Comparison of two checkpoints as one result: weights, residual stream on each text, transplants, words.

    found = what_changed(base, tuned, {"facts": tokens, "prose": others}, continuations=models, behaviour=log_prob)
    print(found)                    # a list of findings
    found.found("weights")          # rows beyond their null

The effect of fine-tuning is expected on the first text; the others are controls, and words are read on the last.

Changes of weight matrices are relative to their size:

    change = |W_tuned - W_base| / max(|W_base|, |W_tuned|)        (Frobenius norm, bias included as a row)

0: the same; 1: one of the two is negligible, or the difference is as large as the larger; at most 2. A change of
weights need not affect behaviour: see `transplant`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from interp.artifacts import Table
from interp.changes._components import check_comparable, check_count, describe_null, upper_bound
from interp.changes._reading import changed_words
from interp.changes._stream import stream_changes
from interp.changes.comparison import SMALLEST, Change, CheckpointComparisonSettings, ModelComparison
from interp.changes.transplant import Behaviour, log_prob_of, transplants
from interp.errors import ConfigError
from interp.lenses.jacobian_lens import JacobianLens
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.nulls import DRAWS
from interp.progress import Progress


@torch.no_grad()
def weight_changes(base: HookedModel, tuned: HookedModel, *, continuations: Sequence[HookedModel] = ()) -> list[Change]:
    """Compare the weights of two models of one architecture, a row per component.

    Raises what `check_comparable` raises, and `ConfigError` for one or two continuations.
    """
    check_count(continuations)
    ones, twos = check_comparable(base, tuned)
    others = [check_comparable(base, model)[1] for model in continuations]
    rows, chance = [], []
    for i, before in enumerate(ones):
        matrix = before.matrix()
        nulls = [untrained[i].matrix() for untrained in others] or [matrix.to(torch.bfloat16).double()]
        chance.append([relative_change(matrix, null) for null in nulls])
        rows.append((before, relative_change(matrix, twos[i].matrix())))
    high, none = upper_bound(np.array(chance).T, n_tests=len(ones)), float("nan")
    return [
        Change(
            question="weights", text="", name=component.name, place=component.place, value=change, low=none,
            high=none, null=float(np.mean(null)), bound=float(bound), found=bool(change > max(bound, SMALLEST)),
            words=[],
        )
        for (component, change), null, bound in zip(rows, chance, high, strict=True)
    ]  # fmt: skip


def relative_change(before: Tensor, after: Tensor) -> float:
    """Return `|after - before|` over the larger of their Frobenius norms; 0 when both are zero."""
    after = after.to(before.device)
    scale = max(float(before.norm()), float(after.norm()))
    return float((after - before).norm()) / scale if scale else 0.0


def what_changed(
    base: HookedModel,
    tuned: HookedModel,
    texts: Mapping[str, Tensor],
    *,
    continuations: Sequence[HookedModel] = (),
    behaviour: Behaviour | None = None,
    behaviour_name: str | None = None,
    names: tuple[str, str] = ("base", "tuned"),
    lens: JacobianLens | None = None,
    n_random: int = DRAWS["quick"],
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelComparison:
    """Compare two checkpoints of one architecture; both models are restored when it returns.

    `base` and `tuned` are the models and `names` what the result calls them; `behaviour_name` is what it calls the
    behaviour.

    `texts`: name -> tokens `[n_contexts, pos]`; the effect of fine-tuning is expected on the first. `continuations`:
    three or more models trained further from the base without the fine-tuning, as the null; without them the null is
    rounding to bfloat16. `behaviour(model)` returns a number per prompt; by default it is the mean log-probability of
    the first text's contexts. `lens` is the base's, for words.

    Raises `MismatchError` for different architectures or vocabularies, `NonFiniteError`, `ConfigError`.
    """
    check_comparable(base, tuned)
    if not texts:
        raise ConfigError("a text is needed on which the models can be compared, got none; give one")
    first_text, last_text = next(iter(texts)), [*texts][-1]
    steps = _Steps(progress, 2 + len(texts))
    rows = weight_changes(base, tuned, continuations=continuations)
    for text, tokens in texts.items():
        rows += stream_changes(
            base, tuned, tokens, text=text, continuations=continuations, seed=seed,
            progress=steps.within(f"stream on {text}"),
        )  # fmt: skip
    effects = transplants(
        base, tuned, behaviour or log_prob_of(texts[first_text]), continuations=continuations, n_random=n_random,
        seed=seed,
        name=behaviour_name or ("behaviour" if behaviour else f"log-probability of {first_text}"),
        progress=steps.within("transplants"),
    )  # fmt: skip
    words, said = changed_words(
        base, tuned, texts[last_text], text=last_text, lens=lens, seed=seed, progress=steps.within("words")
    )
    settings = CheckpointComparisonSettings(
        base=names[0],
        tuned=names[1],
        weight_hashes=tuple(weight_hash(model) for model in (base, tuned, *continuations)),
        texts={text: tuple(tokens.shape) for text, tokens in texts.items()},
        n_random=n_random,
        seed=seed,
    )
    return ModelComparison(
        settings=settings, null=describe_null(len(continuations)), gap=effects.gap, said=said,
        changes=Table.of(Change, [*words, *rows, *effects.rows]),
    )  # fmt: skip


class _Steps:
    """Progress of several analyses as one bar, with a step of equal size for each."""

    def __init__(self, progress: Progress | None, n: int):
        self.progress, self.n, self.at = progress, n, -1

    def within(self, name: str) -> Progress | None:
        self.at += 1
        at = self.at
        if self.progress is None:
            return None

        def report(done: int, total: int, info: dict) -> None:
            assert self.progress is not None
            self.progress(int(100 * (at + done / max(total, 1))), 100 * self.n, {"step": name, **info})

        return report
