"""Readings of activations: a planted attribute is read, copies of the prompt and untrained models add nothing."""

import json
import random
import string
from dataclasses import replace

import pytest
import torch

from interp.artifacts import Draft, as_json, save_artefact
from interp.errors import ConfigError, CorruptError, MissingError, PromptError, UnknownNameError
from interp.lenses.judge_readings import ReadingKind, _ridge, judge_readings, other_positions, reading_kinds
from interp.lenses.judged_readings import JudgedReadings, ReadingsConfig
from interp.lenses.patchscope import patchscope, target_tokens
from interp.lenses.reading_positions import ReadPositions, positions_of_corpus, positions_of_file
from interp.models.adapter import untrained_model
from interp.models.hooked import HookedModel
from interp.models.passes import capture
from interp.models.small import SmallConfig, build_small
from interp.models.toys import planted_induction
from interp.workspace import Workspace
from tests.interp.architectures import ALL_NAMES, tiny

N, LAST = 80, "blocks.1.hook_resid_post"
COPY = "blocks.0.hook_resid_post"
CONFIG = ReadingsConfig(positions=N, target_prompts=("{}",), new_tokens=1, n_words=1, repeats=1)


def prompts(seed: int = 0) -> ReadPositions:
    """Return texts of distinct letters that end by an earlier one: the letter after that one is the attribute."""
    rng, texts = random.Random(seed), []
    for _ in range(N):
        letters = rng.sample(string.ascii_lowercase, 14)
        texts.append([256, *map(ord, [*letters, letters[rng.randrange(2, 12)]])])
    return ReadPositions("corpus:letters", texts, torch.arange(N), torch.full((N,), 15))


@pytest.fixture(scope="module")
def model() -> HookedModel:
    return planted_induction(d_vocab=257, n_ctx=48)


@pytest.fixture(scope="module")
def judged(model: HookedModel) -> JudgedReadings:
    return judge_readings(model, prompts(), reading_kinds(model, CONFIG), [COPY, LAST], CONFIG, model_name="planted")


def test_a_patchscope_reads_the_planted_attribute(model: HookedModel, judged: JudgedReadings) -> None:
    """After block 1 the residual stream holds the letter that followed; before, the letters of the prompt alone."""
    positions = prompts()
    rows = positions.activations(model, [LAST])[LAST]
    truth = [chr(text[text.index(text[-1]) + 1]) for text in positions.texts]
    assert patchscope(model, rows, LAST, "{}", n_new=1) == truth
    row = judged.score("patchscope '{}'", LAST)
    assert row is not None
    assert row.shown
    assert row.adds > 0.1
    assert row.shuffled == pytest.approx(row.empty, abs=0.05)
    assert {example.kind for example in judged.examples.rows()} == {"patchscope '{}'", "logit lens"}
    assert {example.hook_point for example in judged.examples.rows()} == {LAST}, "examples are of kinds that pass"


def test_a_copy_of_the_prompt_is_no_reading(model: HookedModel, judged: JudgedReadings) -> None:
    """Before block 1 a patchscope copies the last letter: far above shuffled and empty, it adds nothing."""
    row = judged.score("patchscope '{}'", COPY)
    assert row is not None
    assert row.above_nulls_low > 0.2
    assert row.adds < 0.01
    assert not row.shown
    positions = prompts()
    words = ["".join(map(chr, text[1:])) for text in positions.texts]
    own = ReadingKind("explanations", lambda point, rows, done: words)
    copied = judge_readings(model, positions, [own], [COPY, LAST], CONFIG)
    assert not copied.passed
    assert all(row.above_nulls_low > 0.05 for row in copied.rows), "the words of the prompt do predict the activation"
    assert "not shown as a reading" in copied.details()[0]
    assert copied.headline().startswith("0 of 1 kinds")


@pytest.mark.parametrize("seed", range(5))
def test_an_untrained_model_has_no_readings(model: HookedModel, seed: int) -> None:
    untrained = untrained_model(model, seed)
    kinds = reading_kinds(untrained, CONFIG)
    assert not judge_readings(untrained, prompts(seed), kinds, [LAST], replace(CONFIG, seed=seed)).passed


@pytest.mark.parametrize("name", ALL_NAMES)
def test_a_patchscope_sets_the_activation_in_every_architecture(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target prompt's own activation changes nothing; others give the token of a pass in which they are set."""
    model, at = tiny(name), 5
    tokens = torch.tensor([[7, 3, 9, 11, 20, 4]])
    monkeypatch.setattr("interp.lenses.patchscope.target_tokens", lambda *_: (tokens, at))
    own = capture(model, tokens, [COPY])[COPY][0, at : at + 1]
    empty = patchscope(model, None, COPY, n_new=3)
    assert patchscope(model, own, COPY, n_new=3) == empty
    rows = 3 * torch.randn(16, model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    set_to = torch.zeros(16, tokens.shape[1], model.cfg.d_model)
    set_to[:, at] = rows
    mask = torch.arange(tokens.shape[1])[:, None] == at
    hook = (COPY, lambda value, hook: torch.where(mask, set_to, value))
    with torch.no_grad():
        expected = model.run_with_hooks(tokens.expand(16, -1), fwd_hooks=[hook])[:, -1].argmax(-1)
    assert patchscope(model, rows, COPY, n_new=1, batch_size=5) == [str(int(token)) for token in expected]
    assert len({*expected.tolist()}) > 1


def test_a_target_prompt_marks_its_token(model: HookedModel) -> None:
    tokens, at = target_tokens(model, "ab; {} cd")
    assert bytes(tokens[0, 1:].tolist()) == b"ab; ? cd"
    assert chr(int(tokens[0, at])) == "?"


def test_shuffled_readings_come_from_the_same_document() -> None:
    documents = torch.tensor([0] * 3 + [1] * 2 + [2, 3, 4])
    others = other_positions(documents, torch.Generator().manual_seed(1))
    assert (others != torch.arange(8)).all()
    assert sorted(others.tolist()) == list(range(8))
    assert (documents[others][:5] == documents[:5]).all()


def test_ridge_predictions_are_those_of_the_primal_form(model: HookedModel) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6).double(), torch.randn(40, 3).double()
    train, test = torch.arange(30), torch.arange(30, 40)
    inside, target = x[train] - x[train].mean(0), y[train] - y[train].mean(0)
    size = inside.square().sum(1).mean()
    for strength, found in zip((0.1, 10.0), _ridge(x @ x.T, y, train, test, (0.1, 10.0)), strict=True):
        weights = torch.linalg.solve(inside.T @ inside + strength * size * torch.eye(6), inside.T @ target)
        torch.testing.assert_close(found, y[train].mean(0) + (x[test] - x[train].mean(0)) @ weights)


def test_readings_survive_saving_and_resume(model: HookedModel, judged: JudgedReadings, workspace_folder) -> None:
    workspace = Workspace(workspace_folder)
    folder, seen = workspace.path("readings", "planted"), []

    def broken(point: str, rows: torch.Tensor, done: object) -> list[str]:
        seen.append(point)
        raise KeyboardInterrupt

    def draft(settings: object) -> Draft:
        return Draft.open(folder, kind="readings", config=as_json(settings), seed=0)

    kinds = reading_kinds(model, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        judge_readings(
            model, prompts(), [kinds[0], replace(kinds[1], read=broken)], [COPY, LAST], CONFIG,
            model_name="planted", draft=draft,
        )  # fmt: skip
    again = [replace(kinds[0], read=broken), kinds[1]]
    resumed = judge_readings(model, prompts(), again, [COPY, LAST], CONFIG, model_name="planted", draft=draft)
    assert seen == [COPY], "readings that were made are not made again"
    assert resumed.to_records() == judged.to_records()
    save_artefact(resumed, folder, seed=0, draft=draft(resumed.settings))
    opened = workspace.open(JudgedReadings, "planted")
    assert opened.headline() == judged.headline()
    assert opened.findings()[0].null < opened.findings()[0].value


def test_files_and_corpora_give_positions(tmp_path) -> None:
    model = build_small(
        SmallConfig(n_layers=1, d_model=16, n_heads=2, d_vocab=257, n_ctx=64), seed=0, device="cpu", dtype=torch.float32
    )
    file = tmp_path / "mine.jsonl"
    with pytest.raises(MissingError, match="text, position and explanation"):
        positions_of_file(model, file)
    rows = [{"text": f"text {i // 2}", "explanation": f"about {i}", "position": 3} for i in range(40)]
    file.write_text("\n".join(map(json.dumps, rows)))
    positions = positions_of_file(model, file)
    assert (len(positions.texts), len(positions.text), positions.source) == (20, 40, "file:mine.jsonl")
    assert positions.prompts[2] == [256, *b"tex"]
    for wrong, why in (
        ({"text": "a"}, "explanation"),
        (rows[0] | {"position": 0}, "1 to 6, got 0"),
        (rows[0] | {"position": "end"}, "position"),
        ([1], "object"),
    ):
        file.write_text(json.dumps(rows[0]) + "\n" + json.dumps(wrong))
        with pytest.raises(CorruptError, match=why) as error:
            positions_of_file(model, file)
        assert "line 2" in str(error.value)
    file.write_text(json.dumps({"text": "x" * 100, "explanation": ""}))
    with pytest.raises(PromptError, match=r"line 1: .*10[01] tokens"):
        positions_of_file(model, file)
    file.write_bytes(b'{"text": "\xe9"}')
    with pytest.raises(CorruptError, match="not UTF-8"):
        positions_of_file(model, file)
    file.write_text(json.dumps({"text": "two\u2028lines", "explanation": ""}, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(ConfigError, match="a score needs 32"):
        positions_of_file(model, file)
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"a text of words, number {i}"}) for i in range(30)))
    drawn = positions_of_corpus(model, str(texts), ReadingsConfig(positions=40, per_document=2, context_length=20))
    assert len(drawn.text) == 40
    assert int(drawn.text.bincount().max()) == 2
    assert int(drawn.at.min()) >= 4
    assert {len(text) for text in drawn.texts} == {20}


def test_bad_input_says_what_to_do(model: HookedModel) -> None:
    def never(point: str, rows: torch.Tensor, done: object) -> list[str]:
        raise AssertionError(point)

    rows = torch.zeros(1, model.cfg.d_model)
    with pytest.raises(PromptError, match=r"has one \{\}"):
        patchscope(model, rows, LAST, "cat -> cat")
    with pytest.raises(PromptError, match="exceed the model's context"):
        patchscope(model, rows, LAST, "{}", n_new=60)
    with pytest.raises(UnknownNameError):
        judge_readings(model, prompts(), reading_kinds(model, CONFIG), ["blocks.9.hook_resid_post"], CONFIG)
    with pytest.raises(ConfigError, match="hook_z is not one vector"):
        judge_readings(model, prompts(), reading_kinds(model, CONFIG), ["blocks.0.attn.hook_z"], CONFIG)
    with pytest.raises(ConfigError, match="labels exist at blocks"):
        judge_readings(model, prompts(), [ReadingKind("labels", never, (COPY,))], [LAST], CONFIG)
    with pytest.raises(ConfigError, match=r"one \{\}"):
        ReadingsConfig(target_prompts=("no",))
