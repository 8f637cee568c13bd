"""The induction circuit: found where it is known to be, exactly; not found where it is known not to be."""

import numpy as np
import pytest
import torch

from interp.artifacts import as_json
from interp.circuits._induction_measure import (
    DirectEdges,
    direct_logit_changes,
    draw_induction_prompts,
)
from interp.circuits.config import InductionConfig
from interp.circuits.induction import find_induction_circuit
from interp.errors import ConfigError
from interp.models.adapter import run_with_cache, untrained_model
from interp.models.passes import storing_hook
from interp.models.toys import planted_copying, planted_induction
from interp.names import HeadName, parse_node
from interp.patching.paths import PathPatcher
from tests.interp.architectures import tiny

QUICK = InductionConfig(prompts_per_seed=6)


@pytest.fixture(scope="module")
def planted():
    config = InductionConfig(lag=16, prompts_per_seed=4)
    return find_induction_circuit(planted_induction(), config, name="planted:induction")


@pytest.fixture(scope="module")
def trained(induction_toy):
    return find_induction_circuit(induction_toy, QUICK, name="toy:induction-2l")


def test_planted_circuit_has_the_exact_numbers(planted):
    strict, tl, previous = planted.scores.mean(-1).transpose(2, 0, 1)
    assert strict[1, 0] == pytest.approx(31 / 32, abs=1e-6)  # without BOS one query's attention is split in two
    assert previous[0, 0] == pytest.approx(1, abs=1e-5)
    assert tl[1, 0] < strict[1, 0]  # the stripe counts a query that has no match yet
    composed = {row.via: row.score for row in planted.composition.rows("source = 'L0H0' and target = 'L1H0'")}
    assert composed["k"] == pytest.approx(0.25, abs=1e-12)
    assert max(composed["q"], composed["v"]) < 2e-8
    test = planted.tests[HeadName(1, 0)]
    assert test.k.mean() > 0.9
    assert max(np.abs(test.q).max(), np.abs(test.v).max()) < 1e-6
    assert next(row for row in planted.verdicts if row.layer == 1).ov_eigenvalue == pytest.approx(1)


def test_planted_circuit_is_the_known_one(planted):
    circuit = planted.circuit
    assert planted.verdict.holds
    assert {node.name: node.role for node in circuit.nodes} == {
        "L0H0": "previous_token", "L1H0": "induction", "logits": None,
    }  # fmt: skip
    assert [(e.source, e.target, e.via) for e in circuit.edges] == [("L0H0", "L1H0", "k"), ("L1H0", "logits", None)]
    assert "Holm" in planted.verdict.rule


def test_trained_toy_shows_all_lines_of_evidence(trained):
    assert trained.verdict.holds
    assert len(trained.induction) >= 2
    senders = set(trained.induction.values())
    assert len(senders) == 1
    sender = senders.pop()
    assert sender.layer == 0
    verdicts = {row.name: row for row in trained.verdicts}
    assert max((row.previous_token, row.head) for row in verdicts.values() if row.layer == 0)[1] == sender.head
    strongest = {row.target: row.source for row in trained.composition.rows("via = 'k' and is_argmax")}
    for head in trained.induction:
        test = trained.tests[head]
        assert test.k.mean() > 0.4 * test.clean.mean()
        assert np.abs([test.q.mean(), test.v.mean()]).max() < 0.05
        assert strongest[str(head)] == str(sender)
        assert verdicts[head].ov_eigenvalue > 0.9
        assert verdicts[head].ov_top1 > 0.7
    losses = {row.via: row.loss_second_half for row in trained.paths.rows("sender = ?", str(sender))}
    assert losses["k"] > 1.5
    assert max(losses["q"], losses["v"]) < 0.2


def test_trained_toy_is_redundant_and_its_first_half_does_not_care(trained):
    assert trained.redundancy.group > 2 * trained.redundancy.sum_of_singles
    assert {"L0H0", "induction heads", "senders"} <= {row.group for row in trained.ablations.rows()}
    [row] = trained.ablations.rows('"group" = ?', "induction heads")
    assert row.low > 2
    assert abs(row.loss_first_half) < 0.2


def nothing(model, **settings):
    config = InductionConfig(**{"prompts_per_seed": 6, **settings})
    found = find_induction_circuit(model, config)
    assert not found.verdict.holds, found.verdict.reason
    assert found.circuit.nodes == ()
    assert found.circuit.edges == ()
    assert found.verdict.reason


def test_one_layer_twin_has_none(one_layer_toy):
    nothing(one_layer_toy)


@pytest.mark.parametrize("lags", [{}, {"lag": 16}])
def test_copying_by_position_is_no_induction_at_any_lag(fixed_period_toy, lags):
    nothing(fixed_period_toy, **lags)


def test_copying_by_another_route_is_no_induction():
    nothing(planted_copying())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_models_have_none(induction_toy, seed):
    nothing(untrained_model(induction_toy, seed))


@pytest.mark.parametrize("name", ["native-rms", "gpt2", "llama-gqa", "neox"])
def test_random_models_of_every_architecture_have_none(name, monkeypatch):
    # models built in a test have no name to be made anew from; they are untrained themselves
    monkeypatch.setattr("interp.models.adapter.untrained_model", lambda model, seed: model)
    nothing(tiny(name), context_length=16)


@pytest.mark.parametrize("name", ["native-ln", "llama-gqa", "neox"])
@torch.no_grad()
def test_direct_edges_are_those_of_path_patching(name):
    model = tiny(name)
    prompts = draw_induction_prompts(model, InductionConfig(prompts_per_seed=3), 0)
    edges, sender = DirectEdges(model, prompts, [1]), HeadName(0, 2)
    for side in ("k", "q"):
        found = edges.scores(1, side, [edges.difference(sender)])[0]
        patcher = PathPatcher(model, [str(sender)], [(1, None, side)], "frozen")
        seen: dict = {}
        patcher.run(
            prompts.tokens, {parse_node(str(sender)): edges.corrupt_z[0][:, :, 2]},
            hooks=[("blocks.1.attn.hook_pattern", storing_hook(seen, "pattern"))],
        )  # fmt: skip
        expected = torch.einsum("bhx,bx->hb", seen["pattern"].flatten(2), prompts.weights[..., 0])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        assert float((found - edges.clean(1)).abs().max()) > 1e-5


@pytest.mark.parametrize("name", ["native-ln", "native-raw", "llama-gqa", "neox"])
@torch.no_grad()
def test_direct_outputs_are_those_of_path_patching(name):
    model = tiny(name)
    prompts = draw_induction_prompts(model, InductionConfig(prompts_per_seed=3), 0)
    found = direct_logit_changes(model, prompts, [0, 1])
    clean = model(prompts.tokens)
    for head in (HeadName(0, 2), HeadName(1, 1)):
        _, cache = run_with_cache(model, prompts.unrepeated, [f"blocks.{head.layer}.attn.hook_z"])
        other = cache[f"blocks.{head.layer}.attn.hook_z"][:, :, head.head]
        patched = PathPatcher(model, [str(head)], ["logits"], "frozen").run(
            prompts.tokens, {parse_node(str(head)): other}
        )
        for row, (lag, tokens) in enumerate(zip(prompts.lags.tolist(), prompts.tokens, strict=True)):
            reads = range(prompts.start + lag, len(tokens) - 1)
            assert all(tokens[q + 1] == tokens[q + 1 - lag] for q in reads), "the next token is known there"
            change = (patched - clean)[row]
            expected = np.mean([float(change[q, tokens[q + 1]] - change[q].mean()) for q in reads])
            assert float(found[head.layer, head.head, row]) == pytest.approx(expected, abs=2e-5)


@torch.no_grad()
def test_all_that_the_planted_model_says_is_what_its_head_writes():
    """Nothing else writes to the logits: with its direct path replaced the model says what it says of that prompt."""
    model, config = planted_induction(), InductionConfig(lag=16, prompts_per_seed=4)
    prompts = draw_induction_prompts(model, config, 1)
    found = direct_logit_changes(model, prompts, [1])[0, 0]
    for row, tokens in enumerate(prompts.tokens):
        reads = torch.arange(16, 31)
        clean, other = (model(which[row : row + 1])[0, reads] for which in (prompts.tokens, prompts.unrepeated))
        change = (other - clean).gather(1, tokens[reads + 1, None])[:, 0] - (other - clean).mean(1)
        assert float(found[row]) == pytest.approx(float(change.mean()), rel=1e-5)


def test_edges_into_the_logits_tell_their_effect_in_logits(planted):
    edge = next(edge for edge in planted.circuit.edges if edge.target == "logits")
    assert edge.score is None, "the other edges' scores are changes of the induction score"
    assert edge.evidence.logit_effect < -80, "100 for the right one of 16 tokens, less what chance finds"


def test_induction_heads_of_the_trained_toy_argue_for_the_next_token(trained):
    edges = [edge for edge in trained.circuit.edges if edge.target == "logits"]
    assert len(edges) == len(trained.induction)
    for edge in edges:
        assert edge.evidence.high < 0, "taken away, the logit falls"
        assert edge.evidence.low <= edge.evidence.logit_effect <= edge.evidence.high


def test_twins_keep_a_token_and_change_the_one_before():
    prompts = draw_induction_prompts(planted_induction(), QUICK, 3)
    tokens, (even, odd) = prompts.tokens, prompts.corrupted
    own = prompts.merge_corrupted(even, odd)
    assert (own == tokens).all()
    before = prompts.merge_corrupted(even.roll(1, 1), odd.roll(1, 1))[:, 1:]
    assert (before != tokens[:, :-1]).all()


@torch.no_grad()
def test_scores_are_the_textbook_ones(induction_toy, trained):
    prompts = draw_induction_prompts(induction_toy, QUICK, QUICK.seeds[0])
    _, cache = run_with_cache(induction_toy, prompts.tokens, ["blocks.1.attn.hook_pattern"])
    pattern = cache["blocks.1.attn.hook_pattern"]
    for row, lag in enumerate(prompts.lags.tolist()):
        tokens = prompts.tokens[row].tolist()
        per_query = []
        for q in range(len(tokens)):
            matches = [k for k in range(1, q + 1) if tokens[k - 1] == tokens[q]]
            if matches:
                per_query.append(sum(float(pattern[row, 2, q, k]) for k in matches))
        assert trained.scores[1, 2, 0, row] == pytest.approx(np.mean(per_query), abs=1e-5)
        stripe = pattern[row, 2].diagonal(1 - lag).mean()
        assert trained.scores[1, 2, 1, row] == pytest.approx(float(stripe), abs=1e-5)


def test_result_does_not_depend_on_the_batches():
    runs = [
        find_induction_circuit(planted_induction(), InductionConfig(prompts_per_seed=5, batch_size=size))
        for size in (2, 5)
    ]
    assert runs[0].circuit == runs[1].circuit
    for one, other in zip(*(run.tests.values() for run in runs), strict=True):
        np.testing.assert_allclose(one.k, other.k, atol=1e-5)
        np.testing.assert_allclose(one.controls, other.controls, atol=1e-5)


def test_seeds_are_all_that_is_random():
    config = InductionConfig(seeds=(4, 5), prompts_per_seed=4)
    a, b = (find_induction_circuit(planted_induction(), config) for _ in range(2))
    assert as_json(a.circuit) == as_json(b.circuit)
    np.testing.assert_array_equal(a.scores, b.scores)


def test_progress_goes_up_to_the_end():
    seen = []
    config = InductionConfig(prompts_per_seed=4)
    find_induction_circuit(planted_induction(), config, progress=lambda done, total, info: seen.append(done / total))
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize("settings", [{"seeds": (0,)}, {"seeds": (1, 1)}, {"prompts_per_seed": 1}])
def test_settings_that_prove_nothing_are_refused(settings):
    with pytest.raises(ConfigError):
        InductionConfig(**settings)


def test_prompts_longer_than_the_context_are_refused():
    with pytest.raises(ConfigError, match="context"):
        find_induction_circuit(planted_induction(), InductionConfig(context_length=40))
