"""Search finds planted features first, beside nulls that a random feature of the same density reaches."""

from pathlib import Path

import duckdb
import make_search
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from make_features import write_features
from make_search import HOSTILE, N_FEATURES, N_TOKENS, TEXTS, build, index, planted_text

from interp.artifacts import write_table
from interp.artifacts.tables import schema_of
from interp.errors import ConfigError, CorruptError, ResourceError, UnknownNameError
from interp.workspace import Workspace
from saes import search_features
from saes.features import _token_index, fired_words, search
from saes.features._token_index import TABLES, Units, fold, index_schema, query_words, spell
from saes.features.fired_words import index_examples, indexed_examples
from saes.features.schema import ExampleRow, Features


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return build(tmp_path_factory.mktemp("search") / "workspace")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path_factory.getbasetemp() / "search-cache"))


def tables(workspace: Workspace) -> dict[str, list[dict]]:
    path = workspace.path("features", "planted") / "index"
    return {name: workspace.query("select * from t", t=path / f"{name}.parquet").to_pylist() for name in TABLES}


@pytest.mark.parametrize(("at", "said"), [(-5, "of a wrong type"), (1 << 50, "more memory than there is")])
def test_an_index_of_damaged_examples_is_refused_in_one_sentence(tmp_path, at, said):
    row = {name: {"activations": [1.0, 2.0, 1.0], "tokens": [" a", " b", " c"]}.get(name, 1)
           for name in ("feature", "row", "peak", "tokens", "activations")}  # fmt: skip
    rows = [{**row, "feature": feature, "row": at} for feature in range(4)]
    schema = pa.schema([schema_of(ExampleRow).field(name) for name in row])
    pq.write_table(pa.Table.from_pylist(rows, schema), tmp_path / "examples.parquet")
    with pytest.raises((CorruptError, ResourceError), match=said):
        indexed_examples(tmp_path / "examples.parquet", f"row {at}", 4)


def test_numbers_that_duckdb_cannot_hold_are_an_error_of_the_file(tmp_path, monkeypatch):
    def overflows(*_):
        raise duckdb.ConversionException("value is out of range")

    monkeypatch.setattr("saes.features.fired_words.index_examples", overflows)
    with pytest.raises(CorruptError, match=r"cannot index .*examples\.parquet"):
        indexed_examples(tmp_path / "examples.parquet", "overflows", 4)


def test_the_index_has_the_documented_columns(workspace):
    import pyarrow.parquet as pq

    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    for name in TABLES:
        found = pq.read_schema(workspace.path("features", "planted") / "index" / f"{name}.parquet")
        assert found.names == index_schema(name).names
        assert found.types == index_schema(name).types
        assert all(f"`{column}`" in text[text.index("`index/units.parquet`") :] for column in found.names)


def test_counts_of_the_index_are_those_of_the_text(workspace):
    tokens, acts = planted_text()
    found = tables(workspace)
    units = {row["text"]: row for row in found["units"]}
    firings = {(row["unit"], row["feature"]): row for row in found["firings"]}
    for code in (0, 4, 10):
        here = tokens == code
        assert units[TEXTS[code]]["n"] == here.sum()
        for feature in range(N_FEATURES):
            row = firings.get((units[TEXTS[code]]["unit"], feature))
            values = acts[here, feature]
            assert (row["n"] if row else 0) == (values > 0).sum()
            if row:
                assert row["share"] == pytest.approx(values.sum() / acts[:, feature].sum(), rel=1e-5)
                assert row["max_activation"] == pytest.approx(values.max())
    assert [row["n_fired"] for row in found["features"]] == (acts > 0).sum(0).tolist()
    assert {row["n_tokens"] for row in found["features"]} == {N_TOKENS}


def test_units_are_numbered_by_folded_text(workspace):
    units = tables(workspace)["units"]
    assert [row["unit"] for row in units] == list(range(len(units)))
    assert [row["folded"] for row in units] == sorted(row["folded"] for row in units)
    assert {row["text"] for row in units if row["folded"] == "january"} == {" January", "january"}


@pytest.mark.parametrize("options", [{"block": 100}, {"block": 12_000}, {"block": 500, "buffered": 300}])
def test_the_index_depends_neither_on_blocks_nor_on_spilling(workspace, tmp_path, options):
    index(*planted_text(), tmp_path, **options)
    expected = tables(workspace)
    for name in TABLES:
        found = Workspace(tmp_path).query("select * from t", t=tmp_path / "index" / f"{name}.parquet").to_pylist()
        assert len(found) == len(expected[name])
        for row, other in zip(found, expected[name], strict=True):
            assert row == pytest.approx(other, rel=1e-5) if name != "units" else row == other
    assert not (tmp_path / "runs").exists()


def test_words_end_at_spaces_punctuation_and_changes_of_class():
    texts = [" Zeph", "yr", "s", ",", " x", "1", "2", "<b>", "ß"]
    units = Units()
    _, words = units.read(np.arange(len(texts)), np.zeros(len(texts), bool), spell(texts))
    found = ["".join(texts[c] for c in units.pieces[w]) if w >= 0 else None for w in words]
    assert found == [None, " Zephyr", " Zephyrs", None, None, None, "12", None, None]


def test_a_passage_begins_a_new_word():
    units, begins = Units(), np.array([False, False, True])
    _, words = units.read(np.array([0, 1, 1]), begins, spell([" Zeph", "yr"]))
    assert words.tolist()[0] == -1
    assert words[1] >= 0
    assert words[2] == -1


def test_only_the_strongest_firings_of_a_token_are_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr(_token_index, "PER_TOKEN", 1)
    tokens, acts = planted_text()
    index(tokens, acts, tmp_path)
    rows = Workspace(tmp_path).query("select * from t", t=tmp_path / "index" / "firings.parquet").to_pylist()
    assert sum(row["n"] for row in rows if row["feature"] == 0) < (acts[:, 0] > 0).sum() * 2
    whole = Workspace(tmp_path).query("select * from t", t=tmp_path / "index" / "features.parquet").to_pylist()
    assert [row["n_fired"] for row in whole] == (acts > 0).sum(0).tolist()  # totals count all of them


@pytest.mark.parametrize("features", ["planted", "older"])
def test_several_words_find_the_feature_of_all_of_them(workspace, features, monkeypatch):
    monkeypatch.setattr(fired_words, "FREQUENT", 0.05)
    first, second, *_ = search_features(workspace, "February March day", features=features).hits
    assert (first.feature, second.feature) == (0, 1), "on two of the words, and on one, the third, more strongly"
    assert 0.5 < first.score < 1
    assert first.null < 0.5 * first.score


@pytest.mark.parametrize("features", ["planted", "older"])
@pytest.mark.parametrize("text", ["January", " january", "JANUARY", '"January,"'])
def test_the_months_feature_is_first_for_a_month(workspace, features, text):
    found = search_features(workspace, text, features=features)
    first = found.hits[0]
    assert (first.feature, first.by) == (0, "tokens")
    assert first.score > 8 * first.null
    assert {match.text for match in first.matches} <= {" January", "january"}
    marked = [first.example.tokens[i] for i in first.example.marked]
    assert marked
    assert all(text.strip().lower() == "january" for text in marked)
    assert found.covers == {features: "all text" if features == "planted" else "examples"}


def test_the_score_of_several_words_is_the_weighted_mean_over_them(workspace, monkeypatch):
    monkeypatch.setattr(fired_words, "FREQUENT", 0.05)
    tokens, acts = planted_text()
    index = fired_words.FiringIndex.open(workspace, workspace.open(Features, "planted"))
    words = index.sought("February March day").words
    weights = np.log2((N_TOKENS + 1) / np.array([word.n for word in words]))
    fired = index.read(words).fired(words, index.columns.n_fired > 0)
    assert len(words) == 3
    assert len(fired.feature) > 2
    for at, feature in enumerate(fired.feature):
        here = [np.isin(tokens, [i for i, text in enumerate(TEXTS) if fold(text) == word.word]) for word in words]
        assert [each.sum() for each in here] == [word.n for word in words]
        assert fired.fired[at] == sum((acts[each, feature] > 0).sum() for each in here)
        strong = [np.sqrt(acts[each, feature].mean() / acts[:, feature].max()) for each in here]
        assert fired.score[at] == pytest.approx(np.average(strong, weights=weights), rel=1e-4)


def test_a_dense_feature_ranks_below_a_specific_one_on_the_word_that_both_fire_on(tmp_path, monkeypatch):
    tokens, acts = planted_text()
    rng = np.random.default_rng(4)
    january = np.isin(tokens, (0, 1))
    fires = january | (rng.random(N_TOKENS) < 0.3)
    acts[:, 3] = fires * rng.uniform(6, 9, N_TOKENS)
    monkeypatch.setattr(make_search, "planted_text", lambda: (tokens, acts))
    hits = search_features(make_search.build(tmp_path / "w"), "January", features="planted").hits
    ranks = {hit.feature: (rank, hit) for rank, hit in enumerate(hits)}
    assert ranks[0][0] == 0
    assert ranks[3][1].convincing
    assert ranks[3][1].fired == ranks[3][1].tries
    assert ranks[3][1].strength < 0.999 * ranks[0][1].strength


def test_hits_are_the_same_whether_tables_are_in_memory_or_read_for_each_search(workspace, monkeypatch):
    found = search_features(workspace, "January AND the").hits
    monkeypatch.setattr(search, "AT_ONCE", 0)
    assert search_features(workspace, "January AND the").hits == found
    assert found[0].example is not None


def test_a_table_without_some_feature_is_an_error_of_the_file(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    write_features(workspace, "f", [{"feature": i, "max_activation": 1.0} for i in (0, 2)])
    with pytest.raises(CorruptError, match=r"features\.parquet should list features 0 to 1 once each"):
        search_features(workspace, "x")


def test_an_artefact_that_was_made_again_is_read_again(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    for label, other in (("month", "river"), ("river", "month")):
        write_features(workspace, "f", [{"feature": 0, "label": label, "label_kind": "written", "max_activation": 1.0}])
        assert [hit.label for hit in search_features(workspace, label).hits] == [label]
        assert search_features(workspace, other).hits == ()


def test_a_feature_at_chance_stays_at_its_null(workspace):
    for hit in search_features(workspace, "January", features="planted").hits:
        if hit.feature in (2, 3) and hit.by == "tokens":  # random tokens, and all tokens
            assert hit.score < 5 * hit.null < 0.1


@pytest.mark.parametrize("features", ["planted", "older"])
def test_a_word_of_several_tokens_is_found_at_its_last_one(workspace, features):
    first = search_features(workspace, "zephyranthes", features=features).hits[0]
    assert first.feature == 4
    assert first.matches[0].text == " Zephyranthes"
    assert first.example.tokens[first.example.marked[0]] == "anthes"


def test_a_sentence_is_searched_by_its_words_and_frequent_ones_are_left_out(workspace):
    found = search_features(workspace, "the zephyranthes of January and qwerty", features="planted")
    assert {hit.feature for hit in found.hits[:2]} == {0, 4}
    assert "the" in found.left_out
    assert "qwerty" in found.missing
    assert set(found.words) == {"january", "zephyranthes"}


def test_hostile_text_is_found_as_it_is(workspace):
    found = search_features(workspace, HOSTILE, features="planted")
    assert found.hits[0].feature == 5
    assert found.hits[0].matches[0].text == HOSTILE
    assert search_features(workspace, "' or 1=1 --", features="planted").hits == ()
    assert search_features(workspace, "%_'\"\\", features="planted").hits == ()


def test_a_label_is_found_from_the_beginning_of_a_word_with_its_score_and_null(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    read = {"label_kind": "word", "label_null": 0.52, "label_null_high": 0.6, "label_heldout": 40}
    labels = [{"label": "a month in spring", "label_score": 0.8, **read},
              {"label": "calendar month", "label_score": 0.95, **read},
              {"label": "a month?", "label_kind": "written"}]  # fmt: skip
    rows = [{"feature": i, "n_fired": 9, "density": 0.01, "max_activation": 1.0, **label}
            for i, label in enumerate(labels)]  # fmt: skip
    write_features(workspace, "f", rows, n_tokens=1000)
    found = search_features(workspace, "month").hits
    assert [(hit.feature, hit.label_score) for hit in found] == [
        (1, pytest.approx(0.95)), (0, pytest.approx(0.8)), (2, None),  # not judged
    ]  # fmt: skip
    assert found[0].label_null == pytest.approx(0.52)
    assert found[0].strength > found[1].strength > found[2].strength
    assert [hit.feature for hit in search_features(workspace, "months").hits] == [1, 0, 2], "a plural, too"
    assert search_features(workspace, "onth").hits == (), "words, not parts of words"


def test_features_of_one_place_are_searched_and_bad_requests_refused(workspace):
    assert search_features(workspace, "January", hook_point="blocks.7.hook_resid_post").hits == ()
    assert {hit.features for hit in search_features(workspace, "January").hits} == {"planted", "older"}
    with pytest.raises(ConfigError, match="type a word"):
        search_features(workspace, "   ")
    with pytest.raises(UnknownNameError, match="planted"):
        search_features(workspace, "January", features="plantd")


def test_labels_numbers_and_neighbours_are_found(workspace):
    by_label = search_features(workspace, "MONTH", features="planted").hits
    assert [(hit.feature, hit.by) for hit in by_label] == [(1, "label")]
    assert [hit.key for hit in search_features(workspace, "planted:4").hits] == ["features/planted#4"]
    assert search_features(workspace, "#4", features="planted").hits[0].by == "number"
    like = search_features(workspace, "like planted:0").hits
    assert [hit.feature for hit in like] == [1, 2, 3, 4, 5]  # 6 never fires
    assert like[0].strength == pytest.approx(0.6)
    assert like[0].null == pytest.approx(0.6)
    with pytest.raises(UnknownNameError, match="0 to 6"):
        search_features(workspace, "like planted:99")


def test_the_index_of_examples_is_kept_in_the_cache_and_the_artefact_is_untouched(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path))
    before = sorted(workspace.path("features", "older").rglob("*"))
    search_features(workspace, "January", features="older")
    assert sorted(workspace.path("features", "older").rglob("*")) == before
    made = list((tmp_path / "token-index").glob("*/firings.parquet"))
    assert len(made) == 1
    stamp = made[0].stat().st_mtime_ns
    search_features(workspace, "March", features="older")
    assert made[0].stat().st_mtime_ns == stamp


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(workspace, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "file"))
    assert search_features(workspace, "January", features="older").hits[0].feature == 0


def test_words_of_a_query_have_readings():
    assert query_words("don't (May) May") == [("don't", "don", "t"), ("(may)", "may"), ("may",)]
    assert query_words(", .") == [(",",), (".",)]


def test_examples_that_are_cut_short_are_named(tmp_path):
    path = tmp_path / "examples.parquet"
    rows = {
        "feature": [0, 0, 1],
        "row": [1, 1, 3],  # both examples of the first feature hold one token, which counts once
        "peak": [0, 0, 0],
        "tokens": [["a"]] * 3,
        "activations": [[1.0]] * 3,
    }
    write_table(path, pa.table(rows))
    for batch in (1, 2, 9):
        index_examples(path, tmp_path / f"index-{batch}", 2, batch=batch)
    for name in TABLES:
        one, *others = (pq.read_table(tmp_path / f"index-{batch}" / f"{name}.parquet") for batch in (1, 2, 9))
        assert all(one.equals(other) for other in others), "a feature is never cut in two"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptError, match=r"cannot read .*examples\.parquet"):
        index_examples(path, tmp_path / "damaged", 2, batch=2)


def test_layers_of_a_set_are_searched_when_it_is_named(tmp_path):
    workspace = Workspace(tmp_path, create=True)

    def describe(name: str, dictionary: str) -> None:
        row = {"feature": 0, "n_fired": 9, "density": 0.01, "max_activation": 1.0, "label": "a month",
               "label_kind": "written"}  # fmt: skip
        write_features(workspace, name, [row], dictionary=dictionary, hook_point="h", model="m", n_tokens=1000)

    for layer in (0, 1):
        describe(f"part-{layer}", f"transcoders:set:{layer}")
    assert {hit.features for hit in search_features(workspace, "month").hits} == {"part-0", "part-1"}, "nothing else"
    describe("own", "sae:own")
    found = search_features(workspace, "month")
    assert [hit.features for hit in found.hits] == ["own"]
    assert found.sets_left_out == ("set",)
    assert "layers of set are searched only when named" in found.headline()
    named = search_features(workspace, "month", features="set")
    assert {hit.features for hit in named.hits} == {"part-0", "part-1"}
    assert named.sets_left_out == ()
    assert [hit.features for hit in search_features(workspace, "month", features="part-1").hits] == ["part-1"]
    with pytest.raises(UnknownNameError, match="own"):
        search_features(workspace, "month", features="owm")
