"""Phrases in their order, chance of a hit, and similarity to a vector: planted answers and nulls."""

from pathlib import Path

import make_search
import numpy as np
import pytest
import torch
from make_features import write_features
from safetensors.torch import save_file
from scipy.stats import binom

from interp.artifacts import Draft
from interp.errors import ConfigError, MissingError
from interp.workspace import Workspace
from saes import search_features
from saes.features.search import chance_of_cosine, load_vector, search_vector
from saes.features.token_index import FOLDER, PHRASE_FROM, TokenIndex, Units, spell
from workbench.__main__ import main
from workbench.verbs.features import Search

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


def test_the_order_of_a_phrase_counts(workspace):
    hits = found(workspace, "New York", "phrase")
    assert [hit.feature for hit in hits] == [AFTER, YORK, BOTH]
    assert hits[0].score == pytest.approx(1, abs=0.03)  # the first occurrences of a pair are not indexed
    assert hits[1].score < 0.8
    assert hits[0].recall == 1
    assert NEW in [hit.feature for hit in found(workspace, "New York", "tokens")]
    assert found(workspace, "York New", "phrase") == []
    assert search_features(workspace, "York New", examples=False).missing_phrases == ("york new",)
    every = search_features(workspace, "New York", examples=False)
    assert every.phrases == ("new york",)
    assert [hit.feature for hit in every.hits][:3] == [AFTER, YORK, BOTH]
    assert len({hit.key for hit in every.hits}) == len(every.hits)


def test_the_reason_of_a_phrase_has_the_counts_of_its_last_word(workspace):
    tokens, acts = planted()
    matches = {match.text: match for match in found(workspace, "New York", "phrase")[1].matches}
    n = int(acts[:, AFTER].sum())
    assert matches[" New York"].n == matches[" New York"].seen == n - (PHRASE_FROM - 1)
    assert matches[" York"].seen == int((tokens == 1).sum())


def test_a_phrase_ends_at_words_only_and_within_its_passage():
    texts = [" New", " York", "shire", ",", "new"]
    codes = np.array([0, 1, 0, 1, 0, 1, 0, 3, 1, 0, 1, 2, 0, 1, 0, 1, 4])
    begins = np.zeros(len(codes), bool)
    begins[5] = True  # York begins another passage: no phrase
    units = Units()
    _, _, phrases = units.read(codes, begins, spell(texts))
    said = ["".join(texts[c] for c in units.pieces[p]) if p >= 0 else None for p in phrases]
    # " York New" and " New York" count from the third on: not after a comma, not over a passage, not within a word
    found = {at: text for at, text in enumerate(said) if text}
    assert found == {6: " York New", 9: " York New", 13: " New York", 14: " York New"}
    again = units.read(np.array([0, 1, 2] * 3), np.zeros(9, bool), spell(texts))[2]
    assert [at for at, p in enumerate(again) if p >= 0] == [5, 6, 8]  # New Yorkshire and its reverse, once before


def test_phrases_do_not_depend_on_blocks(tmp_path):
    tokens, acts = planted()
    features, made = np.broadcast_to(np.arange(N_FEATURES), acts.shape), []
    for block in (300, 12_000):
        index, spelling = TokenIndex(N_FEATURES, tmp_path / "runs"), spell(TEXTS)
        for start in range(0, N, block):
            rows = slice(start, start + block)
            begins = np.arange(start, start + len(tokens[rows])) % CONTEXT == 0
            index.add(acts[rows], features[rows], tokens[rows], begins, spelling)
        index.write(tmp_path / str(block), spelling)
        paths = [tmp_path / str(block) / f"{table}.parquet" for table in ("units", "firings")]
        made.append([Workspace(tmp_path).query("select * from t", t=path).to_pylist() for path in paths])
    assert made[0] == made[1]
    assert any(" " in row["folded"] for row in made[0][0])


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
    """A workspace with an SAE of random directions, d = 64, in bfloat16, and those directions."""
    workspace = Workspace(tmp_path / "v", create=True)
    weights = torch.randn(300, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    draft = Draft.open(workspace.path("sae", "s"), kind="sae", config={}, seed=0)
    save_file({"W_dec": weights}, draft.path / "sae_weights.safetensors")
    made = draft.finish(summary={}, parents={})
    rows = [{"feature": i, "n_fired": 5, "label": f"l{i}", "max_activation": 1.0} for i in range(300)]
    write_features(workspace, "f", rows, dictionary="sae:s", parents={"saes/s": made.content_hash})
    return workspace, weights.float().numpy()


def test_a_vector_finds_the_direction_it_was_made_from(directions):
    workspace, weights = directions
    noise = np.random.default_rng(1).normal(size=64)
    hits = search_vector(workspace, 3 * weights[17] + 0.5 * noise, limit=5).hits
    assert hits[0].feature == 17
    wanted = 3 * weights[17] + 0.5 * noise
    cosine = wanted @ weights[17] / np.linalg.norm(wanted) / np.linalg.norm(weights[17])
    assert hits[0].strength == pytest.approx(cosine, rel=1e-5)
    assert hits[0].p < 1e-20
    assert all((hit.p or 0) > 0.05 for hit in hits[1:])  # random directions, at the null
    assert len(search_vector(workspace, wanted, features="f", min_strength=0.9).hits) == 1


def test_the_chance_of_a_cosine_is_that_of_random_directions():
    rng = np.random.default_rng(0)
    largest = []
    for _ in range(400):
        x = rng.normal(size=(50, 16))
        largest.append((x @ rng.normal(size=16) / np.linalg.norm(x, axis=1)).max())
    x = rng.normal(size=(20_000, 16))
    cosines = x[:, 0] / np.linalg.norm(x, axis=1)
    assert (cosines >= 0.3).mean() == pytest.approx(chance_of_cosine(np.array([0.3]), 16, 1)[0], abs=0.01)
    assert chance_of_cosine(np.array([0.3]), 16, 50)[0] == pytest.approx(
        min(1, 50 * chance_of_cosine(np.array([0.3]), 16, 1)[0])
    )


def test_files_that_hold_no_vector_are_refused_in_one_line(directions, tmp_path):
    workspace, _ = directions
    with pytest.raises(ConfigError, match="has 63 numbers; decoder directions have: f 64"):
        search_vector(workspace, np.ones(63))
    for bad, why in (
        (np.full(64, np.nan), "64 of 64 numbers are NaN"),
        (np.zeros(64), "all zero"),
        (np.ones((2, 64)), "shape"),
    ):
        with pytest.raises(ConfigError, match=why):
            search_vector(workspace, bad)
    path = tmp_path / "x.npy"
    with pytest.raises(MissingError, match="no file"):
        load_vector(path)
    path.write_bytes(b"no array at all")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_vector(path)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ConfigError, match="pickled objects"):
        load_vector(path)
    np.save(path, np.array(["text"]))
    with pytest.raises(ConfigError, match="real numbers"):
        load_vector(path)
    np.save(path, np.ones((3, 4)))
    with pytest.raises(ConfigError, match=r"\[3, 4\]"):
        load_vector(path)
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(ConfigError, match="npz"):
        load_vector(tmp_path / "x.npz")
    np.save(path, np.ones((1, 4), np.float16))
    assert load_vector(path).tolist() == [1, 1, 1, 1]


def test_the_verb_takes_a_vector_and_leaves_with_2_for_a_bad_one(directions, tmp_path, capsys):
    workspace, weights = directions
    np.save(tmp_path / "good.npy", weights[3])
    np.save(tmp_path / "bad.npy", np.ones(5))

    assert main(["search", "--vector", str(tmp_path / "bad.npy"), "--workspace", str(workspace.root)]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert "5 numbers" in said
    Search(vector=tmp_path / "good.npy", workspace=workspace.root, top=2).run()
    shown = capsys.readouterr().out
    assert "like good.npy" in shown
    assert shown.splitlines()[2].split()[:5] == ["l3", "f", "3", "1", "similar"]
    for both in (
        Search(workspace=workspace.root),
        Search(text="x", vector=tmp_path / "good.npy", workspace=workspace.root),
    ):
        with pytest.raises(ConfigError, match="TEXT or --vector"):
            both.run()
