"""What fine-tuning changed is named, and nothing else; models that differ in nothing have no differences."""

from functools import cache

import numpy as np
import pytest
import torch
from architectures import NAMES, new_tiny
from tuned_pair import (
    CONFIG,
    N_WORDS,
    base_model,
    contexts,
    continuations,
    copy_of,
    edited,
    key_prompts,
    plain,
    taught,
    trained,
)

from interp.changes._components import check_comparable, components, head_units, rounded, units, upper_bound, written
from interp.changes._representations import hsic_left_out, representation_changes, stream
from interp.changes.report import (
    directions_for,
    head_changes,
    participation,
    relative_change,
    weight_changes,
    what_changed,
)
from interp.changes.transplant import bound_of_gap, log_prob_of, log_prob_of_answers, transplants
from interp.errors import MismatchError, NonFiniteError, UnknownNameError, UsageError
from interp.geometry.similarity import cka, hsic
from interp.models.small import SmallConfig, build_small

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def mlp_taught():
    return taught_after_training_on(0)


@cache
def taught_after_training_on(seed: int):
    """The base trained on as the nulls were, then taught the facts by layer 1's MLP alone. Shared: read-only."""
    return taught(1, seed, of=trained(copy_of(base_model()), plain, steps=60, lr=3e-4, seed=200 + seed))


TEXTS = {"keys": contexts(32, 9, keys=0.4), "no keys": contexts(32, 9, keys=0.0)}


def answers():
    return log_prob_of_answers(*key_prompts())


# planted truth


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_one_mlp_that_was_trained_is_named_by_weights_stream_and_transplant(layer, seed):
    base, tuned = base_model(), taught(layer, seed)
    found = what_changed(base, tuned, TEXTS, behaviour=answers())
    assert set(found.weights.changed) == {f"L{layer}.mlp.in", f"L{layer}.mlp.out"}
    assert found.representations["keys"].changed == [f"L{i}" for i in range(layer, 3)]
    assert not found.heads.names("own_pattern")
    assert not found.heads.names("own_output")
    assert found.transplants.carried == found.transplants.removed == [f"L{layer}.mlp"]
    moved = found.transplants[f"L{layer}.mlp"]
    assert moved.carried.estimate == pytest.approx(1, abs=1e-5)
    assert moved.removed.estimate == pytest.approx(1, abs=1e-5)
    assert abs(moved.carried_random) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plant_is_told_from_what_training_on_changes_anyway(seed):
    """All weights moved as in four continuations; one MLP also learned the facts."""
    tuned = taught_after_training_on(seed)
    found = what_changed(base_model(), tuned, TEXTS, continuations=continuations(), behaviour=answers())
    assert set(found.weights.changed) == {"L1.mlp.in", "L1.mlp.out"}
    assert min(c.change for c in found.weights.changes) > 0
    assert found.representations["keys"].changed == ["L1", "L2"]
    assert not found.heads.names("own_pattern")
    assert not found.heads.names("own_output")
    assert found.transplants.carried == found.transplants.removed == ["L1.mlp"]
    assert found.transplants["L1.mlp"].carried.estimate > 0.9


def test_the_stream_moves_where_the_facts_are_and_hardly_elsewhere(mlp_taught):
    there, elsewhere = (
        representation_changes(base_model(), mlp_taught, TEXTS[text], continuations=continuations())["L2"]
        for text in ("keys", "no keys")
    )
    assert there.change.low > 3 * elsewhere.change.high
    assert there.cka.estimate < elsewhere.cka.estimate
    assert there.cka_above_null
    assert there.main_share > 2 * there.main_share_base > 0 or there.main_share > 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rank_one_edit_of_one_head_is_named_and_called_of_low_rank(seed):
    base, tuned = base_model(), edited(1, 2, seed)
    moved = weight_changes(base, tuned)
    assert moved.changed == ["L1H2.W_O"]
    assert moved["L1H2.W_O"].low_rank
    assert moved["L1H2.W_O"].rank == pytest.approx(1, abs=1e-4)
    assert moved["L1H2.W_O"].rank_90 == 1
    for nulls in ((), continuations()):
        heads = head_changes(base, tuned, TEXTS["keys"], continuations=nulls)
        assert heads.names("own_output") == ["L1H2"]
        assert not heads.names("own_pattern")
    behind = [f"L2H{i}" for i in range(4)]
    assert set(head_changes(base, tuned, TEXTS["keys"]).names("pattern")) <= set(behind)


def test_a_head_whose_query_was_edited_looks_elsewhere_and_its_score_changes():
    tuned = copy_of(base_model())
    with torch.no_grad():
        tuned.blocks[1].attn.q.original_component.weight[8:16].mul_(-8)
    heads = head_changes(base_model(), tuned, TEXTS["keys"])
    assert heads.names("own_pattern") == ["L1H1"]
    assert heads.names("own_output") == ["L1H1"]
    assert "L1H1" in heads.names("pattern")
    assert all(name.startswith(("L1H1", "L2")) for name in heads.names("pattern") + heads.names("previous_token"))


def test_a_behaviour_that_lives_in_one_head_comes_along_with_it():
    """The edit writes along the answer's unembedding: the head, and no other, carries it."""
    base, tuned = base_model(), copy_of(base_model())
    prompts, answer = key_prompts()
    with torch.no_grad():
        toward = tuned.unembed.original_component.weight[N_WORDS - 1]
        tuned.blocks[2].attn.o.original_component.weight[:, :8] += 3 * torch.outer(toward, torch.ones(8))
        tuned.blocks[2].attn.v.original_component.bias[:8] += 1.0
    behaviour = log_prob_of_answers(prompts, torch.full_like(answer, N_WORDS - 1))
    found = transplants(base, tuned, behaviour)
    heads = [t for t in found.transplants if t.level == "head"]
    assert found.carried[:2] == ["L2.attn", "L2H0"]
    assert [t.name for t in heads if t.changed] == ["L2H0"]
    assert found["L2H0"].carried.estimate == pytest.approx(1, abs=1e-4)
    assert found["L2H1"].carried.estimate == 0


# nothing changed


def test_a_model_against_itself_has_no_difference_at_all():
    base = base_model()
    found = what_changed(base, copy_of(base), TEXTS, behaviour=answers())
    assert all(c.change == 0 and not c.above_null for c in found.weights.changes)
    for each in found.representations.values():
        assert all(
            layer.change == (0, 0, 0) and not layer.above_null and not layer.cka_above_null for layer in each.layers
        )
        assert all(layer.cka.estimate == pytest.approx(1) for layer in each.layers)
    for measure, values in found.heads.value.items():
        assert not values.estimate.any(), measure
        assert not found.heads.above_null[measure].any()
    assert not found.transplants.differ
    assert not found.transplants.carried
    assert not found.transplants.removed
    assert "behave alike" in str(found)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_more_continuation_is_no_discovery(seed):
    tuned = trained(copy_of(base_model()), plain, steps=60, lr=3e-4, seed=300 + seed)
    found = what_changed(base_model(), tuned, TEXTS, continuations=continuations(), behaviour=answers())
    assert found.weights.changed == []
    assert all(not each.changed for each in found.representations.values())
    assert not any(layer.cka_above_null for each in found.representations.values() for layer in each.layers)
    assert not any(found.heads.names(measure) for measure in found.heads.above_null)
    assert not found.transplants.carried


@pytest.mark.slow
def test_false_discoveries_stay_rare_over_many_continuations():
    """Twelve more continuations; every weight, layer and head is a test, 5 % of the families may err."""
    wrong = 0
    for seed in range(12):
        tuned = trained(copy_of(base_model()), plain, steps=60, lr=3e-4, seed=400 + seed)
        moved = weight_changes(base_model(), tuned, continuations=continuations())
        layers = representation_changes(base_model(), tuned, TEXTS["keys"], continuations=continuations())
        heads = head_changes(base_model(), tuned, TEXTS["keys"], continuations=continuations())
        wrong += bool(moved.changed) + bool(layers.changed) + sum(bool(heads.names(m)) for m in heads.above_null)
    assert wrong <= 0.1 * 12 * 7, wrong


# invariants


def shaken(name):
    """An architecture, and a second model of it with other weights everywhere, gains and biases included."""
    one, two = new_tiny(name), new_tiny(name)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for part in components(two):
            for tensor in part.tensors:
                tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    return one, two


@pytest.mark.parametrize("name", NAMES)
def test_all_components_of_a_model_put_into_another_make_it_that_model(name):
    model, other = shaken(name)
    tokens = torch.arange(12).reshape(2, 6)
    mine, theirs = components(model), components(other)
    assert not [part.name for part in mine if part.kind == "other"]
    before, target = model(tokens).detach(), other(tokens).detach()
    assert not torch.allclose(before, target)
    with written(mine, [part.tensors for part in theirs]):
        assert torch.equal(model(tokens), target)
    assert torch.equal(model(tokens), before)
    indices = [i for each in units(mine).values() for i in each]
    assert sorted(indices) == list(range(len(mine)))


@pytest.mark.parametrize("name", NAMES)
def test_one_head_put_into_another_model_is_the_head_that_changed(name):
    """With grouped keys and values those that share them change too."""
    base, other = shaken(name)
    tuned = new_tiny(name)
    mine, theirs = components(tuned), components(other)
    tokens = torch.arange(16 * 10).reshape(16, 10) % 50
    for layer in (0, 1):
        head = head_units(mine, [layer])[f"L{layer}H2"]
        with written([mine[i] for i in head], [theirs[i].tensors for i in head]):
            found = head_changes(base, tuned, tokens, n_prompts=4)
            names = [part.name for part in components(tuned) if part.heads and 2 in part.heads and part.layer == layer]
            assert set(weight_changes(base, tuned).changed) == set(names)
        assert set(found.names("own_output")) == {f"L{layer}H{i}" for i in ((2, 3) if name == "llama-gqa" else (2,))}


def test_weights_come_back_to_the_bit_after_rounding_and_after_an_error():
    model = copy_of(base_model())
    parts = components(model)
    kept = [part.matrix() for part in parts]
    seen = []

    def fail():
        with rounded(model):
            seen.extend(torch.equal(part.matrix(), old) for part, old in zip(parts, kept, strict=True))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not all(seen)
    assert all(torch.equal(part.matrix(), old) for part, old in zip(parts, kept, strict=True))


def test_both_models_are_as_before(mlp_taught):
    base = base_model()
    hashes = [[p.matrix() for p in components(m)] for m in (base, mlp_taught)]
    transplants(base, mlp_taught, answers())
    again = [[p.matrix() for p in components(m)] for m in (base, mlp_taught)]
    assert all(torch.equal(a, b) for x, y in zip(hashes, again, strict=True) for a, b in zip(x, y, strict=True))


def test_a_pass_that_begins_at_the_exchanged_block_gives_what_a_whole_one_does(mlp_taught):
    """In any order of the blocks, of either model, with heads and random changes."""
    behaviour = log_prob_of(TEXTS["keys"])
    how = {"heads": "all", "n_random": 2}
    found = transplants(base_model(), mlp_taught, behaviour, **how)
    plain = transplants(base_model(), mlp_taught, lambda model: behaviour(model), **how)
    assert found.differ
    for one, two in zip(found.transplants, plain.transplants, strict=True):
        assert one.carried.estimate == pytest.approx(two.carried.estimate, abs=1e-5)
        assert one.removed.estimate == pytest.approx(two.removed.estimate, abs=1e-5)
        assert one.carried_bound == pytest.approx(two.carried_bound, abs=1e-5, nan_ok=True)


def test_swapping_the_models_turns_carried_into_removed(mlp_taught):
    there, back = (transplants(a, b, answers()) for a, b in ((base_model(), mlp_taught), (mlp_taught, base_model())))
    for one, two in zip(there.transplants, back.transplants, strict=True):
        assert one.carried.estimate == pytest.approx(two.removed.estimate, abs=1e-4)
        assert one.removed.estimate == pytest.approx(two.carried.estimate, abs=1e-4)


# oracles


def test_the_change_and_its_spectrum_are_numpys():
    base, tuned = base_model(), taught(1, 0)
    moved = weight_changes(base, tuned)["L1.mlp.out"]
    linear = [m.blocks[1].mlp.out.original_component for m in (base, tuned)]
    one, two = (np.vstack([m.weight.detach().numpy().T, m.bias.detach().numpy()]).astype(float) for m in linear)
    s = np.linalg.svd(two - one, compute_uv=False) ** 2
    assert moved.change == pytest.approx(np.linalg.norm(two - one) / max(np.linalg.norm(one), np.linalg.norm(two)))
    np.testing.assert_allclose(moved.spectrum, (s / s.sum())[: len(moved.spectrum)], atol=1e-9)
    assert moved.rank == pytest.approx(s.sum() ** 2 / (s**2).sum())
    assert moved.rank_90 == int((np.cumsum(s / s.sum()) < 0.9).sum()) + 1


def test_random_matrices_have_the_random_rank():
    generator = torch.Generator().manual_seed(0)
    for shape in ((65, 32), (400, 100), (200, 200)):
        power = torch.linalg.svdvals(torch.randn(shape, generator=generator).double()).square()
        expected = shape[0] * shape[1] / (sum(shape) + 1)
        assert participation((power / power.sum()).numpy()) == pytest.approx(expected, rel=0.05)
    assert directions_for(np.array([0.9, 0.1]), 0.9) == 1
    assert relative_change(torch.zeros(2, 2), torch.zeros(2, 2)) == 0
    assert relative_change(torch.zeros(2, 2), torch.ones(2, 2)) == 1


def test_the_stream_is_that_of_run_with_cache_and_cka_is_the_tested_one(mlp_taught):
    from interp.models.adapter import run_with_cache

    tokens = TEXTS["keys"][:8, :9]
    base = base_model()
    values = stream(base, tokens, 1, 3)
    _, cache = run_with_cache(base, tokens, ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_post"])
    torch.testing.assert_close(values[0], cache["blocks.0.hook_resid_pre"][:, 1:])
    torch.testing.assert_close(values[3], cache["blocks.2.hook_resid_post"][:, 1:])
    found = representation_changes(base, mlp_taught, tokens)["L2"]
    one, two = (stream(m, tokens, 1, 8)[3].flatten(0, 1).double() for m in (base, mlp_taught))
    assert found.cka.estimate == pytest.approx(cka(one, two, n_shuffles=1).value, abs=1e-6)
    assert found.change.estimate == pytest.approx(
        float((two - one).square().sum() / (one - one.mean(0)).square().sum()), rel=1e-5
    )
    top = np.linalg.svd((two - one).numpy())[2][0]
    assert abs(top @ found.direction) == pytest.approx(1, abs=1e-6)


def test_leaving_out_each_context_at_once_equals_leaving_it_out():
    rng = np.random.default_rng(0)
    (a, b), context = (rng.normal(size=(2, 12, 12)) + np.eye(12)), np.repeat(np.arange(4), 3)
    a, b = a @ a.T, b @ b.T
    kept = [np.ix_(context != i, context != i) for i in range(4)]
    np.testing.assert_allclose(hsic_left_out(a, b, 4), [hsic(a[each], b[each]) for each in kept], rtol=1e-10)


def test_attention_on_the_bases_stream_is_written_out(mlp_taught):
    from interp.models.adapter import run_with_cache

    tuned = edited(1, 2, 0)
    with torch.no_grad():
        tuned.blocks[1].attn.q.original_component.weight[:8].mul_(3)
    tokens = TEXTS["keys"][:8]
    _, cache = run_with_cache(base_model(), tokens, ["blocks.1.hook_resid_pre", "blocks.1.attn.hook_pattern"])
    heads = head_changes(base_model(), tuned, tokens)
    from interp.models.residual import ResidualStream

    residual = ResidualStream(tuned)
    resid = cache["blocks.1.hook_resid_pre"]
    q, k = (residual.project(1, side, resid) for side in ("q", "k"))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / CONFIG.d_head**0.5
    mask = torch.ones(scores.shape[-2:]).tril().bool()
    pattern = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    expected = (pattern - cache["blocks.1.attn.hook_pattern"]).abs().sum(-1)[..., 1:].mean((0, 2)) / 2
    np.testing.assert_allclose(heads.value["own_pattern"].estimate[1], expected.detach().numpy(), atol=1e-5)


def test_the_bound_holds_for_the_next_draw_as_often_as_it_says():
    """Families of 20 tests whose spreads differ up to five times, and families of one."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 0.5, size=(4000, 1, 20))
    draws = np.exp(rng.normal(size=(4000, 5, 20)) * spread)
    wrong = [(d[4] > upper_bound(d[:4], n_tests=20)).any() for d in draws]
    assert 0 < np.mean(wrong) < 0.05
    alone = [d[4, 0] > upper_bound(d[:4, :1], n_tests=1)[0] for d in draws]
    assert 0.04 < np.mean(alone) < 0.06


# bad input


def test_other_architectures_and_vocabularies_are_refused():
    base = base_model()
    for change, expected in (
        ({"n_layers": 2}, "architectures: n_layers"),
        ({"d_vocab": 41}, "vocabularies: d_vocab"),
        ({"d_mlp": None}, "architectures: d_mlp"),
        ({"act_fn": "relu"}, "act_fn"),
        ({"normalization": "RMS"}, "normalization_type"),
        ({"positions": "rotary"}, "positional"),
    ):
        settings = {f: getattr(CONFIG, f) for f in CONFIG.__dataclass_fields__} | change
        other = build_small(SmallConfig(**settings), seed=0, device="cpu", dtype=torch.float32)
        with pytest.raises(MismatchError, match=expected):
            check_comparable(base, other)


def test_weights_that_are_no_numbers_are_named():
    broken = copy_of(base_model())
    with torch.no_grad():
        broken.blocks[1].attn.k.original_component.weight[9, 3] = torch.nan
    with pytest.raises(NonFiniteError, match=r"L1H1\.W_K of the second"):
        weight_changes(base_model(), broken)


def one_more_each_time():
    """A behaviour whose prompts are not fixed."""
    n_prompts = iter(range(8, 99))
    return lambda model: np.zeros(next(n_prompts))


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda base, t: representation_changes(base, base, t.float()), "int64"),
        (lambda base, t: representation_changes(base, base, t - 9), "got -9 to"),
        (lambda base, t: representation_changes(base, base, t, batch_size=0), "batch_size 0"),
        (lambda base, t: representation_changes(base, base, t, skip=-3), "skip -3"),
        (lambda base, t: transplants(base, base, log_prob_of(t + 30)), "from 0 to 39"),
        (lambda base, t: transplants(base, base, log_prob_of(t.float())), "int64"),
        (lambda base, t: transplants(base, base, log_prob_of_answers(t, t[:, 0] + 40)), "from 0 to 39"),
        (lambda base, t: transplants(base, base, log_prob_of_answers(t, t[:, 0].float())), "int64"),
        (lambda base, t: transplants(base, base, lambda model: [0.0] * 8), "got list"),
        (lambda base, t: transplants(base, base, lambda model: np.full(8, "a")), "real number"),
        (lambda base, t: transplants(base, base, lambda model: torch.zeros(8) * 1j), "complex"),
        (lambda base, t: transplants(base, base, one_more_each_time()), "8 and then 9"),
        (lambda base, t: representation_changes(base, base, t[:1]), "at least 8 contexts"),
        (lambda base, t: head_changes(base, base, t[0]), "at least 8 contexts"),
        (lambda base, t: representation_changes(base, base, t[:, :3]), "5 to 24 tokens"),
        (lambda base, t: representation_changes(base, base, t + 30), "from 0 to 39"),
        (lambda base, t: weight_changes(base, base, continuations=continuations()[:2]), "at least 3"),
        (lambda base, t: transplants(base, base, answers(), n_random=1), "n_random"),
        (lambda base, t: transplants(base, base, log_prob_of(t[:2])), "4 prompts"),
        (lambda base, t: transplants(base, base, lambda model: torch.zeros(2, 2)), "one number per prompt"),
        (lambda base, t: transplants(base, base, lambda model: torch.full((8,), torch.nan)), "NaN|nan|finite"),
        (lambda base, t: log_prob_of_answers(t, torch.zeros(3, dtype=torch.long)), "one answer for each"),
        (lambda base, t: what_changed(base, base, {}), "a text is needed"),
    ],
)
def test_wrong_tokens_and_behaviours_and_too_few_of_them_are_refused(ask, expected):
    with pytest.raises((UsageError, NonFiniteError), match=expected):
        ask(base_model(), TEXTS["keys"])


def test_a_behaviour_may_give_an_array_and_wrong_names_list_the_nearest(mlp_taught):
    base, behaviour = base_model(), answers()
    tensor = transplants(base, mlp_taught, behaviour, heads="none", n_random=2)
    array = transplants(base, mlp_taught, lambda model: behaviour(model).numpy(), heads="none", n_random=2)
    assert str(array.to_records()) == str(tensor.to_records())  # with NaN for parts without a null
    assert not transplants(base, base, lambda model: torch.zeros(8, dtype=torch.bfloat16), heads="none").differ
    with pytest.raises(UnknownNameError, match=r"L1\.mlp"):
        array["L1.mpl"]
    with pytest.raises(UnknownNameError, match="found"):
        transplants(base, base, behaviour, heads="fuond")
    with pytest.raises(UnknownNameError, match="L2"):
        representation_changes(base, base, TEXTS["keys"])["L3"]


# the value


def test_the_value_prints_and_names_what_it_found(mlp_taught):
    steps = []
    found = what_changed(
        base_model(), mlp_taught, TEXTS, continuations=continuations(), names=("before", "after"),
        progress=lambda done, total, info: steps.append((done, total)),
    )  # fmt: skip
    assert "before -> after" in found.table()
    rows = {line.split()[0]: line for line in found.table().splitlines() if line}
    assert {"embed", "L0.attn", "L2.mlp", "unembed"} <= set(rows)
    assert rows["L1.mlp"].count("*") >= 3
    assert "*" not in rows["embed"]
    assert found.weights.changed == ["L1.mlp.out", "L1.mlp.in"]
    assert len(found.weights.changes) == len(components(base_model()))
    assert [d for d, _ in steps] == sorted(d for d, _ in steps)
    assert all(d <= n for d, n in steps)


def test_the_bound_of_a_gap_holds_and_one_null_near_zero_does_not_widen_it():
    gaps = np.random.default_rng(0).normal(size=(2000, 4))
    bounds = np.array([bound_of_gap(row[:3]) for row in gaps])
    assert (np.abs(gaps[:, 3]) > bounds).mean() <= 0.05
    assert np.quantile(bounds, 0.95) < 8  # 250 with a bound of log sizes
    assert bound_of_gap(np.array([0.3, -0.2, 1e-5])) < 1
    assert bound_of_gap(np.array([-0.2])) == pytest.approx(0.4)
