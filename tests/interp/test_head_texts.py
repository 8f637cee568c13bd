"""Head kinds on text: targets are words, controls have the same positions, a planted head is found and no other is."""

import re
from dataclasses import replace
from random import Random

import pytest
import torch
from architectures import blank

from interp.circuits.config import HeadScoresConfig
from interp.circuits.head_kinds import (
    KINDS,
    NAMES,
    NOUNS,
    PREVIOUS,
    HeadPrompts,
    draw_texts,
    ordered_text,
    score_heads,
    targets_of,
)
from interp.errors import ConfigError, MissingError, UnknownNameError
from interp.models.loading import load_model

KIND = "predecessor"


def prompts_of(*pieces: str) -> HeadPrompts:
    tokens = torch.arange(len(pieces))[None]
    return HeadPrompts(tokens, tokens < 0, [list(pieces)])


def test_words_may_have_several_tokens_and_no_space():
    found = prompts_of("", " On", " Wed", "nes", "day", ",", "Thursday", " it's", "_8").words
    assert [(word.text, word.first, word.last) for word in found[0]] == [
        ("On", 1, 1), ("Wednesday", 2, 4), ("Thursday", 6, 6), ("it", 7, 7), ("s", 7, 7), ("8", 8, 8)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["", " Mon", "day", ",", " Tuesday", ".", " Wed", "nesday"], {(3, 2), (5, 4)}),
        ([" Sunday", " then", " Monday", " and", " one", " then", " two"], {(1, 0), (5, 4)}),
        ([" one", " one", ":", " two"], {(2, 0), (2, 1)}),
        ([" Tuesday", " Monday", " twelve", " one", " tenth", " first"], set()),
        ([" Mondays", ",", " Tuesday", " monday", ",", " tuesday"], set()),
    ],
)
def test_the_token_before_a_word_attends_to_the_word_that_it_comes_after(pieces: list[str], expected):
    assert {tuple(each) for each in targets_of(KIND, prompts_of(*pieces))[0].nonzero().tolist()} == expected


@pytest.mark.parametrize("name", ["small:attn-only-1l", pytest.param("smollm2-135m", marks=pytest.mark.real)])
def test_a_control_differs_in_the_words_of_an_order_alone(name: str):
    model = load_model(name)
    prompts, control = draw_texts(model, ordered_text, 6, 101, 3)
    again, _ = draw_texts(model, ordered_text, 6, 101, 3)
    assert torch.equal(prompts.tokens, again.tokens)
    assert not torch.equal(prompts.tokens, draw_texts(model, ordered_text, 6, 101, 4)[0].tokens)
    targets = targets_of(KIND, prompts)
    for row, words in enumerate(prompts.words):
        inside = torch.zeros(101, dtype=torch.bool)
        for word in words:
            if word.text in PREVIOUS or word.text in ("one", "first"):
                inside[word.first : word.last + 1] = True
        same = ~inside
        same[words[-1].first :] = False  # the last word may be cut off
        assert torch.equal(prompts.tokens[row, same], control[row, same])
        assert (prompts.tokens[row, inside] != control[row, inside]).float().mean() > 0.7
        queries, keys = targets[row].nonzero(as_tuple=True)
        assert len(keys) > 1
        assert (keys < queries).all()
        assert inside[keys].all()
    assert not prompts.is_bos[:, 1:].any()


def test_a_text_has_each_order_once_and_its_control_none():
    text, control = ordered_text(Random(0), lambda each: 1, 60)
    words = [word for word in re.findall(r"\w+", text) if word in PREVIOUS]
    assert len(words) == len(set(words)) > 12
    assert not set(re.findall(r"\w+", control)) & set(PREVIOUS)
    assert set(re.findall(r"\w+", control)) & set(NAMES)
    assert set(re.findall(r"\w+", control)) & set(NOUNS)


class WordTokenizer:
    """A tokenizer of whole words with the space before them."""

    bos_token_id, all_special_ids, added_tokens_decoder = 0, (0,), ()

    def __init__(self):
        order = [f" {word}" for word in (*PREVIOUS, "one", "first")]
        self.known = {piece: i for i, piece in enumerate(["<bos>", *order, *(f" {w}" for w in (*NAMES, *NOUNS))])}
        self.of_order, self.listed = slice(1, 1 + len(order)), slice(1, len(self.known))

    def __len__(self) -> int:
        return 256

    def __call__(self, texts: list[str], **_):
        pieces = [re.findall(r" ?\w+|\W", text) for text in texts]
        return {"input_ids": [[self.known.setdefault(piece, len(self.known)) for piece in each] for each in pieces]}

    def decode(self, tokens: list[int], **_) -> str:
        return list(self.known)[tokens[0]]


def planted():
    """One layer: L0H0 attends to the last word of an order, L0H1 to the last item of any list, L0H2 one token back."""
    d, n_ctx = 128, 101
    model = blank(n_layers=1, d_model=4 * d, n_heads=4, d_vocab=256, n_ctx=n_ctx)
    words = WordTokenizer()
    one, order, item, late, at = 0, 1, 2, 3, slice(4, 4 + n_ctx)
    with torch.no_grad():
        model.W_E[:, one] = 1
        model.W_E[words.of_order, order] = n_ctx
        model.W_E[words.listed, item] = n_ctx
        model.W_pos[:, late] = torch.arange(n_ctx).float()
        model.W_pos[:, at] = torch.eye(n_ctx)
        query, key = (getattr(model.blocks[0].attn, side).original_component.weight for side in "qk")
        for head, what in enumerate((order, item)):
            query[head * d, one] = 500
            key[head * d, [what, late]] = 1
        query[2 * d + torch.arange(n_ctx - 1), 5 + torch.arange(n_ctx - 1)] = 500
        key[2 * d + torch.arange(n_ctx - 1), 4 + torch.arange(n_ctx - 1)] = 1
    model.tokenizer = words
    return model


def test_the_planted_head_is_found_and_no_other():
    scores = score_heads(planted(), HeadScoresConfig(n_prompts=8, kinds=(KIND,)))
    assert scores.kinds == [KIND]
    assert scores.above_null[KIND].tolist() == [[True, False, False, False]]
    assert scores.score[KIND][0, 0] == pytest.approx(1, abs=1e-5)
    assert scores.null[KIND][0, 0] < 0.01
    assert scores.null[KIND][0, 1] == pytest.approx(scores.score[KIND][0, 1]), "a list without an order looks the same"
    assert scores.score[KIND][0, 2] > 0.3, "in a list with commas the token before is the word"


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_an_untrained_model_has_no_such_head(seed: int):
    config = HeadScoresConfig(n_prompts=8, seeds=(seed, seed + 10), kinds=(KIND,))
    scores = score_heads(load_model("small:mlp-2l", seed=seed), config)
    assert not scores.above_null[KIND].any(), scores.strongest(KIND)


def test_kinds_are_scored_where_they_are_named():
    model = load_model("small:attn-only-1l")
    config = HeadScoresConfig(n_prompts=3, context_length=61, min_lag=5, max_lag=15, seeds=(0,))
    default = score_heads(model, config)
    assert default.kinds == [kind for kind in KINDS if KINDS[kind].text is None]
    both = score_heads(model, replace(config, kinds=(KIND, "induction")))
    assert both.kinds == ["induction", KIND]
    assert both.of_kind("induction") == default.of_kind("induction")
    assert both.of_kind(KIND) == score_heads(model, replace(config, kinds=(KIND,))).of_kind(KIND)


def test_texts_that_cannot_be_made_are_refused():
    with pytest.raises(MissingError, match="no tokenizer"):
        score_heads(load_model("planted:induction"), HeadScoresConfig(context_length=20, kinds=(KIND,)))
    with pytest.raises(ConfigError, match="no target within 12 tokens"):
        score_heads(load_model("small:attn-only-1l"), HeadScoresConfig(context_length=12, kinds=(KIND,)))
    with pytest.raises(UnknownNameError, match="predecessor"):
        HeadScoresConfig(kinds=("predecesor",))
    with pytest.raises(ConfigError, match="no control word has the 99 tokens"):
        ordered_text(Random(0), lambda each: 99 if each[1:] in PREVIOUS else 1, 9)


@pytest.mark.real
def test_smollm2_has_heads_that_attend_to_the_word_before_in_an_order():
    scores = score_heads(load_model("smollm2-135m"), HeadScoresConfig(n_prompts=8, seeds=(0,), kinds=(KIND,)))
    assert scores.above_null[KIND][21, 2]
    assert scores.null[KIND][21, 2] < 0.1 < 0.25 < scores.score[KIND][21, 2]
