"""Alignment of a variable: a planted subspace is found, a place that lacks it and untrained models show none."""

import json

import pytest
import torch

from interp import load_model
from interp.artifacts import save_artefact
from interp.circuits.aligning import _neurons, _Prompts, _Site, _span, align, swapped_run
from interp.circuits.alignment import LEARNED, Alignment, AlignmentConfig
from interp.circuits.causal_programs import PROGRAMS, CausalProgram, draw_pairs, pairs_from_file
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError, PromptError, UnknownNameError
from interp.models.adapter import untrained_model
from interp.models.passes import capture
from interp.workspace import Workspace
from tests.interp.architectures import tiny

REPEAT = CausalProgram(
    name="repeat",
    variables={"value": lambda v: v["value"], "answer": lambda v: v["value"]},
    prompt="{key} {value} {other} {decoy} {key}",
    draw=lambda pick: {"key": pick("12"), "value": pick("5678"), "other": pick("34"), "decoy": pick("5678")},
)
"""The planted induction model answers with the token that followed the last one before."""
QUICK = AlignmentConfig(pairs=160, ranks=(1, 4), epochs=20, layer_step=1)


@pytest.fixture(scope="module")
def planted() -> Alignment:
    return align(load_model("planted:induction"), REPEAT, "value", QUICK, site=(1, 1), model_name="planted:induction")


def test_a_planted_subspace_is_found(planted: Alignment) -> None:
    """Before block 1 the value's position holds its token and its key; a whole swap exchanges both."""
    learned = planted.of_basis(LEARNED)
    assert planted.settings.rank == 4
    assert planted.solved == 1
    assert min(learned.accuracy, learned.changed, learned.stayed) > 0.85
    assert planted.found
    assert (planted.of_basis("no swap").changed, planted.of_basis("no swap").stayed) == (0, 1)
    right = [row.wanted == row.after_learned for row in planted.pairs.rows()]
    assert sum(right) / len(right) == learned.accuracy


def test_the_map_shows_the_value_where_it_is_read(planted: Alignment) -> None:
    """The embedding at the value's position carries it, those at the others do not."""
    shares = {(row.layer, row.position): row.accuracy for row in planted.sites.rows()}
    assert shares[0, 1] == 1
    assert shares[0, 3] < 0.7
    assert shares[1, 0] < 0.7


def test_the_negative_control_and_untrained_models_show_nothing() -> None:
    config = AlignmentConfig(pairs=96, ranks=(4,), epochs=6, layer_step=2)
    model = load_model("planted:induction")
    assert not align(model, REPEAT, "value", config, site=(1, 3)).found, "the decoy is not the value"
    for seed in range(5):
        untrained = untrained_model(model, seed)
        assert not align(untrained, REPEAT, "value", AlignmentConfig(**vars(config) | {"seed": seed})).found


def test_an_alignment_survives_saving(planted: Alignment, workspace_folder) -> None:
    workspace = Workspace(workspace_folder)
    save_artefact(planted, workspace.path("alignment", "planted"))
    opened = workspace.open(Alignment, "planted")
    assert opened.headline() == planted.headline()
    assert opened.findings()[0].null < 0.75
    assert opened.to_records() == planted.to_records()
    assert "layer 1 at '" in opened.where


def test_a_pair_is_run_again_with_its_swaps(planted: Alignment) -> None:
    model = load_model("planted:induction")
    for number, pair in enumerate(planted.pairs.rows()[:4]):
        run = swapped_run(model, planted, number)
        rows = {row.token: row for row in run.tokens if row.token in "5678"}  # the answers that the map chooses among
        for name, token in (("base", pair.answer), ("whole", pair.after_whole), ("learned", pair.after_learned)):
            if token in rows:
                assert getattr(rows[token], name) == pytest.approx(max(getattr(row, name) for row in rows.values()))
        assert rows[pair.wanted].source > 0.4
        assert pair.wanted in run.headline()
    with pytest.raises(ConfigError, match=r"pairs 0 to 39, got 40"):
        swapped_run(model, planted, 40)
    with pytest.raises(MismatchError, match="other weights"):
        swapped_run(untrained_model(model, 0), planted, 0)


@pytest.mark.parametrize("name", ["llama-gqa", "gemma-2"])
def test_neurons_before_a_site_are_what_its_mlps_write(name: str) -> None:
    model, tokens = tiny(name), torch.arange(1, 13).view(3, 4)
    prompts = _Prompts([], tokens, tokens, [], torch.zeros(1), torch.zeros(3))
    written = _neurons(_Site(model, prompts, model.cfg.n_layers - 1, 3), slice(None))
    assert len(written) == model.cfg.n_layers - 1
    for layer, (acts, directions) in enumerate(written):
        point = f"blocks.{layer}.hook_mlp_out"
        true = capture(model, tokens, [point])[point][:, 3].float()
        parallel = torch.cosine_similarity(acts @ directions, true)
        torch.testing.assert_close(parallel, torch.ones(3), rtol=0, atol=1e-4)
    acts, directions = torch.zeros(4, 6), torch.eye(6, 8)
    acts[:2, 4], acts[:, 1] = 3, 9
    basis = _span([(acts[:, :3], directions[:3]), (acts[:, 3:], directions[3:])], ["a", "a", "b", "b"], 1)
    assert basis[:, 0].abs().tolist() == directions[4].tolist(), "of those that differ, not those that are large"


def test_programs_say_what_a_swap_should_answer() -> None:
    agreement, names = PROGRAMS["agreement"], PROGRAMS["indirect-object"]
    one, many = {"subject": "key", "other": "cars"}, {"subject": "dogs", "other": "car"}
    assert agreement.run(one) == {"number": "singular", "answer": " is"}
    assert agreement.interchanged(one, many, "number") == " are"
    base = {"first": "Mary", "second": "John", "subject": "John", "place": "park", "thing": "ring"}
    source = {"first": "Tom", "second": "Anna", "subject": "Tom", "place": "park", "thing": "key"}
    assert names.run(base)["answer"] == " Mary"
    assert names.interchanged(base, source, "order") == " John", "the order of the source, the names of the base"
    pairs = draw_pairs(agreement, "number", 40)
    assert sum(pair.changes for pair in pairs) == 20
    assert len({(pair.base, pair.source) for pair in pairs}) == 40


def test_bad_input_says_what_to_do(tmp_path) -> None:
    model = load_model("planted:induction")
    with pytest.raises(UnknownNameError, match="'number', 'answer'"):
        draw_pairs(PROGRAMS["agreement"], "gender", 8)
    constant = CausalProgram(
        name="same", variables={"answer": lambda v: "5"}, prompt="{a}", draw=lambda p: {"a": p("12")}
    )
    with pytest.raises(ConfigError, match="always leaves the answer"):
        draw_pairs(constant, "answer", 8)
    with pytest.raises(ConfigError, match="the last variable"):
        CausalProgram(name="none", variables={"number": lambda v: "1"}, prompt="{a}", draw=lambda p: {})
    with pytest.raises(ConfigError, match="got 9:2"):
        align(model, REPEAT, "value", QUICK, site=(9, 2))
    with pytest.raises(MissingError):
        pairs_from_file(tmp_path / "none.jsonl")
    file = tmp_path / "pairs.jsonl"
    row = {"base": "1 2 3 1", "source": "1 5 3 1", "answer": "2", "wanted": "5"}
    file.write_text(json.dumps(row | {"wanted": 5}))
    with pytest.raises(CorruptError, match=r"line 1: lacks wanted"):
        pairs_from_file(file)
    file.write_text("\n".join(json.dumps(row) for _ in range(3)))
    with pytest.raises(ConfigError, match="at least 16 pairs"):
        align(model, pairs_from_file(file))
    longer = [*pairs_from_file(file) * 8]
    longer[3] = type(longer[3])(**vars(longer[3]) | {"source": "1 5 3 1 2"})
    with pytest.raises(PromptError, match="4 tokens and '1 5 3 1 2' 5"):
        align(model, longer)


def test_gradients_reach_only_the_subspace() -> None:
    """The model's own parameters keep their flags and get no gradient."""
    model = load_model("planted:induction")
    before = [p.requires_grad for p in model.parameters()]
    align(model, REPEAT, "value", AlignmentConfig(pairs=32, ranks=(1,), epochs=1), site=(1, 1))
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None or not torch.count_nonzero(p.grad) for p in model.parameters())
