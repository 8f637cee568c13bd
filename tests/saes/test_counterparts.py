"""Counterparts: planted pairs of features come back, across tokenizers too; shuffled documents leave none."""

import json

import numpy as np
import pytest
import torch
from make_features import write_features
from make_tiny import SPEC, save_tiny_sae
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.dictionary import SparseActs
from interp.models.adapter import bos_token_id
from interp.models.loading import load_model
from interp.models.passes import Capture
from interp.workspace import Workspace
from saes.evaluation.by_word import ActivationsByWord, read_words, words_of
from saes.evaluation.counterparts import SHUFFLED, UNTRAINED, Counterparts
from saes.evaluation.match_by_word import main_forms, pair_features, shuffle_documents
from saes.features.written_labels import HOLDS
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
    scores = [pairs.agreements[i].accuracy.estimate for i in range(N_TOPICS)]
    assert min(scores) > 0.9
    null = [score.accuracy.estimate for score in pairs.null.values()]
    assert np.mean(null) == pytest.approx(0.5, abs=0.05)
    assert max(null) < HOLDS
    assert pairs.n_hold == N_TOPICS, "features that fire at random, or in one document alone, share no label"
    assert (pairs.counterpart[-2:] == -1).all()


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_documents_leave_no_pair(seed):
    mine, theirs, _ = planted()
    shuffled = shuffle_documents(theirs, seed=seed)
    assert shuffled.values.sum() == pytest.approx(theirs.values.sum(), rel=1e-5)
    pairs = pair_features(mine, shuffled, seed=0)
    assert pairs.n_hold == 0
    assert pairs.correlation.max() < 0.3


def test_a_wider_feature_does_not_share_the_label_of_a_narrow_one():
    mine, theirs, order = planted()
    rows = theirs.values.toarray()
    narrow, at = 0, int(np.flatnonzero(order == 0)[0])
    rng = np.random.default_rng(1)
    rows[at] = np.maximum(rows[at], (rng.random(N_WORDS) < 0.1) * 1.0)  # fires on five times as many words
    pairs = pair_features(mine, ActivationsByWord(csr_matrix(rows), theirs.document), seed=0)
    assert narrow not in pairs.agreements or pairs.agreements[narrow].accuracy.estimate < HOLDS


def test_a_word_has_the_largest_activation_of_its_tokens(tmp_path):
    model = load_model(SPEC)
    sae = save_tiny_sae(tmp_path, model)
    documents = [["a", "fox", "and", "hens"], ["hens", "sleep"]]
    read, again = read_words(model, [sae, sae], documents)
    assert (read.values != again.values).nnz == 0
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


def test_the_form_of_a_firing_is_that_of_its_letters_or_its_sign(tmp_path):
    model = load_model(SPEC)
    sae = save_tiny_sae(tmp_path, model)
    (read,) = read_words(model, [sae], [["(Marching,", "array.shape", "foxes"]])
    at = [{read.forms[form - 1][0] for form in read.read[:, word].data} for word in range(3)]
    assert at[0] <= {"march", "(", ","}
    assert at[1] <= {"array", "shape", ".", " "}
    assert at[2] <= {"fox", " "}
    assert "march" in at[0]


LETTERS = "qzxjkv"
WORDS = [f"{letter}{end}" for letter in LETTERS for end in ("am", "in", "o", "un", "ed")] + ["the", "on", "at", "is"]


class TokenTable:
    """A dictionary that reads embeddings: latent `i` is active on the tokens of row `i` of a table."""

    hook_point = "hook_embed"

    def __init__(self, model, table: torch.Tensor):
        self.embedding, self.table = model.W_E.detach().float(), table
        self.d_sae, self.decoder_directions = len(table), torch.eye(len(table))

    def encode_sparse(self, x: torch.Tensor) -> SparseActs:
        token = (x @ self.embedding.T - self.embedding.square().sum(1) / 2).argmax(1)
        values = self.table[:, token].T
        return SparseActs(values, torch.arange(self.d_sae).expand(values.shape))


def test_a_permuted_dictionary_is_found_across_tokenizers():
    """One model reads letters, the other whole words: features of the words with a letter are those of the letter."""
    letters, words = (load_model(SPEC, seed=seed) for seed in (0, 1))
    vocabulary = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["?", *WORDS])}, unk_token="?"))
    vocabulary.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary, unk_token="?")
    order = np.random.default_rng(0).permutation(len(LETTERS))
    by_letter, by_word = torch.zeros(len(LETTERS), 257), torch.zeros(len(LETTERS), 257)
    for row, at in enumerate(order):
        by_letter[row, ord(LETTERS[row])] = 1.0
        by_word[row, [i + 1 for i, word in enumerate(WORDS) if LETTERS[at] in word]] = 2.0
    documents = np.random.default_rng(1).choice(WORDS, (40, 60)).tolist()
    (mine,) = read_words(letters, [TokenTable(letters, by_letter)], documents)
    (theirs,) = read_words(words, [TokenTable(words, by_word)], documents)
    pairs = pair_features(mine, theirs, seed=0)
    assert [int(order[at]) for at in pairs.counterpart] == list(range(len(LETTERS)))
    assert min(pairs.correlation) > 0.99
    assert pair_features(mine, shuffle_documents(theirs, seed=0), seed=0).n_hold == 0
    forms, share = main_forms(theirs, 0)
    assert {form[0] for form in forms} == {LETTERS[order[0]]}, "several words, so more than one word's forms"
    assert share < 0.5
    assert main_forms(mine, 0)[1] == 1, "one letter in many words is one token"


def test_compare_features_pairs_a_dictionary_with_itself(tmp_path, capsys):
    save_tiny_sae(tmp_path / "w", load_model(SPEC))
    workspace = Workspace(tmp_path / "w")
    write_features(workspace, "again", [{"feature": i} for i in range(80)], dictionary="sae:tiny", model=SPEC)
    lines = np.random.default_rng(0).choice(["fox", "hen", "dog", "sleeps", "near", "jumps", "over", "quick"], (40, 60))
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": " ".join(line)}) for line in lines))
    typed = ["compare", "features", "tiny", "again", "--text", str(text), "--workspace", str(workspace.root)]
    assert main(typed) == 0
    made = workspace.open(Counterparts, "tiny-again")
    own, back = made.shares[:2]
    assert own.alike == own.same == own.n == back.alike > 10
    assert made.share(SHUFFLED).same < own.same / 4
    assert made.share(UNTRAINED).same < own.same
    assert all(row.counterpart == row.feature for row in made.pairs.rows("correlation > 0.99"))
    assert "100% of tiny's features have a counterpart in again" in " ".join(capsys.readouterr().out.split())


def test_words_are_cut_at_the_number_asked_for():
    assert words_of(["one two", "", "three four five"], 4) == [["one", "two"], ["three", "four"]]
