"""Examples that contain a query: planted documents, whole words, the null of all examples, and which one is shown."""

import pyarrow as pa
import pytest
from make_features import write_features

from interp.nulls import ALPHA
from interp.workspace import Workspace
from saes import search_features
from saes.features.example_texts import ExampleTexts, shown_examples

N, DOCUMENTS = 60, 6


def table(contents: dict[tuple[int, int], list[str]]) -> pa.Table:
    """Six strongest examples of each feature, each of another document; `contents` are the tokens of some."""
    rows = [
        {"feature": f, "tokens": contents.get((f, d), [" plain", " text"]), "activations": [0.0, 1.0], "peak": 1,
         "document": 100 * f + d, "document_label": "doc", "group_order": 0}
        for f in range(N) for d in range(DOCUMENTS)
    ]  # fmt: skip
    return pa.Table.from_pylist([row | {"activations": [0.0] * (len(row["tokens"]) - 1) + [1.0]} for row in rows])


def test_a_word_of_several_tokens_is_found_in_three_documents_and_not_in_one():
    pieces = [" las", "agna", " dish"]
    texts = ExampleTexts.of(table({(7, 0): pieces, (7, 3): pieces, (7, 4): pieces, (9, 1): pieces}), N)
    near = texts.features_with(["Lasagna"])
    assert near.feature.tolist() == [7]
    assert near.share[0] == pytest.approx(3 / DOCUMENTS)
    assert near.p[0] < ALPHA


def test_a_word_in_all_documents_is_no_evidence_and_a_part_of_a_word_is_no_word():
    texts = ExampleTexts.of(table({(f, d): [" art", " here"] for f in range(N) for d in range(DOCUMENTS)}), N)
    assert (texts.features_with(["art"]).p > ALPHA).all()
    texts = ExampleTexts.of(table({(3, d): [" part", "ner"] for d in range(DOCUMENTS)}), N)
    assert not len(texts.features_with(["art"]).feature)
    assert not len(texts.features_with(["", "  ", "part"]).feature)
    assert texts.features_with(["partner"]).feature.tolist() == [3]


def test_a_document_that_repeats_a_word_counts_once():
    rows = table({(5, d): [" chess", " game"] for d in range(DOCUMENTS)}).to_pylist()
    same = pa.Table.from_pylist([row | {"document": 500} if row["feature"] == 5 else row for row in rows])
    assert not len(ExampleTexts.of(same, N).features_with(["chess"]).feature)


def test_the_example_shown_has_the_query_else_a_related_word_else_is_the_strongest(tmp_path):
    contents = {
        (0, 2): [" on", " chess"],
        (1, 1): [" chess", " club"],
        (1, 2): [" a", " game"],
        (2, 4): [" a", " game"],
    }
    texts = ExampleTexts.of(table(contents), N)
    workspace = Workspace(tmp_path, create=True)
    shown = shown_examples(workspace, None, [0, 1, 2, 3], texts, {"chess": 1}, {"game": 1})  # pyright: ignore[reportArgumentType]
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
    assert not len(ExampleTexts.of(table({}), N).features_with([text]).feature)


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
