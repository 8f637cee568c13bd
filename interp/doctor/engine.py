"""Examine an engine: are the rows that it gives those of the model?

Contexts of different lengths go through the engine, and eight at a time through plain transformers in float32. Every
hook point that the engine offers is compared. In float32 the rows have to be the same but for rounding, a relative
error of 1e-5. In a narrower precision they have to be as near to float32 as transformers itself comes in that
precision, within a factor of two.
"""

import random
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch

from interp.doctor import _engine_checks
from interp.doctor._engine_checks import EngineSetup, GivesRows
from interp.doctor._engine_rows import reference_rows
from interp.doctor.certificate import Certificate, ExaminedSetup
from interp.doctor.trials import relative, run_trials, trials_of
from interp.models.loading import read_plain
from interp.progress import Progress
from interp.text.passages import PASSAGES
from interp.text.tokens import Tokenizer

N_CONTEXTS, LONGEST = 64, 64
TOLERANCE = 1e-5
"""Largest relative error of the rows of a hook point in float32."""

TRIALS = trials_of(_engine_checks)


def contexts_of(tokenizer: Tokenizer, n: int, longest: int, seed: int) -> list[list[int]]:
    """Return `n` contexts of prose, of 1 to `longest` tokens, BOS first in every other one where there is one."""
    draw, passages = random.Random(seed), tokenizer.encode_batch(list(PASSAGES))
    contexts = []
    for number in range(n):
        ids = passages[number % len(passages)]
        length = 1 + (longest - 1) * number // max(1, n - 1)
        first = draw.randrange(max(1, len(ids) - length))
        bos = [tokenizer.bos_token_id] if number % 2 and tokenizer.bos_token_id is not None else []
        contexts.append([*bos, *ids[first:]][:length])
    draw.shuffle(contexts)
    return contexts


def examine_engine(
    engine: GivesRows,
    *,
    contexts: Sequence[list[int]] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Certificate:
    """Hold an engine against transformers, and return a certificate with one line per check.

    `contexts` are token ids (default: 64 of prose, of 1 to 64 tokens). The weights are read a second time, in float32,
    into the memory of this process. Raises as `load_model` where they cannot be.
    """
    plain = read_plain(engine.spec)
    assert plain is not None, "an engine runs models of transformers"
    texts = list(contexts or contexts_of(engine.tokenizer, N_CONTEXTS, min(LONGEST, engine.n_ctx), seed))
    reference = plain[0].float().eval()
    setup = EngineSetup(engine, reference, texts, *tolerance_of(reference, engine, texts))
    for done in setup.measure():
        if progress is not None:
            progress(done, len(texts), {})
    checks = list(run_trials(TRIALS, setup))
    settings = ExaminedSetup(
        model=engine.spec,
        weight_hash=engine.weight_hash,
        engine=engine.about,
        dictionary="",
        dictionary_hash="",
        quick=False,
        seed=seed,
    )
    return Certificate(settings=settings, device=engine.about.rpartition(" ")[2], dtype=engine.precision, checks=checks)


def tolerance_of(plain: Any, engine: GivesRows, contexts: Sequence[list[int]]) -> tuple[float, float | None]:
    """Return the largest relative error that is allowed: twice that of transformers itself in a narrow precision.

    Then how much two runs of transformers in that precision differ, of contexts alone and of eight together.
    """
    if engine.precision == "float32":
        return TOLERANCE, None
    few = list(contexts[:8])
    name = next(reversed([name for name in engine.sites if name.endswith("hook_resid_post")]))
    sites = {point: engine.sites[point] for point in (name, name.replace("hook_resid_post", "hook_mlp_out"))}
    narrow = deepcopy(plain).to(getattr(torch, engine.precision))
    together, exact = reference_rows(narrow, sites, few), reference_rows(plain, sites, few)
    alone = reference_rows(narrow, sites, few, at_once=1)
    largest = max(relative(run[point], exact[point]) for run in (together, alone) for point in sites)
    return 2 * largest, max(relative(alone[point], together[point]) for point in sites)
