"""One home for nulls: their kinds, counts and words."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from source import nodes

from interp import nulls
from interp.forms import from_json
from interp.nulls import (
    DRAWS,
    NO_EFFECT,
    NULLS,
    NUMERIC_DRAWS,
    NullComparison,
    NullKind,
    can_hold,
    draws_of,
    null_range,
    null_verdict,
    p_from_null,
    smallest_p,
)


def test_every_kind_of_null_has_its_words_and_what_it_holds_fixed():
    assert list(NULLS) == list(get_args(NullKind))
    for kind, null in NULLS.items():
        assert null.fixed
        assert null.one != kind
        assert draws_of(19, kind) == f"19 {kind}"
        assert draws_of(1, kind) == f"1 {null.one}"
        assert draws_of(0, kind) == f"no {kind}"


def test_each_level_allows_a_smaller_p_value():
    for table in (DRAWS, NUMERIC_DRAWS):
        least = [smallest_p(table[level]) for level in ("quick", "standard", "thorough")]
        assert least == sorted(least, reverse=True)
    assert smallest_p(DRAWS["standard"]) == pytest.approx(0.05)


def test_a_value_is_compared_with_each_of_its_nulls():
    both = NullComparison(0.5, {"random directions": [0.1] * 38 + [0.6], "features of like density": [0.1] * 39})
    assert both.p == both.p_by("random directions") == pytest.approx(2 / 40)
    assert both.p_by("features of like density") == both.smallest_p == pytest.approx(1 / 40)
    assert both.verdict() == "beyond both nulls"
    assert both.verdict(0.03) == "not beyond random directions"
    assert both.verdict(0.01) == NO_EFFECT
    assert both.exceeds() == "more than 38 of 39 random directions and 39 of 39 features of like density"


def test_a_null_without_draws_is_left_out_of_a_verdict():
    few = NullComparison(0.5, {"random directions": [0.1] * 4, "features of like density": []})
    assert few.p == few.smallest_p == pytest.approx(1 / 5), "four directions can never give a verdict"
    assert few.verdict() == "not beyond random directions"
    nothing = NullComparison(0.5, {})
    assert (nothing.p, nothing.smallest_p, nothing.verdict()) == (1.0, 1.0, NO_EFFECT)


def test_the_answer_of_a_comparison_is_read_back():
    raw = {"value": 0.5, "draws": {"random latents": [0.1, 0.2]}}
    assert from_json(NullComparison, raw, "an answer") == NullComparison(0.5, {"random latents": [0.1, 0.2]})


def test_words_of_verdicts():
    assert NullComparison(1.0, {"random circuits": [0.0] * 19}).verdict() == "beyond random circuits"
    assert null_range("shuffled labels", "0.51", "0.62") == "shuffled labels 0.51, at most 0.62"
    assert [null_verdict(True), null_verdict(False)] == ["beyond the null", "within the null"]


ROOT = Path(nulls.__file__).parents[1]
MODULES = [
    path
    for package in ("interp", "saes", "dashboard", "workbench")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path != Path(nulls.__file__)
]
COUNTED = re.compile(
    r"(^|_)(random|nulls?|shuffles?|shuffled_maps|permutations?|draws?|deals?|walks|rotations|relabelled|placebos?)$"
)
"""Ends of names that hold a number of draws."""


def defaults(path: Path) -> Iterator[tuple[str, ast.expr | None]]:
    """Names with the expressions that assignments, fields and signatures give to them."""
    for node in nodes(path):
        if isinstance(node, ast.arguments):
            last = [*node.posonlyargs, *node.args][-len(node.defaults) :] if node.defaults else []
            pairs = [*zip(last, node.defaults, strict=True), *zip(node.kwonlyargs, node.kw_defaults, strict=True)]
            yield from ((each.arg, value) for each, value in pairs)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            several = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts, strict=True) if several else [(target, node.value)]
            yield from ((each.id, value) for each, value in pairs if isinstance(each, ast.Name))


def own_counts(path: Path) -> set[str]:
    """Names of a module that hold a number of draws, as a literal above 1."""
    return {
        name
        for name, value in defaults(path)
        if COUNTED.search(name.lower())
        and isinstance(value, ast.Constant)
        and type(value.value) is int
        and value.value > 1
    }


@pytest.mark.source
def test_a_number_of_draws_is_read_from_the_table():
    found = {f"{path.relative_to(ROOT).as_posix()} {name}" for path in MODULES for name in own_counts(path)}
    assert not found, "take a count of interp.nulls"


@pytest.mark.source
def test_the_check_of_counts_sees_constants_fields_and_parameters(tmp_path):
    path = tmp_path / "one.py"
    path.write_text(
        "N_SHUFFLES, OTHER = 20, 3\nclass A:\n    draws: int = 9\ndef f(a=1, *, n_random: int = 2, n_null=N): pass\n"
    )
    assert own_counts(path) == {"N_SHUFFLES", "draws", "n_random"}


@pytest.mark.source
def test_the_level_of_a_test_and_the_words_of_a_verdict_stand_once():
    levels, words = [], []
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        levels += [
            f"{name} {each}"
            for each, value in defaults(path)
            if each in ("ALPHA", "FAMILY_WISE") and isinstance(value, ast.Constant) and value.value == nulls.ALPHA
        ]
        explained = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
        words += [
            f"{name}:{node.lineno}"
            for node in nodes(path)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in explained
            and re.search(rf"({nulls.BEYOND}|{nulls.WITHIN})(?!')", node.value, flags=re.IGNORECASE)
        ]
    assert levels == []
    assert words == []


SPELLED = {"nine": 9, "ten": 10, "nineteen": 19, "twenty": 20, "ninety-nine": 99}
PAGES = [
    *sorted((ROOT / "docs" / "howto").glob("*.md")),
    *sorted((ROOT / "docs" / "explanation").glob("*.md")),
    *sorted((ROOT / "workbench" / "skills").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.py")),
]
STATED = re.compile(
    r"\b(\d[\d,]*|nine|ten|nineteen|twenty|ninety-nine)\s+(?:#\s+)?"
    r"(?:random directions|features\s+of like density|draws of random|draws|null maps|labels of other|other features)",
    flags=re.IGNORECASE,
)


def stated(text: str) -> set[int]:
    """Numbers of draws that a page states."""
    return {SPELLED.get(each.lower()) or int(each.replace(",", "")) for each in STATED.findall(text)}


@pytest.mark.source
def test_pages_state_counts_of_the_table():
    known = {*DRAWS.values(), *NUMERIC_DRAWS.values(), nulls.PER_PART, nulls.SHOWN, nulls.OTHER_LABELS}
    found = {path.name: stated(path.read_text(encoding="utf-8")) for path in PAGES}
    assert {name: counts - known for name, counts in found.items() if counts - known} == {}
    assert sum(map(len, found.values())) >= 6
    assert stated("more than 38 of 39 random directions, ten random directions") == {39, 10}


@pytest.mark.source
def test_the_page_of_scores_has_every_kind_of_null_with_what_it_holds_fixed():
    page = (ROOT / "docs" / "explanation" / "scores.md").read_text(encoding="utf-8")
    assert "".join(f"| {kind} | {null.fixed} |\n" for kind, null in NULLS.items()) in page
    for table in (DRAWS, NUMERIC_DRAWS):
        assert " | ".join(f"{level} {n:,}" for level, n in table.items()) in page


@pytest.mark.parametrize("draws", [9, 19, 79, 99])
def test_a_test_is_open_as_long_as_its_best_continuation_holds(draws):
    for reaching in range(7):
        null = [2.0] * reaching + [0.0] * 3
        best = p_from_null(1.0, null + [0.0] * (draws - len(null)))
        assert can_hold(1.0, null, draws) == (best <= 0.05)
    assert can_hold(1.0, [], draws) == (draws >= 19)
