"""Everyday concepts: the list, and scores of dictionaries with a planted answer."""

import pytest

from interp.errors import ConfigError, CorruptError
from saes.evaluation.concepts import LEAST_SENTENCES, LIST, NEGATIVES, read_concepts

JUDGE = {
    *("Spanish", "animals", "clock times", "contrast", "dates", "kinship", "law", "medicine", "months", "music"),
    *("nationalities", "past tense", "plants", "plural", "possessives", "quotation", "tastes", "war", "weekdays"),
    "women's names",
}
"""Drawn before anything was measured. They judge the dictionary that was chosen by the others, so they stay."""


def test_sixty_concepts_of_which_twenty_judge():
    concepts = read_concepts().concepts
    assert len(concepts) == 60
    assert {each.name for each in concepts if each.set == "judge"} == JUDGE


def test_every_concept_has_enough_sentences_and_four_times_as_many_of_the_same_templates():
    listed = read_concepts()
    for concept in listed.concepts:
        templates, own = listed.templates[concept.kind], set(concept.words)
        assert len(own) * len(templates) >= LEAST_SENTENCES
        halves = [listed.negatives(concept, half) for half in (0, 1)]
        for half, negatives in zip((0, 1), halves, strict=True):
            assert len(set(negatives)) == NEGATIVES * len(concept.half(half))
            assert own.isdisjoint(negatives)
        assert set(halves[0]).isdisjoint(halves[1])  # no word both chooses and judges
        assert set(concept.half(0)).isdisjoint(concept.half(1))


def test_a_sentence_marks_its_word():
    sentences = read_concepts().sentences()
    assert all(text[start:end] == word for (_, word, _), (text, start, end) in sentences.items())
    assert sentences["adjective", "red", 0] == ("The red one was on the left.", 4, 7)


@pytest.mark.parametrize(
    ("old", "new", "error", "expected"),
    [
        ('"October", ', "", None, ""),
        ('"October", ', '"July", ', ConfigError, "'July' is listed 2 times in class name"),
        ('"The {} one was', '"The one was', ConfigError, "has not one {}"),
        ("[[concepts]]", "[[concept]]", CorruptError, "is no list of concepts"),
        ("[classes.noun]", "[classes.noun", CorruptError, "is no list of concepts"),
    ],
)
def test_a_list_of_ones_own_is_checked(tmp_path, old, new, error, expected):
    path = tmp_path / "mine.toml"
    path.write_text(LIST.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    if error is None:
        assert len(read_concepts(path).concepts) == 60
        return
    with pytest.raises(error) as raised:
        read_concepts(path)
    assert expected in str(raised.value)
