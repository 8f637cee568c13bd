"""Search by meaning: planted directions are found by the word that they make the model say, nothing by chance."""

from pathlib import Path
from types import SimpleNamespace

import make_search
import numpy as np
import pytest
from make_features import write_features

from interp.errors import ConfigError, MissingError
from interp.lenses.vocabulary import Vocabulary
from interp.workspace import Workspace
from saes import search_features
from saes.features import search
from saes.features._label_search import pieces_of, related_words, tokens_of
from saes.features.find_by_meaning import standardised
from saes.features.found import Hit
from saes.features.meaning import KEPT, N_DIRECTIONS, Meaning
from saes.features.search import TextQuery, parse_query

N, D, N_WORDS = 300, 64, 500
WORDS = [f" word{'abcdefghijklmnopqrstuvwxyz'[i % 26]}{'abcdefghijklmnopqrstuvwxyz'[i // 26]}" for i in range(N_WORDS)]
TEXTS = (*WORDS, " zephyr", "anthes")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_CACHE", str(tmp_path / "cache"))


def vocabulary() -> Vocabulary:
    directions = np.random.default_rng(0).normal(size=(len(TEXTS), D)).astype(np.float16)
    x = directions.astype(np.float32)
    return Vocabulary(directions, x.T @ x / len(x), TEXTS)


def meaning(rows: np.ndarray, jacobian: np.ndarray) -> Meaning:
    """What decoder rows say through a Jacobian."""
    carried = (rows / np.linalg.norm(rows, axis=1, keepdims=True) @ jacobian.T).astype(np.float32)
    words, none = vocabulary(), np.zeros((N, KEPT))
    lens = SimpleNamespace(settings=SimpleNamespace(weight_hash="0" * 64))
    null = np.zeros(N_DIRECTIONS)
    return Meaning(
        lens=lens, hook_point="blocks.0.hook_resid_post", vocabulary=words,  # pyright: ignore[reportArgumentType]
        carried=carried, scale=words.scale(carried), raised=none.astype(int), raised_strength=none,
        lowered=none.astype(int), lowered_strength=none, null_high=null, null_low=null,
    )  # fmt: skip


def planted() -> tuple[np.ndarray, np.ndarray]:
    """Decoder rows, of which row i is J^-1 of the direction of word i, with a little noise; and J."""
    rng = np.random.default_rng(1)
    jacobian = rng.normal(size=(D, D)) / D**0.5
    rows = np.linalg.solve(jacobian, vocabulary().directions[:N].astype(float).T).T
    return rows + 0.1 * rng.normal(size=rows.shape), jacobian


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Features without any text: only what they say can find them."""
    made = Workspace(tmp_path / "w", create=True)
    write_features(made, "f", [{"feature": i, "label": "", "max_activation": 1.0, "density": 0.3} for i in range(N)])
    return made


def hits(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, said: Meaning, text: str, **options) -> list[Hit]:
    monkeypatch.setattr(search, "meaning_of", lambda *_: said)
    return [hit for hit in search_features(workspace, text, examples=False, **options).hits if hit.convincing]


def test_a_planted_direction_is_found_by_the_word_that_it_makes_the_model_say(workspace, monkeypatch):
    said = meaning(*planted())
    for i in (0, 7, 131, 299):
        found = hits(workspace, monkeypatch, said, WORDS[i].strip())
        assert found[0].feature == i
        assert found[0].by == "says"


@pytest.mark.parametrize("null", ["shuffled dictionary", "untrained Jacobian"])
def test_a_shuffled_dictionary_and_an_untrained_model_give_nothing_beyond_chance(workspace, monkeypatch, null):
    rows, jacobian = planted()
    rng = np.random.default_rng(2)
    if null == "shuffled dictionary":
        rows = rng.permuted(rows, axis=1)
    else:
        jacobian = rng.normal(size=jacobian.shape)
    said = meaning(rows, jacobian)
    found = [hits(workspace, monkeypatch, said, WORDS[i].strip()) for i in range(40)]
    assert sum(bool(each) for each in found) <= 6  # 2 expected; P(more than 6) is 0.003
    assert sum(each[0].feature == i for i, each in enumerate(found) if each) <= 1


def test_directions_dealt_out_anew_name_other_features(workspace, monkeypatch):
    rows, jacobian = planted()
    order = np.random.default_rng(3).permutation(N)
    said = meaning(rows[order], jacobian)
    found = [hits(workspace, monkeypatch, said, WORDS[i].strip())[0].feature for i in range(20)]
    assert found == [int(np.flatnonzero(order == i)[0]) for i in range(20)]
    assert sum(each == i for i, each in enumerate(found)) <= 1


def test_and_needs_both_and_not_leaves_out(workspace, monkeypatch):
    rows, jacobian = planted()
    both = vocabulary().directions[1:3].astype(float)
    rows[5] = np.linalg.solve(jacobian, (both / np.linalg.norm(both, axis=1, keepdims=True)).sum(0))
    said, (one, two) = meaning(rows, jacobian), (WORDS[1].strip(), WORDS[2].strip())
    [joined] = hits(workspace, monkeypatch, said, f"{one} AND {two}")
    assert joined.feature == 5
    each = [hit for text in (one, two) for hit in hits(workspace, monkeypatch, said, text) if hit.feature == 5]
    assert joined.strength == min(hit.strength or 0.0 for hit in each)
    alone = [hit.feature for hit in hits(workspace, monkeypatch, said, one)]
    assert set(alone[:2]) == {1, 5}
    without = [hit.feature for hit in hits(workspace, monkeypatch, said, f"{one} NOT {two}")]
    assert without[0] == 1
    assert 2 not in without


def test_a_query_is_parsed():
    assert parse_query(" bank  NOT river") == TextQuery(("bank",), ("river",))
    assert parse_query("a AND NOT b AND c") == TextQuery(("a", "c"), ("b",))
    assert parse_query("nothing and NOTHING ANDY") == TextQuery(("nothing and NOTHING ANDY",))
    for bad in ("NOT x", "x AND", "AND", "x NOT NOT y"):
        with pytest.raises(ConfigError, match="names nothing"):
            parse_query(bad)
    with pytest.raises(ConfigError, match="at most"):
        parse_query(" AND ".join("abcdefgh"))


def test_a_word_of_several_tokens_has_pieces_and_one_of_none_has_not():
    words = vocabulary()
    assert [words.texts[i] for i in pieces_of(words, "zephyranthes")] == [" zephyr", "anthes"]
    assert pieces_of(words, "ß") == []
    assert tokens_of(words, "zephyranthes") == []
    assert related_words(words, "k", ["ßß", "zephyr" + 9 * "anthes"], 5) == {}


def test_related_words_come_after_the_word_itself_and_are_kept():
    words = vocabulary()
    near = words.directions.copy()
    near[3] = near[9] + 0.3 * near[4]
    tied = Vocabulary(near, words.spread, TEXTS)
    found = related_words(tied, "tied", [WORDS[9].strip()], 2)
    assert list(found) == [WORDS[9].strip(), WORDS[3].strip()]
    assert found[WORDS[9].strip()] == pytest.approx(1, abs=0.01)
    assert related_words(tied, "tied", [WORDS[9].strip()], 2) == found


def test_scores_are_robust_to_a_few_large_ones():
    values = np.random.default_rng(0).normal(3, 2, (10_000, 1))
    values[:50] += 100
    z = standardised(values)[50:]
    assert z.mean() == pytest.approx(0, abs=0.05)
    assert z.std() == pytest.approx(1, abs=0.05)


def test_without_a_lens_the_command_that_fits_one_is_named(tmp_path):
    made = make_search.build(tmp_path / "w")
    found = search_features(made, "January", features="planted")
    assert found.hits[0].feature == 0
    assert [note.endswith("lens smollm2-135m --kind jacobian") for note in found.notes] == [True]


def test_features_that_cannot_be_read_through_the_lens_say_why(workspace, monkeypatch):
    def fails(*_):
        raise MissingError("the model is not here")

    monkeypatch.setattr(search, "meaning_of", fails)
    assert search_features(workspace, "x").notes == (
        "f was not searched by the words that its features make the model say: the model is not here",
    )
    monkeypatch.setattr(search, "meaning_of", lambda *_: None)
    monkeypatch.setattr(search, "lens_for", lambda *_: object())
    assert search_features(workspace, "x").notes == (
        "f was not searched by the words that its features make the model say",
    )


def test_dead_features_and_empty_dictionaries_are_not_found(tmp_path, monkeypatch):
    made = Workspace(tmp_path / "dead", create=True)
    rows = [{"feature": i, "n_fired": 0, "density": 0.0, "max_activation": 0.0} for i in range(N)]
    write_features(made, "f", rows)
    assert hits(made, monkeypatch, meaning(*planted()), WORDS[3].strip()) == []
    empty = Workspace(tmp_path / "empty", create=True)
    assert search_features(empty, "x").hits == ()
