"""Chance of a hit, and directions similar to that of a feature: planted answers and nulls."""

from pathlib import Path

import make_search
import numpy as np
import pytest
import torch
from make_features import write_features
from safetensors.torch import save_file
from scipy.stats import binom

from interp.artifacts import Draft
from interp.workspace import Workspace
from saes import search_features
from saes.features._token_index import FOLDER, TokenIndex, spell
from saes.features.search import chance_of_cosine

TEXTS = [" New", " York", " York", "shire", ",", " the", *(f" word{i}" for i in range(40))]
N, CONTEXT, N_FEATURES = 12_000, 100, 40
AFTER, YORK, NEW, BOTH, NOISE = range(5)


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and activations: AFTER fires on York after New, YORK on any, NEW on New, others at random."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(6, len(TEXTS), N)
    for code, n in ((0, 60), (1, 60)):
        tokens[rng.choice(N // 10, n, replace=False) * 10 + 2 + 3 * code] = code
    at = rng.choice(N // 10, 60, replace=False) * 10 + 8
    tokens[at], tokens[at + 1] = 0, 1
    split = at[:6] - 1  # New, York: a comma between them is no phrase
    tokens[split - 1], tokens[split], tokens[at[:6]], tokens[at[:6] + 1] = 0, 4, 1, 10
    york, new = tokens == 1, tokens == 0
    after = york & np.roll(new, 1)
    acts = (rng.random((N, N_FEATURES)) < 0.01).astype(np.float32)
    acts[:, AFTER], acts[:, YORK], acts[:, NEW], acts[:, BOTH] = after, york, new, york | new
    return tokens, acts


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("chance") / "w", create=True)
    tokens, acts = planted()
    rows = [
        {"feature": i, "density": float((acts[:, i] > 0).mean()), "n_fired": int((acts[:, i] > 0).sum()), "label": "",
         "max_activation": 1.0}
        for i in range(N_FEATURES)
    ]  # fmt: skip

    def index(folder: Path) -> None:
        made, spelling = TokenIndex(N_FEATURES, folder / "runs"), spell(TEXTS)
        features = np.broadcast_to(np.arange(N_FEATURES), acts.shape)
        for start in range(0, N, 1000):
            part = slice(start, start + 1000)
            made.add(acts[part], features[part], tokens[part], np.arange(start, start + 1000) % CONTEXT == 0, spelling)
        made.write(folder / FOLDER, spelling)

    write_features(workspace, "p", rows, dictionary="neurons:blocks.0.mlp.hook_post", n_tokens=N, beside=index)
    return workspace


def found(workspace: Workspace, text: str, by: str):
    return [hit for hit in search_features(workspace, text, examples=False).hits if hit.by == by and hit.convincing]


def test_p_is_the_binomial_tail_for_all_features_searched(workspace):
    tokens, acts = planted()
    hit = min(found(workspace, "york", "tokens"), key=lambda hit: hit.p or 0.0)
    here = tokens == 1
    fired, rate = int((acts[here, hit.feature] > 0).sum()), float((acts[:, hit.feature] > 0).mean())
    assert (hit.fired, hit.tries) == (fired, int(here.sum()))
    assert hit.expected == pytest.approx(here.sum() * rate)
    assert hit.p == pytest.approx(min(1, N_FEATURES * binom.sf(fired - 1, here.sum(), rate)), rel=1e-6, abs=1e-300)


def test_random_features_are_not_found(workspace):
    """Features that fire at random are above chance for about none of the words; Holm holds the error at 5 %."""
    wrong = 0
    for i in range(20):
        answer = search_features(workspace, f"word{i}", examples=False)
        above = [hit for hit in answer.hits if hit.p is not None and hit.p <= 0.05]
        wrong += bool(above)
        assert above or not answer.hits or "nothing convincing" in answer.headline()
    assert wrong <= 4  # 1 expected at most; P(more than 4) is 0.003
    assert {hit.feature for hit in found(workspace, "york", "tokens")} == {AFTER, YORK, BOTH}


def test_the_examples_alone_have_phrases_and_chances(tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))
    workspace = make_search.build(tmp_path / "w")
    hit = search_features(workspace, "January", features="older").hits[0]
    assert hit.feature == 0
    assert hit.p < 1e-6


@pytest.fixture
def directions(tmp_path) -> tuple[Workspace, np.ndarray]:
    """A workspace with an SAE of random directions, d = 64, in bfloat16, of which 17 and 18 are alike; and those."""
    workspace = Workspace(tmp_path / "v", create=True)
    weights = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    weights[18] = 3 * weights[17] + 0.5 * weights[18]
    weights = weights.bfloat16()
    draft = Draft.open(workspace.path("sae", "s"), kind="sae", config={}, seed=0)
    save_file({"W_dec": weights}, draft.path / "sae_weights.safetensors")
    made = draft.finish(summary={}, parents={})
    rows = [{"feature": i, "n_fired": 5, "label": f"l{i}", "max_activation": 1.0} for i in range(300)]
    write_features(workspace, "f", rows, dictionary="sae:s", parents={"saes/s": made.content_hash})
    return workspace, weights.float().numpy()


def test_a_planted_neighbour_is_the_most_similar_direction_and_the_others_are_at_the_null(directions):
    workspace, weights = directions
    like = search_features(workspace, "like f:17", limit=5, examples=False).hits
    assert like[0].feature == 18
    cosine = weights[17] @ weights[18] / np.linalg.norm(weights[17]) / np.linalg.norm(weights[18])
    assert like[0].strength == pytest.approx(cosine, rel=1e-5)
    assert like[0].p < 1e-20
    assert 17 not in [hit.feature for hit in like]
    assert all((hit.p or 0) > 0.05 for hit in like[1:])  # random directions, at the null


def test_the_chance_of_a_cosine_is_that_of_random_directions():
    rng = np.random.default_rng(0)
    largest = []
    for _ in range(400):
        x = rng.normal(size=(50, 16))
        largest.append((x @ rng.normal(size=16) / np.linalg.norm(x, axis=1)).max())
    x = rng.normal(size=(20_000, 16))
    cosines = x[:, 0] / np.linalg.norm(x, axis=1)
    assert (cosines >= 0.3).mean() == pytest.approx(chance_of_cosine(np.array([0.3]), 16)[0], abs=0.01)
    one_of_50 = np.array([0.3, *[-1.0] * 49])
    assert chance_of_cosine(one_of_50, 16)[0] == pytest.approx(min(1, 50 * chance_of_cosine(one_of_50[:1], 16)[0]))
