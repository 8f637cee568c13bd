"""Labels that travel: planted pairs of features, the nulls, and words read by two tokenizers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from make_features import write_features
from make_tiny import SPEC, save_tiny_sae
from scipy.sparse import csr_matrix

from interp.models.adapter import bos_token_id
from interp.models.loading import load_model
from interp.models.passes import Capture
from interp.workspace import Workspace
from saes.explain.carried import ActivationsByWord, pair_features, word_activations, words_of
from saes.features.schema import Features
from saes.features.written_labels import HOLDS, Labels
from workbench.__main__ import main

N_WORDS, N_DOCUMENTS, N_TOPICS = 6000, 60, 12


def planted(seed: int = 0) -> tuple[ActivationsByWord, ActivationsByWord, np.ndarray]:
    """Return two dictionaries that share topics, the second in another order, and that order.

    Each topic is on 2 % of the words; a firing is missed in 5 % of them. The last two features of both fire in one
    document alone, and the two before at random.
    """
    rng = np.random.default_rng(seed)
    document = np.repeat(np.arange(N_DOCUMENTS), N_WORDS // N_DOCUMENTS)
    topics = rng.random((N_TOPICS, N_WORDS)) < 0.02
    order = rng.permutation(N_TOPICS)
    sides = []
    for rows in (topics, topics[order]):
        fires = rows & (rng.random(rows.shape) > 0.05)
        chance = rng.random((2, N_WORDS)) < 0.02
        alone = np.tile(document == 4, (2, 1)) & (rng.random((2, N_WORDS)) < 0.5)
        values = np.concatenate([fires, chance, alone]) * rng.uniform(0.5, 1.0, (N_TOPICS + 4, N_WORDS))
        sides.append(ActivationsByWord(csr_matrix(values.astype(np.float32)), document))
    return sides[0], sides[1], order


@pytest.mark.parametrize("seed", range(3))
def test_planted_pairs_are_found_and_hold(seed):
    mine, theirs, order = planted(seed)
    pairs = pair_features(mine, theirs, seed=0)
    assert [int(order[i]) for i in pairs.counterpart[:N_TOPICS]] == list(range(N_TOPICS))
    scores = [pairs.scores[i].accuracy.estimate for i in range(N_TOPICS)]
    assert min(scores) > 0.9
    null = [score.accuracy.estimate for score in pairs.null.values()]
    assert np.mean(null) == pytest.approx(0.5, abs=0.05)
    assert max(null) < HOLDS
    assert pairs.n_hold == N_TOPICS, "features that fire at random, or in one document alone, share no label"
    assert (pairs.counterpart[-2:] == -1).all()


def test_shifted_words_leave_no_pair():
    mine, theirs, _ = planted()
    shift = np.roll(np.arange(N_WORDS), N_WORDS // 2)
    assert pair_features(mine, ActivationsByWord(theirs.values[:, shift], theirs.document), seed=0).n_hold == 0


def test_a_wider_feature_does_not_share_the_label_of_a_narrow_one():
    mine, theirs, order = planted()
    rows = theirs.values.toarray()
    narrow, at = 0, int(np.flatnonzero(order == 0)[0])
    rng = np.random.default_rng(1)
    rows[at] = np.maximum(rows[at], (rng.random(N_WORDS) < 0.1) * 1.0)  # fires on five times as many words
    pairs = pair_features(mine, ActivationsByWord(csr_matrix(rows), theirs.document), seed=0)
    assert narrow not in pairs.scores or pairs.scores[narrow].accuracy.estimate < HOLDS


def test_a_word_has_the_largest_activation_of_its_tokens(tmp_path):
    model = load_model(SPEC)
    sae = save_tiny_sae(tmp_path, model)
    documents = [["a", "fox", "and", "hens"], ["hens", "sleep"]]
    read = word_activations(model, sae, documents)
    assert read.values.shape == (80, 6)
    assert read.document.tolist() == [0, 0, 0, 0, 1, 1]
    bos = bos_token_id(model)
    start = [] if bos is None else [bos]
    tokens = torch.tensor([start + list(b"a fox and hens")])
    with torch.no_grad(), Capture(model, [sae.hook_point]) as capture:
        acts = sae.encode(capture(tokens)[sae.hook_point].float())[0, len(start) :]
    spans = [(0, 1), (1, 5), (5, 9), (9, 14)]
    largest = torch.stack([acts[low:high].amax(0) for low, high in spans], 1)
    torch.testing.assert_close(torch.from_numpy(read.values.toarray()[:, :4]), largest, atol=1e-5, rtol=1e-4)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Features `tiny`, and `named`: the same dictionary with written labels."""
    save_tiny_sae(tmp_path / "w", load_model(SPEC))
    made = Workspace(tmp_path / "w")
    rows = [
        {"feature": i, "label": f"label {i}", "label_kind": "written", "label_source": "a reader"} for i in range(80)
    ]
    write_features(made, "named", rows, dictionary="sae:tiny", model=SPEC)
    words = np.random.default_rng(0).choice(["fox", "hen", "dog", "sleeps", "near", "jumps", "over", "quick"], (40, 60))
    lines = [json.dumps({"text": " ".join(line)}) for line in words]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    return made


def test_a_dictionary_gives_itself_its_own_labels(workspace, tmp_path, capsys):
    words = ["explain", "tiny", "--like", "named", "--text", str(tmp_path / "text.jsonl"), "--into", "tiny-named"]
    assert main([*words, "--workspace", str(workspace.root)]) == 0
    labels = workspace.open(Labels, "tiny-named")
    rows, scores = list(labels.labels.rows()), list(labels.scores.rows())
    assert len(rows) > 10
    assert all(row.label == f"label {row.feature}" for row in rows)
    assert {score.accuracy for score in scores} == {1.0}
    assert (
        f"{len(rows)} of {len(rows)} labels carried from named hold; with the words shifted 0"
        in capsys.readouterr().out
    )
    adopted = workspace.open(Features, "tiny-named").features.arrow()
    kinds = adopted["label_kind"].to_pylist()
    assert [kinds[row.feature] for row in rows] == ["written"] * len(rows)
    assert adopted["label_source"][rows[0].feature].as_py() == "a reader, carried from named"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--like", "tiny", "--text", "FILE"], "tiny has no written labels"),
        (["--like", "named", "--neuronpedia", "x"], "got 2"),
        (["--like", "named"], "name one with --text"),
        (["--like", "named", "--text", "FILE", "--n-words", "100"], "choose a text with more"),
    ],
)
def test_what_cannot_be_carried_is_said(workspace, tmp_path, words, says, capsys):
    words = [str(tmp_path / "text.jsonl") if word == "FILE" else word for word in words]
    assert main(["explain", "tiny", *words, "--workspace", str(workspace.root)]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


def test_words_are_cut_at_the_number_asked_for():
    assert words_of(["one two", "", "three four five"], 4) == [["one", "two"], ["three", "four"]]
