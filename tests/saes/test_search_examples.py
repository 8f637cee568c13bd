"""The example that a hit shows, queries that are odd, and dense features."""

import pytest
from make_features import write_features

from interp.workspace import Workspace
from saes import search_features
from saes.features._example import shown_examples


def test_the_example_shown_has_the_query_else_a_related_word_else_is_the_strongest(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    tokens = [[" on", " chess"], [" chess", " club"], [" a", " game"], [" plain", " text"]]
    examples = [
        {"feature": f, "tokens": tokens[t], "activations": [0.0, 1.0], "peak": 1, "rank": rank}
        for f, of_feature in enumerate(([3, 0], [3, 1, 2], [3, 2], [3]))
        for rank, t in enumerate(of_feature)
    ]
    made = write_features(workspace, "f", [{"feature": i} for i in range(4)], examples)
    shown = shown_examples(workspace, made, [0, 1, 2, 3], {"chess": 1}, {"game": 1})
    assert shown[0].tokens == (" on", " chess")
    assert shown[0].marked == (1,)
    assert shown[1].tokens == (" chess", " club")  # it contains the query, where the feature does not fire on it
    assert shown[2].tokens == (" a", " game")
    assert shown[3].tokens == (" plain", " text")


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "бананы", "面条", "12 345", "\\", "%", "(", "a" * 300])
def test_odd_queries_find_nothing_and_raise_nothing(tmp_path, text):
    workspace = Workspace(tmp_path, create=True)
    label = "recipes and dishes"
    rows = [{"feature": i, "label": label, "label_kind": "written", "label_score": 0.9, "n_fired": 9, "density": 0.01,
             "max_activation": 1.0} for i in range(4)]  # fmt: skip
    write_features(workspace, "f", rows, n_tokens=1000)
    assert not [hit for hit in search_features(workspace, text).hits if hit.convincing]


def test_a_dense_feature_is_not_first_unless_most_are(tmp_path):
    def first(densities: list[float]) -> int:
        workspace = Workspace(tmp_path / "-".join(map(str, densities)), create=True)
        rows = [{"feature": i, "label": label, "label_kind": "token", "label_score": score, "n_fired": 9,
                 "density": density, "max_activation": 1.0}
                for i, (label, score, density) in enumerate(zip(("month", "months of the year", "x"), (1.0, 0.8, 0.9),
                                                               densities, strict=True))]  # fmt: skip
        write_features(workspace, "f", rows, n_tokens=1000)
        hits = search_features(workspace, "month").hits
        assert hits[0].strength == max(hit.strength or 0.0 for hit in hits)
        return hits[0].feature

    assert first([0.01, 0.01, 0.01]) == 0
    assert first([0.4, 0.01, 0.01]) == 1
    assert first([0.4, 0.4, 0.4]) == 0
