"""Comparison of two checkpoints as one result: weights, representations on each text, heads, transplants, words.

    found = what_changed(base, tuned, {"facts": tokens, "prose": others}, continuations=models, behaviour=log_prob)
    print(found)            # a table
    found.sentences()       # what was found

The effect of fine-tuning is expected on the first text; the others are controls, and words are read on the last.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from interp.changes.comparison import ComparisonSettings, ModelComparison
from interp.changes.components import check_comparable
from interp.changes.heads import head_changes
from interp.changes.reading import changed_words
from interp.changes.representations import representation_changes
from interp.changes.transplant import Behaviour, log_prob_of, transplants
from interp.changes.weights import weight_changes
from interp.dictionary import Dictionary
from interp.errors import ConfigError
from interp.lenses.jacobian_lens import JacobianLens
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.progress import Progress


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
    dictionaries: Mapping[str, Dictionary] | None = None,
    n_random: int = 5,
    batch_size: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> ModelComparison:
    """Compare two checkpoints of one architecture; both models are restored when it returns.

    `texts`: name -> tokens `[n_contexts, pos]`; the effect of fine-tuning is expected on the first. `continuations`:
    three or more models trained further from the base without the fine-tuning, as the null; without them the null is
    rounding to bfloat16. `behaviour(model)` returns a number per prompt; by default it is the mean log-probability of
    the first text's contexts. `lens` and `dictionaries` (by key) are the base's, for words.

    Raises `MismatchError` for different architectures or vocabularies, `NonFiniteError`, `ConfigError`.
    """
    check_comparable(base, tuned)
    if not texts:
        raise ConfigError("a text is needed on which the models can be compared, got none; give one")
    first = next(iter(texts))
    report = _Steps(progress, 4 + len(texts))
    moved = weight_changes(base, tuned, continuations=continuations, progress=report.within("weights"))
    streams = {}
    for text, tokens in texts.items():
        streams[text] = representation_changes(
            base, tuned, tokens, continuations=continuations, batch_size=batch_size, seed=seed,
            progress=report.within(f"stream on {text}"),
        )  # fmt: skip
    heads = head_changes(
        base, tuned, texts[first], continuations=continuations, batch_size=batch_size, seed=seed,
        progress=report.within("heads"),
    )  # fmt: skip
    proof = transplants(
        base, tuned, behaviour or log_prob_of(texts[first]), continuations=continuations, n_random=n_random, seed=seed,
        name=behaviour_name or ("behaviour" if behaviour else f"log-probability of {first}"),
        progress=report.within("transplants"),
    )  # fmt: skip
    last = [*texts][-1]
    words = changed_words(
        base, tuned, texts[last], text=last, lens=lens, dictionaries=dictionaries,
        batch_size=batch_size, seed=seed, progress=report.within("words"),
    )  # fmt: skip
    settings = ComparisonSettings(
        base=names[0],
        tuned=names[1],
        weight_hashes=tuple(weight_hash(model) for model in (base, tuned, *continuations)),
        texts={text: tuple(tokens.shape) for text, tokens in texts.items()},
        n_random=n_random,
        seed=seed,
    )
    return ModelComparison(
        settings=settings, weights=moved, representations=streams, heads=heads, transplants=proof, words=words
    )


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
