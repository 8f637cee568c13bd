"""Prompts say what is there: no text fakes a mark or ends a turn, and nothing held out is shown."""

import json
import re

import numpy as np
import pytest
from fake_endpoint import excerpts, marked
from hypothesis import given, settings
from hypothesis import strategies as st

from saes.explain._contexts import ActivatedText, split_contexts
from saes.explain.cases import (
    BRACKETS,
    CROP,
    ContextTrial,
    choose_brackets,
    crop,
    cut_requests,
    detection_trials,
    excerpt,
    explanation_prompt,
    fuzzing_trials,
    quote,
    scoring_prompt,
    wrong_marks,
)
from saes.features.schema import QUARTILES

CONTROL = re.compile(r"<\||</?s>|<(?:bos|eos|start_of_turn|end_of_turn)>|\[/?INST\]")
HOSTILE = [
    "<<",
    ">>",
    "<|im_end|>\n",
    '"]',
    "[1, 0, 1]",
    "[INST]",
    "</s",
    "\n2. ",
    "\\",
    "\u2028",
    "|",
    "s>",
    "a",
    " the",
    "⟪",
    "⟫",
]
tokens_and_marks = st.lists(
    st.tuples(st.sampled_from(HOSTILE) | st.text(max_size=4), st.booleans()), min_size=1, max_size=30
)


def context(tokens, activations=None, row=0, group="top") -> ActivatedText:
    return ActivatedText(row, tuple(tokens), tuple(activations or [1.0] + [0.0] * (len(tokens) - 1)), group)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=80, deadline=None)
@given(tokens_and_marks)
def test_marks_can_be_read_back_from_any_text(pairs):
    tokens, marks = [token for token, _ in pairs], [mark for _, mark in pairs]
    opening, closing = choose_brackets([context(tokens)])
    line = excerpt(tokens, marks, opening, closing)
    assert "\n" not in line
    assert not CONTROL.search(line)
    text = json.loads(line)
    assert text.replace(opening, "").replace(closing, "") == "".join(tokens)
    inside = "".join(re.findall(re.escape(opening) + "(.*?)" + re.escape(closing), text, flags=re.DOTALL))
    assert inside == "".join(token for token, mark in pairs if mark)


def test_text_with_every_bracket_gets_a_pair_of_its_own():
    everything = "".join(o + c for o, c in BRACKETS) + "#0(#1("
    assert choose_brackets([context(["plain"])]) == BRACKETS[0]
    assert choose_brackets([context([everything])]) == ("#2(", ")#2")


@pytest.mark.parametrize("label", ['names\n3. "x"', "<|im_end|>", "[1, 1]", "a {n} b"])
def test_a_label_cannot_break_out_of_its_line(label):
    trials = [ContextTrial(context(["a", "b"]), (False, False), True)]
    prompt = scoring_prompt("detection", label, trials)
    assert excerpts(prompt) == ["ab"]
    assert json.loads(re.search(r'fires on: (".*")$', prompt, flags=re.MULTILINE).group(1)) == label
    assert not CONTROL.search(prompt)


def test_activations_are_told_relative_to_the_feature_s_maximum():
    shown = context([" the", " cat", " sat"], [4.0, 0.0, 2.0])
    prompt = explanation_prompt([shown], maximum=8.0)
    assert '" the": 5, " sat": 2' in prompt
    assert marked(prompt) == [[" the", " sat"]]


def test_weak_tokens_beside_a_strong_one_are_not_marked():
    assert context(["a", "b", "c", "d"], [10.0, 2.9, 3.0, 0.0]).marked == (True, False, True, False)
    assert context(["a", "b"], [0.0, 0.0]).marked == (False, False)


def test_control_words_are_broken_and_ordinary_brackets_are_not():
    assert quote("<|x") == '"\\u003c|x"'
    assert quote("if a < b: [INSTANCE] <div>") == '"if a < b: [INSTANCE] <div>"'


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["top", *QUARTILES])), max_size=40), st.integers(0, 9))
def test_nothing_held_out_was_shown(rows, seed):
    contexts = [context([f"{row + i}" for i in range(9)], row=row, group=group) for row, group in rows]
    shown, heldout = split_contexts(contexts, shown=6, heldout=8, generator=rng(seed))
    assert len(shown) <= 6
    assert len(heldout) <= 8
    everything = [*shown, *heldout]
    for i, one in enumerate(everything):
        assert not any(one.overlaps(other) for other in everything[:i])


def test_the_same_words_elsewhere_are_not_held_out():
    same = [context(["x", "y"], row=row, group=group) for row, group in ((0, "top"), (500, "q1"), (900, "q2"))]
    shown, heldout = split_contexts(same, shown=2, heldout=4, generator=rng())
    assert (len(shown), heldout) == (1, [])


def test_shown_and_held_out_contexts_come_from_all_strengths():
    contexts = [
        context([f"{group}{i}"], row=1000 * number + 10 * i, group=group)
        for number, group in enumerate(("top", *QUARTILES))
        for i in range(12 if group == "top" else 5)
    ]
    shown, heldout = split_contexts(contexts, shown=10, heldout=12, generator=rng())
    count = lambda found: {g: sum(c.group == g for c in found) for g in ("top", *QUARTILES)}  # noqa: E731
    assert count(shown) == {"top": 5, "q4": 2, "q3": 1, "q2": 1, "q1": 1}
    assert count(heldout) == {"top": 0, "q4": 3, "q3": 3, "q2": 3, "q1": 3}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 5.0]), min_size=2, max_size=30), st.integers(0, 5))
def test_wrong_marks_lie_on_silent_tokens_and_are_as_many(values, seed):
    if not any(values):
        values[0] = 1.0
    found = wrong_marks(context(["t"] * len(values), values), rng(seed))
    right = context(["t"] * len(values), values).marked
    if found is None:
        assert values.count(0.0) < sum(right)
        return
    assert sum(found) == sum(right)
    assert not any(mark and value > 0 for mark, value in zip(found, values, strict=True))


def test_the_place_of_the_peak_does_not_tell_right_from_wrong():
    whole = context([str(i) for i in range(33)], [0.0] * 16 + [1.0] + [0.0] * 16)
    cropped = [crop(whole, rng(seed)) for seed in range(200)]
    assert {len(c.tokens) for c in cropped} == {33 - CROP}
    places = {c.marked.index(True) for c in cropped}
    assert places == set(range(16 - CROP, 17))
    wrong = [wrong_marks(c, rng(seed)).index(True) for seed, c in enumerate(cropped)]
    assert min(wrong) < min(places)
    assert max(wrong) > max(places)


@pytest.mark.parametrize(("n", "peak"), [(1, 0), (2, 0), (5, 4), (9, 0), (30, 29)])
def test_cropping_keeps_the_peak(n, peak):
    values = [0.0] * n
    values[peak] = 1.0
    for seed in range(20):
        found = crop(context([str(i) for i in range(n)], values), rng(seed))
        assert found.tokens[found.activations.index(1.0)] == str(peak)
        assert len(found.tokens) == max(1, n - CROP)


def test_a_context_meets_a_judge_twice_but_never_in_one_request():
    firing = [context([f"{i}-{j}" for j in range(33)], [0.0] * 16 + [1.0] + [0.0] * 16, row=100 * i) for i in range(11)]
    requests = fuzzing_trials(firing, per_request=4, generator=rng())
    seen: dict[int, list[bool]] = {}
    for request in requests:
        rows = [trial.context.row for trial in request]
        assert len(set(rows)) == len(rows)
        for trial in request:
            seen.setdefault(trial.context.row, []).append(trial.truth)
    assert all(sorted(truths) == [False, True] for truths in seen.values())
    assert len(seen) == 11


@given(st.integers(0, 60), st.integers(1, 9))
def test_requests_hold_every_trial_once_and_are_as_few_as_can_be(n, per_request):
    trials = [ContextTrial(context([str(i)], row=i), (False,), i % 2 == 0) for i in range(n)]
    requests = cut_requests(trials, per_request, rng())
    assert sorted(t.context.row for request in requests for t in request) == list(range(n))
    assert len(requests) == -(-n // per_request)
    assert all(len(request) <= per_request for request in requests)


def test_order_does_not_follow_the_truth():
    firing = [context([str(i)], row=i) for i in range(30)]
    silent = [context([str(i)], [0.0], row=1000 + i, group="random") for i in range(30)]
    first = [detection_trials(firing, silent, per_request=60, generator=rng(seed))[0][0].truth for seed in range(60)]
    assert 15 < sum(first) < 45
