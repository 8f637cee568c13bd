"""Heads over a text: planted heads of every kind are found, untrained ones not, sums equal loops, runs resume."""

import re
from dataclasses import replace
from functools import cache
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from architectures import blank
from test_head_texts import WordTokenizer

from interp.artifacts import save_artefact
from interp.circuits._text_sums import TextRead, TextSums
from interp.circuits.head_kinds import NAMES, NOUNS, PREVIOUS, SMALLEST_FOUND, HeadPrompts
from interp.circuits.heads_in_text import PER_DOCUMENT, HeadsInText, HeadsInTextConfig
from interp.circuits.measure_heads import measure_heads
from interp.circuits.text_kinds import TEXT_KINDS, TextKind, keys_where
from interp.errors import ConfigError, CorruptError, UnknownNameError
from interp.models.adapter import token_strings, untrained_model
from interp.models.passes import capture
from interp.names import HeadName
from interp.workspace import Workspace
from workbench.__main__ import main

KINDS = tuple(TEXT_KINDS)
LENGTH = 48


def targets(kind: str, text: str) -> set[tuple[str, str]]:
    """Return the (query, key) pairs of a kind on a text split at spaces, with their positions."""
    pieces = ["", *re.findall(r" ?\w+|\W", text)]
    tokens = torch.tensor([[list(dict.fromkeys(pieces)).index(piece) for piece in pieces]])
    prompts = HeadPrompts(tokens, torch.arange(len(pieces))[None] == 0, [pieces])
    found = TEXT_KINDS[kind].targets(prompts)[0].nonzero().tolist()
    return {(f"{pieces[q].strip()}{q}", f"{pieces[k].strip()}{k}") for q, k in found if q}


def test_the_targets_of_each_kind_on_text():
    story = " Then Mary met Tom. Mary left, and Tom gave"
    #        1    2    3   4  5 6    7   8 9   10  11
    assert targets("duplicate_name", story) == {("Mary6", "Mary2"), ("Tom10", "Tom4")}
    moved = targets("name_mover", story)
    assert {key for query, key in moved if query == "gave11"} == {"Mary2", "Tom4", "Mary6", "Tom10"}
    assert not any(query.startswith(("Mary", "Tom")) for query, _ in moved)
    assert {key for query, key in targets("s_inhibition", story) if query == "gave11"} == {"Mary6", "Tom10"}
    assert {key for query, key in targets("delimiter", story) if query == "gave11"} == {".5", ",8"}
    assert targets("last_number", " in 12 and seven or so") == {
        ("and3", "122"), ("seven4", "122"), ("or5", "seven4"), ("so6", "seven4")
    }  # fmt: skip
    assert {key for _, key in targets("successor", " on Monday we ran")} == {"Monday2"}
    assert targets("verb_subject", " Often he really was seen, then they, would be that I saw it, she and had") == {
        ("was4", "he2")
    }, "a comma and a clause stand between"
    assert not targets("duplicate_name", " He left. She left. He ran. I sat on Monday. Monday"), "openers and days"


@cache
def text() -> tuple[torch.Tensor, torch.Tensor]:
    """Sixty contexts of a document each, with names, days, numbers, punctuation and repeats."""
    draw, words = Random(0), WordTokenizer()
    rows = []
    for _ in range(60):
        a, b = draw.sample(NAMES, 2)
        days = draw.sample([*PREVIOUS], 3)
        nouns = draw.choices(NOUNS, k=4)
        story = f" then {a} met {b} on {days[0]}, he often was {nouns[0]} "
        story += f"{draw.randint(2, 9)} {nouns[1]}. and {a} they saw the {nouns[2]} "
        story += f"{days[1]}, {b} then {nouns[3]} and {draw.randint(2, 9)} then {days[2]}. {a} met {nouns[0]} of {b}"
        rows.append([0, *words([story * 2])["input_ids"][0][: LENGTH - 1]])
        if len(words.known) > 250:
            raise AssertionError("the vocabulary is full")
    tokens = torch.tensor(rows)
    documents = torch.arange(60)[:, None].expand(-1, LENGTH).clone()
    documents[:, 0] = -1
    _PIECES.update(words.known)
    return tokens, documents


_PIECES: dict[str, int] = {}


@cache
def planted():
    """One layer: a head of each kind by its pattern and its OV circuit, one that attends to all, and one two back."""
    text()
    n, d, vocab = len(KINDS) + 2, 64, 256
    model = blank(n_layers=1, d_model=n * d, n_heads=n, d_vocab=vocab, n_ctx=LENGTH)
    words = WordTokenizer()
    words.known = dict(_PIECES) | {f"other {i}": i for i in range(len(_PIECES), 256)}
    model.tokenizer = words
    texts = {i: piece for piece, i in words.known.items()}
    shift = torch.eye(vocab)
    for after, before in PREVIOUS.items():
        row = shift[words.known[f" {before}"]]
        row.zero_()
        row[words.known[f" {after}"]] = 1
    maps = {"copies": torch.eye(vocab), "suppresses": -torch.eye(vocab), "succeeds": shift}
    attention = model.blocks[0].attn
    value, output = (getattr(attention, side).original_component.weight for side in "vo")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.W_E[:, :vocab] = torch.eye(vocab)
        model.unembed.original_component.weight[:, :vocab] = torch.eye(vocab)
        for head, kind in enumerate(TEXT_KINDS.values()):
            if kind.writes not in maps:
                continue
            rows, frame = slice(head * d, (head + 1) * d), torch.randn(vocab, d, generator=generator)
            value[rows, :vocab] = frame.T
            output[:vocab, rows] = (frame.T @ maps[kind.writes]).T
    plain = model.run_with_hooks

    def pattern(scores: torch.Tensor, hook: object) -> torch.Tensor:
        batch = SEEN["tokens"]
        if batch.shape[1] != LENGTH:  # a token alone
            return scores
        is_bos = torch.zeros_like(batch, dtype=torch.bool)
        is_bos[:, 0] = True
        prompts = HeadPrompts(batch, is_bos, [["", *(texts[i] for i in row[1:])] for row in batch.tolist()])
        masks = [kind.targets(prompts) & ~is_bos[:, :, None] for kind in TEXT_KINDS.values()]
        masks.append(torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().expand(len(batch), -1, -1))
        masks.append(torch.ones(LENGTH - 2, dtype=torch.bool).diag(-2).expand(len(batch), -1, -1))
        weights = torch.stack(masks, 1).float()
        weights[..., 0] += 1e-3  # to BOS where there is no target
        return weights / weights.sum(-1, keepdim=True)

    SEEN: dict[str, torch.Tensor] = {}

    def run(value: torch.Tensor, fwd_hooks: list, **options):
        SEEN["tokens"] = value
        return plain(value, fwd_hooks=[("blocks.0.attn.hook_pattern", pattern), *fwd_hooks], **options)

    object.__setattr__(model, "run_with_hooks", run)
    return model


@cache
def found():
    return measure_heads(planted(), *text(), seed=1)


def test_planted_heads_of_every_kind_are_found():
    for head, kind in enumerate(KINDS):
        assert kind in found().found(HeadName(0, head)), kind
    assert found().found(HeadName(0, len(KINDS))) == [], "a head that attends to all alike"
    two_back = next(row for row in found().of_kind("verb_subject") if row.head == len(KINDS) + 1)
    assert min(two_back.low - two_back.shuffled, two_back.elsewhere) > 0.9
    assert not two_back.found, "its control scores as much"


def test_a_kind_that_writes_is_not_found_by_attention_alone():
    """The S-inhibition head attends to names like the name mover; without its output it is none, and no successor."""
    silent = HeadName(0, KINDS.index("s_inhibition"))
    assert not {"name_mover", "successor", "copy_suppression"} & set(found().found(silent))
    mover = found().row(HeadName(0, KINDS.index("name_mover")))
    assert mover.copies > 3 > mover.copies_null
    assert found().row(HeadName(0, KINDS.index("copy_suppression"))).copies < -3


@pytest.mark.parametrize("seed", range(5))
def test_untrained_models_have_none(seed: int):
    assert not any(measure_heads(untrained(seed), *text(), seed=seed + 10).counts().values())


def untrained(seed: int):
    text()
    model = untrained_model(blank(n_layers=2, d_model=64, n_heads=4, d_vocab=256, n_ctx=LENGTH), seed)
    model.tokenizer = WordTokenizer()
    model.tokenizer.known = dict(_PIECES) | {f"other {i}": i for i in range(len(_PIECES), 256)}
    return model


def test_sums_equal_loops_and_shuffled_keys_equal_their_mean():
    model, (tokens, documents) = untrained(3), text()
    tokens, documents = tokens[:9], documents[:9]
    kinds = {name: TEXT_KINDS[name] for name in ("sink", "same_token", "delimiter")}
    ids = tokens.unique().tolist()
    read = TextRead(tokens, documents, dict(zip(ids, token_strings(model, ids), strict=True)), kinds)
    sums = TextSums(model, read)
    for start in (0, 4, 8):
        sums.add(slice(start, min(start + 4, 9)))
    state, prompts = sums.state, read.prompts(slice(0, 9))
    pattern = capture(model, tokens, ["blocks.1.attn.hook_pattern"])["blocks.1.attn.hook_pattern"][:, 2].double()
    masks = [kind.targets(prompts) for kind in kinds.values()]
    expected, shuffled, generator = np.zeros(3), np.zeros(3), torch.Generator().manual_seed(0)
    received = torch.zeros(len(read.token_ids) + 1, dtype=torch.float64)
    for context in range(9):
        for query in range(1, LENGTH):
            row = pattern[context, query, : query + 1]
            for i, mask in enumerate(masks):
                target = mask[context, query, : query + 1]
                expected[i] += float(row[target].sum())
                if i and target.any():
                    draws = [row[1:][torch.randperm(query, generator=generator)][target[1:]].sum() for _ in range(40)]
                    shuffled[i] += float(torch.stack(draws).mean())
            for key in range(1, query + 1):
                received[read.rows_of(slice(context, context + 1), read.prompts(slice(context, context + 1)))[0, 0, key]] += row[key]  # fmt: skip  # noqa: E501
    values = state["values"].sum(0)[4 + 2]
    np.testing.assert_allclose(values[:3], expected, rtol=1e-4)
    np.testing.assert_allclose(values[4:6], shuffled[1:], rtol=0.05)
    torch.testing.assert_close(state["items"][1 : len(received), 6, 0].double(), received[1:], rtol=1e-4, atol=1e-4)
    strongest = pattern[:, 1:, 1:].amax((1, 2)).sort(descending=True).values
    torch.testing.assert_close(state["strength"][6, :9].double(), strongest, rtol=1e-5, atol=1e-6)


def test_examples_are_spread_over_documents_and_point_at_their_key(tmp_path):
    result = save_artefact(found(), Workspace(tmp_path).path("heads_in_text", "planted"))
    examples = result.examples_of(HeadName(0, KINDS.index("duplicate_name")))
    assert len(examples) == 20
    for example, passage, attention in examples:
        assert passage.pieces[example.query] == passage.pieces[example.key] != ""
        assert attention[0, example.key] == pytest.approx(example.strength, abs=1e-3)
        assert attention[1, example.query] == pytest.approx(example.strength, abs=1e-3)
    counts = np.unique([example.document for example, _, _ in examples], return_counts=True)[1]
    assert counts.max() <= PER_DOCUMENT
    words = result.words_of(HeadName(0, KINDS.index("name_mover")))
    assert {word.text for word in words if word.side == "key word"} <= set(NAMES)
    [writes] = [word.tokens for word in result.words_of(HeadName(0, KINDS.index("successor"))) if word.side == "ov"][:1]
    key = next(word.text.strip() for word in words if word.side == "ov")
    assert key in NAMES
    assert writes[0].strip() in PREVIOUS
    assert "gives" in result.silent(HeadName(0, KINDS.index("sink")))
    with pytest.raises(UnknownNameError):
        result.examples_of(HeadName(3, 0))


def test_a_kind_of_ones_own_is_a_function_of_tokens():
    own = {"then": TextKind(lambda prompts: keys_where(prompts, lambda piece: piece == " then"))}
    result = measure_heads(untrained(0), *text(), kinds=own)
    assert result.settings.kinds == ("then",)
    assert result.of_kind("then")[0].score == pytest.approx(result.of_kind("then")[0].shuffled, abs=SMALLEST_FOUND)


def test_an_interrupted_run_continues_to_the_same_numbers(tmp_path):
    model, (tokens, documents) = untrained(2), text()
    draft = SimpleNamespace(path=tmp_path, update=lambda **_: None)

    def stop(done: int, total: int, facts: object) -> None:
        if done >= 24:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("interp.circuits.measure_heads.SAVE_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            measure_heads(model, tokens, documents, draft=lambda _: draft, progress=stop)
        done: list[int] = []
        again = measure_heads(model, tokens, documents, draft=lambda _: draft, progress=lambda at, *_: done.append(at))
    whole = measure_heads(model, tokens, documents)
    assert done[0] == 32
    assert again.scores == whole.scores or np.allclose(
        [row.score for row in again.scores], [row.score for row in whole.scores], equal_nan=True
    )
    assert [vars(row) for row in again.examples.rows()] == [vars(row) for row in whole.examples.rows()]


def test_a_short_text_is_refused():
    tokens, documents = text()
    with pytest.raises(ConfigError, match="at least 8 contexts, this text has 3 of 48 tokens"):
        measure_heads(untrained(0), tokens[:3], documents[:3])
    with pytest.raises(ConfigError, match="at least 8 tokens"):
        HeadsInTextConfig(text_context=4)


def test_the_verb_reads_a_file_and_a_recording_and_refuses_both(tmp_path, capsys):
    words = ("Anna", "met", "Tom", "in", "1984", "and", "left,", "then", "Anna", "came.")
    draw = Random(1)
    (tmp_path / "text.txt").write_text("\n\n".join(" ".join(draw.choices(words, k=60)) for _ in range(12)))
    options = ["small:attn-only-1l", "--workspace", str(tmp_path / "w"), "--text-context", "32"]
    file = ["--text", str(tmp_path / "text.txt")]
    assert main(["heads", *options, *file, "--text-tokens", "1500"]) == 0
    result = Workspace(tmp_path / "w").open(HeadsInText, "small-attn-only-1l")
    assert result.settings.contexts == 47
    assert result.settings.documents == 1, "each context counts as a document then"
    assert result.row(HeadName(0, 0)).entropy < 1
    assert "47 contexts; heads by kind: " in capsys.readouterr().out
    assert main(["record", "small:attn-only-1l", *options[1:3], "--tokens", "2000", "--context-length", "32",
                 "--hook-points", "blocks.0.hook_resid_post", "--name", "mine"]) == 0  # fmt: skip
    assert main(["heads", *options, "--recording", "mine", "--text-tokens", "1500", "--name", "recorded"]) == 0
    assert Workspace(tmp_path / "w").open(HeadsInText, "recorded").settings.source == "recordings/mine"
    for wrong, says in (
        ([*file, "--recording", "mine"], "give one of them"),
        ([*file, "--text-tokens", "100", "--name", "short"], "take a longer text"),
    ):
        assert main(["heads", *options, *wrong]) != 0
        assert says in capsys.readouterr().err


def test_scores_of_a_kind_that_the_settings_lack_are_damage() -> None:
    planted = found()
    damaged = replace(planted, settings=replace(planted.settings, kinds=planted.settings.kinds[1:]))
    with pytest.raises(CorruptError, match="settings lack"):
        damaged.counts()
