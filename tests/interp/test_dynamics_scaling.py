"""The scaling law: planted coefficients come back, and where nothing falls there is no law."""

import math

import numpy as np
import pytest

from interp.artifacts import open_artefact, save_artefact
from interp.errors import ConfigError, NonFiniteError
from interp.studies.language_scaling import (
    LanguageLaw,
    LanguageRun,
    LanguageScaling,
    ScalingRecipe,
    ScalingSettings,
    fit_language_scaling,
    read_contexts,
    train_language_models,
)
from interp.text.corpora import open_corpus

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000)
TOKENS = (200_000, 400_000, 800_000, 1_600_000, 3_200_000)
PLANTED = LanguageLaw(e=1.2, a=12.0, b=300.0, alpha=0.35, beta=0.5)


def planted(law: LanguageLaw, noise: float, seed: int, sizes=SIZES) -> list[LanguageRun]:
    """Two runs a size; the checkpoints of one run err together, as real ones do."""
    rng = np.random.default_rng(seed)
    runs = []
    for size in sizes:
        for each in range(2):
            shared, own = rng.normal(0, noise), rng.normal(0, noise / 3, len(TOKENS))
            losses = [law.loss(size, d) * math.exp(shared + o) for d, o in zip(TOKENS, own, strict=True)]
            runs.append(LanguageRun(n_params=size, seed=each, tokens=TOKENS, losses=tuple(losses)))
    return runs


def test_without_noise_the_coefficients_come_back():
    found = fit_language_scaling(planted(PLANTED, 0.0, 0), n_bootstrap=3, n_permutations=999)
    assert found.law is not None
    for name in ("e", "a", "b", "alpha", "beta"):
        assert getattr(found.law, name) == pytest.approx(getattr(PLANTED, name), rel=2e-3)
    assert found.left_out is not None
    assert abs(found.left_out.error) < 1e-3 < abs(found.left_out.unchanged)


def test_the_coefficients_are_those_of_the_fit_that_came_before():
    """The former fit (numeric derivatives, its own bootstrap) gave these on the same runs, to six figures."""
    found = fit_language_scaling(planted(PLANTED, 0.01, 0), n_bootstrap=2, n_permutations=199).law
    assert found is not None
    expected = (1.253290, 14.334894, 399.728666, 0.379135, 0.524641)
    assert (found.e, found.a, found.b, found.alpha, found.beta) == pytest.approx(expected, rel=1e-5)


def test_intervals_hold_the_planted_exponents_over_seeds():
    seeds = range(8)
    found = [fit_language_scaling(planted(PLANTED, 0.01, s), n_bootstrap=60, n_permutations=199) for s in seeds]
    for name in ("alpha", "beta", "e"):
        inside = sum(getattr(f.intervals, name).contains(getattr(PLANTED, name)) for f in found)
        assert inside >= 6, name  # of 8: at 95 % fewer than six come six times in a thousand
    assert all(f.predicts for f in found)


@pytest.mark.parametrize("seed", range(5))
def test_where_size_does_nothing_there_is_no_exponent_of_size(seed):
    flat = LanguageLaw(e=1.2, a=0.0, b=300.0, alpha=0.35, beta=0.5)
    found = fit_language_scaling(planted(flat, 0.01, seed), n_permutations=999)
    assert found.law is None
    assert found.p_tokens < 0.01 < found.p_size
    assert "larger models have no lower loss" in str(found)


@pytest.mark.parametrize("seed", range(5))
def test_where_nothing_is_learned_there_is_no_law(seed):
    rng = np.random.default_rng(seed)
    runs = [
        LanguageRun(n_params=n, seed=0, tokens=TOKENS, losses=tuple(5.5 * np.exp(rng.normal(0, 0.01, len(TOKENS)))))
        for n in SIZES
    ]
    found = fit_language_scaling(runs, n_permutations=999)
    assert found.law is None
    assert not found.intervals


def test_curves_that_change_phase_one_after_the_other_are_said_to_follow_no_law():
    """Wider models leave a plateau earlier; none that is kept has told how far the widest falls."""
    runs = [
        LanguageRun(
            n_params=size,
            seed=seed,
            tokens=TOKENS,
            losses=tuple(
                (2.4 + 2e4 / d) * size**-0.02 * (0.75 if size * d > 1e11 else 1.0) * (1 + 0.002 * seed) for d in TOKENS
            ),
        )
        for size in SIZES
        for seed in (0, 1)
    ]
    found = fit_language_scaling(runs, n_bootstrap=20, n_permutations=999)
    assert found.law is not None
    assert found.predicts is False
    assert "does not hold" in str(found)


def test_what_cannot_be_fitted_is_refused_with_what_is_missing():
    runs = planted(PLANTED, 0.0, 0)
    with pytest.raises(ConfigError, match="at least 4 sizes"):
        fit_language_scaling(runs[:4])
    with pytest.raises(ConfigError, match="at least 4 checkpoints"):
        fit_language_scaling(
            [LanguageRun(n_params=r.n_params, seed=0, tokens=r.tokens[:2], losses=r.losses[:2]) for r in runs]
        )
    with pytest.raises(ConfigError, match="same numbers of tokens"):
        fit_language_scaling([*runs, LanguageRun(n_params=5, seed=0, tokens=TOKENS[1:], losses=runs[0].losses[1:])])
    with pytest.raises(ConfigError, match=r"4 sizes have 24 orders.*more sizes or seeds"):
        fit_language_scaling(runs[:8:2])
    with pytest.raises(ConfigError, match="100 or more"):
        fit_language_scaling(runs, n_permutations=50)
    with pytest.raises(ConfigError, match="bootstrap"):
        fit_language_scaling(runs, n_bootstrap=0)
    with pytest.raises(ConfigError, match="at least 1, got 1000 and 0"):
        fit_language_scaling([LanguageRun(n_params=1000, seed=0, tokens=(0, *TOKENS[1:]), losses=runs[0].losses)])
    with pytest.raises(NonFiniteError, match="not a number above 0"):
        fit_language_scaling([*runs, LanguageRun(n_params=5, seed=0, tokens=TOKENS, losses=(math.nan,) * 5)])
    with pytest.raises(ConfigError, match="at least 4 sizes"):
        fit_language_scaling([])
    with pytest.raises(ConfigError, match="multiples of 8"):
        ScalingRecipe(widths=(6,))


def text_file(tmp_path, n_documents: int) -> str:
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmn"]
    lines = ["{" + f'"text": "{" ".join(rng.choice(words, 120))}"' + "}" for _ in range(n_documents)]
    path = tmp_path / "text.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


TINY = ScalingRecipe(
    widths=(8, 16, 24, 32), tokens=33_000, n_checkpoints=4, context_length=32, batch_size=32, heldout_contexts=64
)  # fmt: skip


def test_no_held_out_byte_is_trained_on_and_too_little_text_is_said(tmp_path):
    corpus = open_corpus(text_file(tmp_path, 400))
    rows = read_contexts(corpus, TINY)
    assert rows.shape == (TINY.steps * TINY.batch_size + TINY.heldout_contexts, 32)
    held, seen = (bytes(part.flatten().tolist()) for part in (rows[-64:], rows[:-64]))
    documents = [document.text.encode() for document in corpus]
    assert held.startswith(documents[0][:200])
    assert documents[0][:200] not in seen
    with pytest.raises(ConfigError, match="ask for fewer tokens"):
        read_contexts(open_corpus(text_file(tmp_path, 3)), TINY)


def test_models_are_trained_measured_and_written(tmp_path):
    corpus, told = open_corpus(text_file(tmp_path, 400)), []
    runs = list(train_language_models(corpus, TINY, progress=lambda done, total, values: told.append((done, total))))
    assert [run.n_params for run in runs[::2]] == [24 * w * w for w in TINY.widths]
    assert told[-1][0] == told[-1][1] == len(runs) * TINY.steps
    assert all(run.losses[-1] < run.losses[0] < math.log(257) for run in runs)
    settings = ScalingSettings(recipe=TINY, corpus_hash="hash")
    found = fit_language_scaling(runs, settings=settings, n_bootstrap=5, n_permutations=199)
    save_artefact(found, tmp_path / "d", seed=0)
    stored = open_artefact(LanguageScaling, tmp_path / "d")
    assert stored.runs == tuple(runs)
    assert (stored.law, stored.intervals, stored.details()) == (found.law, found.intervals, found.details())
    assert (stored.settings.recipe, stored.settings.corpus_hash) == (TINY, "hash")
    begun = train_language_models(corpus, TINY, folder=tmp_path)
    assert [next(begun), next(begun)] == runs[:2], "the same seed, the same losses"
    begun.close()
    told.clear()
    again = train_language_models(corpus, TINY, folder=tmp_path, progress=lambda done, *_: told.append(done))
    assert [next(again), next(again), next(again)] == runs[:3]
    assert min(told) > 2 * TINY.steps, "the first two are read, and not trained again"


@pytest.mark.slow
@pytest.mark.long
def test_real_prose_has_a_law_and_models_that_do_not_learn_have_none():
    corpus = open_corpus("docstrings")
    recipe = ScalingRecipe(widths=(8, 16, 24, 32, 48), tokens=600_000, n_checkpoints=5)
    found = fit_language_scaling(list(train_language_models(corpus, recipe)), n_bootstrap=50)
    assert found.law is not None, str(found)
    assert found.intervals is not None
    assert found.intervals.alpha.low > 0
    assert found.predicts
    assert found.left_out is not None
    assert abs(found.left_out.error) < 0.05
    untrained = ScalingRecipe(widths=(8, 16, 24, 32), tokens=140_000, n_checkpoints=4, lr=1e-12)
    assert fit_language_scaling(list(train_language_models(corpus, untrained)), n_bootstrap=5).law is None
