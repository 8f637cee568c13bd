"""Everyday concepts: the list, and scores of dictionaries with a planted answer."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.metrics import f1_score

from interp.errors import ConfigError, CorruptError
from interp.nulls import ALIKE_LATENTS, DRAWS
from interp.statistics import Interval, auroc
from saes.evaluation import concepts as measured
from saes.evaluation.concepts import RankedUnits, judge, peaks_of
from saes.evaluation.evaluation import BASES, ConceptScore, ConceptScores, Detector
from saes.evaluation.scores import GOOD_F1, LEAST_SENTENCES, LIST, NEGATIVES, Half, read_concepts

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
        ("[[concepts]]", "[[concept]]", CorruptError, "is not a list of concepts"),
        ("[classes.noun]", "[classes.noun", CorruptError, "is not a list of concepts"),
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


def test_one_set_is_measured_against_the_words_of_all():
    listed = read_concepts()
    judge_only = listed.only("judge")
    assert {each.name for each in judge_only.measured} == JUDGE
    concept = judge_only.measured[0]
    assert judge_only.negatives(concept, 0) == listed.negatives(concept, 0)
    assert judge_only.sentences() == listed.sentences()


# The best unit, and its judgement


def test_the_best_unit_has_the_largest_f1_of_all_units_and_thresholds():
    rng = np.random.default_rng(0)
    values, truth = rng.integers(0, 4, (30, 12)).astype(float), rng.random(30) < 0.3
    found, threshold = RankedUnits.of(values, np.arange(30)).best(truth)
    best = {
        (unit, bound): f1_score(truth, values[:, unit] > bound) for unit in range(12) for bound in (-0.5, 0.5, 1.5, 2.5)
    }
    assert (found, threshold) in best
    assert best[found, threshold] == pytest.approx(max(best.values()))


def test_a_sparse_unit_is_found_as_in_the_dense_matrix():
    rng = np.random.default_rng(1)
    dense, truth = rng.random((40, 20)) * (rng.random((40, 20)) < 0.2), rng.random(40) < 0.3
    rows = np.arange(5, 40)
    assert RankedUnits.of(csr_matrix(dense), rows).best(truth[5:]) == RankedUnits.of(dense, rows).best(truth[5:])
    silent = RankedUnits.of(csr_matrix((40, 20)), rows).best(truth[5:])
    assert silent[1] < 0  # nothing fires, so the best that is left is to say yes always


def test_f1_and_auroc_are_those_of_scikit_learn_and_their_intervals_hold_them():
    rng = np.random.default_rng(2)
    truth = np.arange(35) < 7
    values = rng.normal(size=(35, 5)) + truth[:, None]
    f1, area = judge(values, truth, 0.5, rng)
    labels = np.repeat(truth, 5)
    assert f1.estimate == pytest.approx(f1_score(labels, values.ravel() > 0.5))
    assert area.estimate == pytest.approx(auroc(values.ravel(), labels))
    assert f1.low < f1.estimate < f1.high
    assert area.low < area.estimate < area.high


def test_saying_yes_always_scores_a_third():
    f1, area = judge(np.ones((35, 5)), np.arange(35) < 7, 0.5, np.random.default_rng(0))
    assert f1.estimate == pytest.approx(1 / 3)
    assert area.estimate == 0.5


def test_the_peak_of_a_word_is_its_largest_value_of_either_sign():
    rng = np.random.default_rng(3)
    values, starts = rng.normal(size=(9, 4)), np.array([0, 2, 3, 8])
    runs = np.split(values, starts[1:])
    expected = np.stack([run.max(0) for run in runs])
    assert np.allclose(peaks_of(values, starts), np.hstack([expected, np.stack([(-run).max(0) for run in runs])]))
    positive = np.maximum(values, 0)
    assert np.allclose(peaks_of(csr_matrix(positive), starts).toarray(), np.maximum(expected, 0))


def planted(*, half: Half | None = None) -> dict[str, csr_matrix]:
    """Random latents, of which the 7th fires exactly on the months (on one half of them), the 8th on every sentence."""
    listed = read_concepts()
    (months,) = (each for each in listed.concepts if each.name == "months")
    words = set(months.words if half is None else months.half(half))
    keys = list(listed.sentences())
    rng = np.random.default_rng(0)
    acts = rng.random((len(keys), 60)) * (rng.random((len(keys), 60)) < 0.05)
    acts[:, 7] = [kind == "name" and word in words for kind, word, _ in keys]
    acts[:, 8] = 1 + rng.random(len(keys))
    return {"dictionary": csr_matrix(acts)}


def of_months(peaks: dict[str, csr_matrix], name: str = "months") -> ConceptScore:
    return with_shuffled(peaks, name)[0]


def with_shuffled(peaks: dict[str, csr_matrix], name: str = "months") -> tuple[ConceptScore, np.ndarray]:
    listed = read_concepts()
    (concept,) = (each for each in listed.concepts if each.name == name)
    return measured.score_concept(concept, listed, peaks, {key: i for i, key in enumerate(listed.sentences())})


def test_a_planted_latent_is_the_concept_and_no_shuffled_label_has_one():
    score, shuffled = with_shuffled(planted())
    assert (score.own.unit, score.own.f1.estimate, score.own.auroc.estimate) == (7, 1.0, 1.0)
    assert len(shuffled) == DRAWS["standard"]
    assert max(shuffled) < GOOD_F1
    assert score.null.low <= score.null.estimate == shuffled.mean() <= score.null.high
    shares = measured.gathered([(score, shuffled)]).shares()[score.concept.set]
    assert (shares["dictionary"].estimate, shares["null"].estimate) == (1.0, 0.0)
    assert of_months(planted(), "weekdays").own.f1.estimate < GOOD_F1


def test_a_latent_of_the_choosing_words_alone_is_chosen_and_fails():
    own = of_months(planted(half=0)).own
    assert own.unit == 7
    assert own.f1.estimate == 0.0
    assert of_months(planted(half=1)).own.unit != 7


def test_the_negative_of_a_coordinate_counts_too():
    peaks = planted()["dictionary"].toarray()
    starts = np.arange(len(peaks))
    own = of_months({"coordinate": peaks_of(-peaks, starts), **planted()}).detectors["coordinate"]
    assert (own.unit, own.sign, own.f1.estimate) == (7, -1, 1.0)


# In a model

LETTERS = """
[classes.piece]
templates = ["so {} it is", "an {} or two", "{} came", "we saw {} go", "it was {} again"]
others = [{others}]
[[concepts]]
name = "digits"
class = "piece"
set = "judge"
words = ["17", "204", "3", "58", "96", "711", "40", "852"]
[[concepts]]
name = "fish"
class = "piece"
words = ["cod", "eel", "ray", "carp", "tuna", "bass", "pike", "sole"]
"""


def letters(path):
    words = [a + b + a for a in "bdfgk" for b in "aeiou"]
    path.write_text(LETTERS.replace("{others}", ", ".join(f'"{word}"' for word in words)), encoding="utf-8")
    return read_concepts(path)


def dictionary(model, direction: torch.Tensor, bias: float, hook: str):
    """A dictionary whose latent 5 reads a direction; the other 63 are random and rarely fire."""
    from saes.kinds.base import SAEMetadata, Weights
    from saes.kinds.l1 import ReLUSAE

    d = model.cfg.d_model
    rows = torch.nn.functional.normalize(torch.randn(64, d, generator=torch.Generator().manual_seed(0)), dim=1)
    W_enc, b_enc = rows.T.clone(), torch.full((64,), -0.05)
    W_enc[:, 5], b_enc[5] = direction, bias
    return ReLUSAE(Weights(W_enc, b_enc, rows, torch.zeros(d)), metadata=SAEMetadata(hook_point=hook))


def test_a_latent_that_reads_digits_is_found_in_a_model_of_bytes(tiny_model, tmp_path):
    listed = letters(tmp_path / "mine.toml")
    hook = "blocks.0.hook_resid_pre"
    sentences = listed.sentences()
    values, starts = measured.read_words(tiny_model, list(sentences.values()), [hook], lambda *_: None)
    x = values[hook]
    lengths = np.diff([*starts, len(x)])
    assert lengths.tolist() == [len(word) + (template != 2) for _, word, template in sentences]  # a space before it
    is_digit = torch.tensor(np.repeat([word.isdigit() for _, word, _ in sentences], lengths)).float()
    fitted = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), is_digit[:, None]).solution[:, 0]
    stages = []
    scores = measured.measure_concepts(
        dictionary(tiny_model, fitted[:-1], float(fitted[-1]) - 0.5, hook),
        tiny_model,
        x,
        listed,
        progress=lambda done, total, facts: stages.append((done, total)),
    )
    digits, fish = scores.scores
    assert (digits.concept.name, digits.own.unit) == ("digits", 5)
    assert digits.own.f1.estimate == 1.0
    assert digits.detectors.keys() == set(BASES)
    assert fish.own.f1.estimate < GOOD_F1
    assert stages[-1][0] == stages[-1][1]
    shares = scores.shares()
    assert shares["judge"]["dictionary"].estimate == 1.0
    assert shares["choose"]["dictionary"].estimate == 0.0
    assert scores.to_records()[0]["feature"] == 5
    assert "digits" in str(scores)
    assert "untrained" in scores.table()


def test_steering_tells_a_latent_that_raises_the_words_from_one_that_lowers_them(tiny_model, tmp_path):
    from interp.interventions.site import DictionarySite

    hook = "blocks.1.hook_resid_post"
    sae = dictionary(tiny_model, torch.zeros(tiny_model.cfg.d_model), 0.0, hook)
    raises = tiny_model.W_U[:, ord(" ")].detach()  # the first byte of each word is a space
    with torch.no_grad():
        sae.W_dec[0], sae.W_dec[1] = raises, -raises
    one = Interval(1.0, 1.0, 1.0)
    listed = letters(tmp_path / "mine.toml")
    scores = ConceptScores(
        scores=tuple(
            ConceptScore(
                concept=concept,
                detectors={"dictionary": Detector(unit=unit, sign=1, threshold=0.0, f1=one, auroc=one)},
                null=Interval(0.0, 0.0, 0.0),
            )
            for unit, concept in enumerate(listed.concepts)
        ),
        null={},
    )
    up, down = measured.steer_concepts(DictionarySite.of(tiny_model, sae), scores, np.full(64, 0.01)).scores
    assert up.steering_p == pytest.approx(1 / (1 + ALIKE_LATENTS))
    assert down.steering_p == 1.0
    assert up.steering > 0 > down.steering
    few = np.zeros(64)
    few[:5] = 0.01
    assert measured.steer_concepts(DictionarySite.of(tiny_model, sae), scores, few).scores[0].steering is None
