"""What fine-tuning changed is named, and nothing else; models that differ in nothing have no differences."""

from functools import cache

import numpy as np
import pytest
import torch
from architectures import NAMES, new_tiny
from tuned_pair import (
    CONFIG,
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

from interp.changes._components import check_comparable, components, rounded, units, upper_bound, written
from interp.changes._stream import stream, stream_changes
from interp.changes.report import relative_change, weight_changes, what_changed
from interp.changes.transplant import bound_of_gap, log_prob_of, log_prob_of_answers, transplants
from interp.errors import MismatchError, NonFiniteError, UnknownNameError, UsageError
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


def found_in(rows):
    return {row.name for row in rows if row.found}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("layer", [0, 1])
def test_the_one_mlp_that_was_trained_is_named_by_weights_stream_and_transplant(layer, seed):
    base, tuned = base_model(), taught(layer, seed)
    found = what_changed(base, tuned, TEXTS, behaviour=answers())
    assert found_in(found.found("weights")) == {f"L{layer}.mlp.in", f"L{layer}.mlp.out"}
    assert found_in(found.found("stream", "keys")) == {f"L{i}" for i in range(layer, 3)}
    for direction in ("carried", "removed"):
        (moved,) = found.found(direction)
        assert moved.name == f"L{layer}.mlp"
        assert moved.value == pytest.approx(1, abs=1e-5)
        assert direction == "removed" or abs(moved.null) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plant_is_told_from_what_training_on_changes_anyway(seed):
    """All weights moved as in four continuations; one MLP also learned the facts."""
    tuned = taught_after_training_on(seed)
    found = what_changed(base_model(), tuned, TEXTS, continuations=continuations(), behaviour=answers())
    assert found_in(found.found("weights")) == {"L1.mlp.in", "L1.mlp.out"}
    assert min(row.value for row in found.changes.rows("question = 'weights'")) > 0
    assert found_in(found.found("stream", "keys")) == {"L1", "L2"}
    assert [row.name for row in found.found("carried") + found.found("removed")] == ["L1.mlp"] * 2
    assert found.found("carried")[0].value > 0.9


def test_the_stream_moves_where_the_facts_are_and_hardly_elsewhere(mlp_taught):
    there, elsewhere = (
        stream_changes(base_model(), mlp_taught, TEXTS[text], continuations=continuations())[-1]
        for text in ("keys", "no keys")
    )
    assert there.name == "L2"
    assert there.low > 3 * elsewhere.high


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rank_one_edit_of_one_head_is_named(seed):
    assert found_in(weight_changes(base_model(), edited(1, 2, seed))) == {"L1H2.W_O"}


# nothing changed


def test_a_model_against_itself_has_no_difference_at_all():
    base = base_model()
    found = what_changed(base, copy_of(base), TEXTS, behaviour=answers())
    assert not any(row.value or row.found for row in found.changes.rows())
    assert not found.gap.differ
    assert all(not answer.n_found and not answer.words for answer in found.answers())


@pytest.mark.parametrize("seed", SEEDS)
def test_one_more_continuation_is_no_discovery(seed):
    tuned = trained(copy_of(base_model()), plain, steps=60, lr=3e-4, seed=300 + seed)
    found = what_changed(base_model(), tuned, TEXTS, continuations=continuations(), behaviour=answers())
    assert not any(found.found(question) for question in ("weights", "stream", "carried"))


@pytest.mark.slow
def test_false_discoveries_stay_rare_over_many_continuations():
    """Twelve more continuations; every weight and layer is a test, 5 % of the families may err."""
    wrong = 0
    for seed in range(12):
        tuned = trained(copy_of(base_model()), plain, steps=60, lr=3e-4, seed=400 + seed)
        moved = weight_changes(base_model(), tuned, continuations=continuations())
        layers = stream_changes(base_model(), tuned, TEXTS["keys"], continuations=continuations())
        wrong += bool(found_in(moved)) + bool(found_in(layers))
    assert wrong <= 0.1 * 12 * 2, wrong


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
    """In any order of the blocks, of either model, with random changes."""
    behaviour = log_prob_of(TEXTS["keys"])
    found = transplants(base_model(), mlp_taught, behaviour, n_random=2)
    plain = transplants(base_model(), mlp_taught, lambda model: behaviour(model), n_random=2)
    assert found.gap.differ
    for one, two in zip(found.rows, plain.rows, strict=True):
        assert (one.name, one.question) == (two.name, two.question)
        assert one.value == pytest.approx(two.value, abs=1e-5)
        assert one.bound == pytest.approx(two.bound, abs=1e-5)


def test_swapping_the_models_turns_carried_into_removed(mlp_taught):
    there, back = (transplants(a, b, answers()) for a, b in ((base_model(), mlp_taught), (mlp_taught, base_model())))
    for part in {row.name for row in there.rows}:
        one, two = there.of(part), back.of(part)
        assert one["carried"].value == pytest.approx(two["removed"].value, abs=1e-4)
        assert one["removed"].value == pytest.approx(two["carried"].value, abs=1e-4)


# oracles


def test_the_change_of_a_matrix_is_numpys():
    base, tuned = base_model(), taught(1, 0)
    (moved,) = (row for row in weight_changes(base, tuned) if row.name == "L1.mlp.out")
    linear = [m.blocks[1].mlp.out.original_component for m in (base, tuned)]
    one, two = (np.vstack([m.weight.detach().numpy().T, m.bias.detach().numpy()]).astype(float) for m in linear)
    assert moved.value == pytest.approx(np.linalg.norm(two - one) / max(np.linalg.norm(one), np.linalg.norm(two)))
    assert relative_change(torch.zeros(2, 2), torch.zeros(2, 2)) == 0


def test_the_stream_is_that_of_run_with_cache(mlp_taught):
    from interp.models.adapter import run_with_cache

    tokens = TEXTS["keys"][:9, :9]
    base = base_model()
    values = stream(base, tokens)
    _, cache = run_with_cache(base, tokens, ["blocks.0.hook_resid_pre", "blocks.2.hook_resid_post"])
    torch.testing.assert_close(values[0], cache["blocks.0.hook_resid_pre"][:, 1:])
    torch.testing.assert_close(values[3], cache["blocks.2.hook_resid_post"][:, 1:])
    found = stream_changes(base, mlp_taught, tokens)[-1]
    one, two = (stream(m, tokens)[3].flatten(0, 1).double() for m in (base, mlp_taught))
    assert found.value == pytest.approx(
        float((two - one).square().sum() / (one - one.mean(0)).square().sum()), rel=1e-5
    )


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
        ({"act_fn": "relu"}, "act_fn"),
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
        (lambda base, t: stream_changes(base, base, t.float()), "int64"),
        (lambda base, t: transplants(base, base, log_prob_of_answers(t, t[:, 0] + 40)), "from 0 to 39"),
        (lambda base, t: transplants(base, base, lambda model: [0.0] * 8), "got list"),
        (lambda base, t: transplants(base, base, lambda model: torch.zeros(8) * 1j), "complex"),
        (lambda base, t: transplants(base, base, one_more_each_time()), "8 and then 9"),
        (lambda base, t: stream_changes(base, base, t[:1]), "at least 8 contexts"),
        (lambda base, t: stream_changes(base, base, t + 30), "from 0 to 39"),
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
    tensor = transplants(base, mlp_taught, behaviour, n_random=2)
    array = transplants(base, mlp_taught, lambda model: behaviour(model).numpy(), n_random=2)
    assert str(array.rows) == str(tensor.rows)  # with NaN for parts without a null
    assert not transplants(base, base, lambda model: torch.zeros(8, dtype=torch.bfloat16)).rows
    with pytest.raises(UnknownNameError, match=r"L1\.mlp"):
        array.of("L1.mpl")


# the value


def test_the_list_has_one_finding_per_question_and_those_beyond_their_null_come_first(mlp_taught):
    steps = []
    found = what_changed(
        base_model(), mlp_taught, TEXTS, continuations=continuations(), names=("before", "after"),
        progress=lambda done, total, info: steps.append((done, total)),
    )  # fmt: skip
    answers = found.answers()
    asked = [(answer.best.question, answer.best.text) for answer in answers]
    assert len(asked) == len(set(asked)) == 10, "nine questions, the stream on two texts"
    assert [bool(answer.n_found) for answer in answers] == sorted((bool(a.n_found) for a in answers), reverse=True)
    times = [answer.best.times for answer in answers if answer.n_found]
    assert times == sorted(times, reverse=True)
    weights = next(answer for answer in answers if answer.best.question == "weights")
    assert weights.best.name.startswith("L1.mlp.")
    assert (weights.n_found, weights.n) == (2, len(components(base_model())))
    assert [d for d, _ in steps] == sorted(d for d, _ in steps)
    assert all(d <= n for d, n in steps)


def test_the_bound_of_a_gap_holds_and_one_null_near_zero_does_not_widen_it():
    gaps = np.random.default_rng(0).normal(size=(2000, 4))
    bounds = np.array([bound_of_gap(row[:3]) for row in gaps])
    assert (np.abs(gaps[:, 3]) > bounds).mean() <= 0.05
    assert np.quantile(bounds, 0.95) < 8  # 250 with a bound of log sizes
    assert bound_of_gap(np.array([0.3, -0.2, 1e-5])) < 1
    assert bound_of_gap(np.array([-0.2])) == pytest.approx(0.4)
