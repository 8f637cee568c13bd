"""Rankings of `benchmarks.routes` by known answers: hand-made attention, and the route of `planted:induction`."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.route_rankings import between_words, contributions, rankings, rollout_flow
from benchmarks.route_swaps import Wording, rank_of, read_pairs
from benchmarks.routes import all_edges_table, false_table, picks, svg, swap_table
from interp.models.loading import load_model
from interp.routes.cut import clean_run
from tests.interp.architectures import tiny


def test_the_list_has_sixty_pairs_in_six_kinds_and_every_wording_has_the_word_once() -> None:
    pairs = read_pairs()
    kinds = [pair.kind for pair in pairs]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("facts", "agreement", "names", "opposites", "idioms", "code"), 10
    )
    assert all(text.count("{}") == 1 for pair in pairs for text in pair.wordings)
    assert len({frozenset(pair.words) for pair in pairs}) == 60


def test_rollout_through_each_edge_sums_to_the_rollout() -> None:
    draw = torch.Generator().manual_seed(0)
    patterns = torch.rand(4, 3, 6, 6, generator=draw).tril()
    patterns /= patterns.sum(-1, keepdim=True)
    whole = torch.linalg.multi_dot([0.5 * torch.eye(6) + 0.5 * each for each in patterns.mean(1).flip(0)])
    torch.testing.assert_close(rollout_flow(patterns).sum(0)[:-1], whole[-1, :-1])


def test_rollout_follows_a_chain() -> None:
    """0 is read by 1 in the first layer, 1 by 2 in the second: all that 0 tells 2 goes by 1."""
    first, second = torch.eye(3), torch.eye(3)
    first[1], second[2] = torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0])
    flow = rollout_flow(torch.stack([first, second])[:, None])
    assert flow[:, 0].tolist() == [0, 0.25, 0]
    assert flow[:, 1].tolist() == [0, 0, 0.25]


@pytest.mark.parametrize("name", ["llama-gqa", "gemma-3"])
def test_the_terms_of_contributions_sum_to_the_residual_after_attention(name: str, monkeypatch: Any) -> None:
    """Each share is at most 1 in a layer, those of a row together too; the terms are the model's own sum."""
    model = tiny(name)
    run = clean_run(model, torch.randint(1, 50, (1, 7), generator=torch.Generator().manual_seed(1)), joined=False)
    shares = contributions(run)
    assert (shares >= 0).all()
    assert (shares.sum(-1) <= run.n_layers).all()
    assert shares.triu(1).abs().max() == 0
    sums: list[torch.Tensor] = []
    clamp = torch.Tensor.sum

    def seen(value: torch.Tensor, *of: Any, **more: Any) -> torch.Tensor:
        if of == ((0, 1),):
            sums.append(clamp(value, *of))
        return clamp(value, *of, **more)

    monkeypatch.setattr(torch.Tensor, "sum", seen)
    contributions(run)
    monkeypatch.undo()
    added = torch.stack(sums).unflatten(0, (run.n_layers, -1))
    names = [f"blocks.{layer}.hook_attn_out" for layer in range(run.n_layers)]
    _, cache = model.run_with_cache(run.tokens, names_filter=names)
    for layer, at in enumerate(names):
        torch.testing.assert_close(added[layer], cache[at][0], atol=1e-4, rtol=1e-4)


def test_the_edge_of_the_induction_head_is_found_by_cuts_and_by_what_flows_to_the_end() -> None:
    """Token 4, said before, is read by the last. The next token attends to it as much, and passes nothing on."""
    run = clean_run(load_model("planted:induction"), torch.tensor([[0, 15, 5, 4, 3, 13, 1, 15, 5, 4]]), joined=False)
    source = next(i for i, word in enumerate(run.words) if word.start == 4)
    scores = rankings(run, [(source, word) for word in range(source + 1, len(run.words))])
    for name in ("cut", "cut, KL", "rollout", "last word"):
        assert int(np.argmax(scores[name])) == len(run.words) - source - 2
    first, *_, last = scores["attention, largest"]
    assert first > 0.9 < last
    assert scores["cut"][-1] > 5 > 1e-3 > abs(scores["cut"][0])


def test_an_edge_is_carried_over_by_its_word_and_else_from_the_end() -> None:
    def wording(texts: str, source: int) -> Wording:
        run = SimpleNamespace(texts=texts.split(), words=[range(i, i + 1) for i in range(len(texts.split()))])
        return Wording(cast(Any, run), source, {}, 0, aligned=False)

    one, two = wording("the city of France is named", 3), wording("in France the is a town is", 1)
    assert [one.carried_over(two, word) for word in (4, 5)] == [6, 6]
    assert wording("a b c d e f", 0).carried_over(two, 1) == 2
    assert wording("a b c d e f g", 0).carried_over(two, 1) == 2


def test_equal_scores_share_a_place() -> None:
    assert [rank_of([3.0, 1.0, 3.0, 2.0], at) for at in range(4)] == [1.5, 4, 1.5, 3]


def test_words_of_several_tokens_are_summed_over_the_source_and_averaged_over_the_destination() -> None:
    run = SimpleNamespace(positions=lambda source, destination: (range(2, 4), range(0, 2)))
    matrix = torch.arange(16.0).reshape(4, 4)
    assert float(between_words(cast(Any, run), matrix, 0, 1)) == (8 + 9 + 12 + 13) / 2


def test_the_tables_count_what_the_rows_say() -> None:
    row = {
        "kind": "facts", "edges": 3, "shares": [0.1, 0.9, 0.3], "flips": [False, True, False], "whole_flips": True,
        "two": 1.0, "two_flips": True, "rest": 0.4, "rest_flips": False, "null": [0.2, 0.5], "other_words": [],
        "chosen": {"swap": 1, "cut": 2}, "chosen_here": {"swap": 1, "cut": 1}, "carried": [0, 1, 2],
        "edges_of_all": 10, "rank_of_all": {"cut": 2.0},
    }  # fmt: skip
    table = swap_table([row])
    assert (table["one edge"][0], table["flips"], table["above all nulls"]) == (0.9, 1, 1)
    assert picks([row], "cut", "chosen") == ([0.0], [0.3])
    assert picks([row], "random", "chosen") == ([pytest.approx(1 / 3)], [pytest.approx(1.3 / 3)])
    table = all_edges_table([row])
    assert (table["cut"]["first 1"][0], table["cut"]["first 3"][0], table["random"]["first 3"][0]) == (0, 1, 0.3)
    words = [{"strength": 2.0, "null": 1.0, "words": []}, {"strength": 0.5, "null": 1.0, "words": []}]
    assert false_table(words)["beyond the null"][:2] == [1, 0.5]
    assert svg([{"model": "m", "rows": [row]}]).count("<circle") == 2
