"""Sparse probes find what is planted, and nothing in labels that are random."""

import csv
import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from planted import HOOK, write_recording
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.statistics import MIN_DOCUMENTS, auroc
from saes.evaluation.probing import (
    LEFT_OUT,
    ProbingConfig,
    Tally,
    Tokens,
    control_labels,
    file_tasks,
    fit_probe,
    mean_difference,
    planted_tasks,
    probe,
    recording_tasks,
    row_task,
    sparse_columns,
    text_tasks,
    tokens_at,
)
from saes.evaluation.scores import ALL, MEAN, TaskFacts
from saes.evaluation.synthetic import HOOK_POINT, SyntheticConfig, SyntheticData, write_synthetic
from saes.kinds.base import SAEMetadata, Weights
from saes.kinds.l1 import ReLUSAE

SMALL = ProbingConfig(n_train=1500, n_test=1500, seeds=(0, 1))

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """More features than dimensions, and the dictionary that they are."""
    config = SyntheticConfig(n_features=48, d=40, most_frequent=0.2, least_frequent=0.05, magnitude="constant")
    data = SyntheticData(config)
    recording = write_synthetic(data, tmp_path_factory.mktemp("recordings") / "planted", n_rows=20_000)
    weights = Weights(data.directions.T.contiguous(), torch.full((48,), -0.4), data.directions, data.mean)
    return recording, ReLUSAE(weights, metadata=SAEMetadata(hook_point=HOOK_POINT))


@pytest.fixture(scope="module")
def found(planted):
    recording, truth = planted
    return probe({"truth": truth}, recording, planted_tasks(recording, 4), config=SMALL)


def score(found, dictionary: str, k: int, task: str = MEAN):
    pool = found.means if task == MEAN else found.scores
    return next(s for s in pool if (s.dictionary, s.k, s.task) == (dictionary, k, task))


def test_one_latent_of_the_true_dictionary_answers_and_its_control_is_a_guess(found):
    for task in found.tasks:
        best = score(found, "truth", 1, task.name)
        assert best.accuracy.estimate > 0.98, task.name
        assert best.auroc > 0.99
        assert best.control == pytest.approx(0.5, abs=0.05)
        assert best.selectivity == pytest.approx(best.accuracy.estimate - best.control)
        assert min(best.by_seed) > 0.97
        assert len(best.by_seed) == 2


def test_what_learned_nothing_lies_below_it(found):
    truth = score(found, "truth", 1)
    for name in ("pca", "coordinates", "untrained"):
        null = score(found, name, 1)
        assert null.accuracy.high < truth.accuracy.low - 0.1, name
    assert score(found, "untrained", 1).accuracy.estimate < 0.75
    whole = score(found, ALL, 40)
    assert whole.accuracy.estimate > score(found, "coordinates", 5).accuracy.high
    assert whole.control == pytest.approx(0.5, abs=0.05)


def test_more_features_never_answer_much_worse_and_intervals_hold_the_score(found):
    for name in ("truth", "pca", "coordinates", "untrained"):
        rising = [score(found, name, k).accuracy.estimate for k in (1, 2, 5)]
        assert rising == sorted(rising) or max(np.diff(rising) * -1) < 0.02, name
    for each in found.means:
        assert each.accuracy.contains(each.accuracy.estimate)
        assert (each.accuracy.low < each.accuracy.high) == (each.accuracy.estimate < 1)
    assert found.n_documents > MIN_DOCUMENTS


def test_random_labels_cannot_be_answered(planted):
    recording, truth = planted
    random = np.random.default_rng(0).random((3, recording.n_rows)) < 0.3
    tasks = [row_task(f"random {i}", "chance", labels) for i, labels in enumerate(random)]
    for each in probe({"truth": truth}, recording, tasks, config=SMALL).scores:
        assert each.accuracy.estimate == pytest.approx(0.5, abs=0.07), each
        assert abs(each.selectivity) < 0.1, each


def test_of_few_documents_no_interval_is_given(tmp_path, planted):
    """Of four documents, 95 % intervals hold the truth in 78 to 85 of 100 cases (of 8, in 88 to 91)."""
    truth = planted[1]
    data = SyntheticData(SyntheticConfig(n_features=48, d=40, most_frequent=0.2, least_frequent=0.05))
    recording = write_synthetic(data, tmp_path / "few", n_rows=64 * 60)
    n_heldout = {}
    for fraction in (0.1, 0.3):
        small = ProbingConfig(n_train=1500, n_test=1500, seeds=(0,), ks=(1,))
        found = probe({"truth": truth}, recording, planted_tasks(recording, 2), config=small, heldout_fraction=fraction)
        n_heldout[fraction] = found.n_documents
        assert {not math.isnan(each.accuracy.low) for each in found.means} == {fraction == 0.3}
    assert n_heldout[0.1] < MIN_DOCUMENTS <= n_heldout[0.3]


VOCABULARY = ["<bos>", *(f" {w}" for w in "abcdefgh"), *"ABCDEFGH", *map(str, range(8)), *".,;:!?-()"]


def written(folder, *, one_hot: bool, n: int = 12_000):
    """Tokens in documents of 40; activations: the token itself, or how much of a digit it is, beside noise."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, len(VOCABULARY), (n,), generator=generator)
    document, bos = torch.arange(n) // 40, torch.arange(n) % 20 == 0
    tokens[bos], document[bos] = 0, -1
    x = 0.1 * torch.randn(n, len(VOCABULARY), generator=generator)
    if one_hot:
        x[torch.arange(n), tokens] += 3
    else:
        x[:, 5] += torch.tensor([float(text.strip().isdigit()) for text in VOCABULARY])[tokens]
        x[:, 9] += 2.0 * (document % 3 == 0)
    return write_recording(folder, x, tokens, document, context_length=20, shard_contexts=200)


def coordinates_as_sae(d: int) -> ReLUSAE:
    weights = Weights(torch.eye(d), torch.full((d,), -0.2), torch.eye(d), torch.zeros(d))
    return ReLUSAE(weights, metadata=SAEMetadata(hook_point=HOOK))


def test_a_probe_that_knows_tokens_by_heart_is_not_selective(tmp_path):
    digit = [task for task in text_tasks(VOCABULARY) if task.name == "digit"]
    sae = coordinates_as_sae(len(VOCABULARY))
    heart = probe({"sae": sae}, written(tmp_path / "heart", one_hot=True), digit, config=SMALL)
    knows = probe({"sae": sae}, written(tmp_path / "knows", one_hot=False), digit, config=SMALL)
    by_heart, general = (score(each, ALL, len(VOCABULARY)) for each in (heart, knows))
    assert min(by_heart.accuracy.estimate, general.accuracy.estimate) > 0.98
    assert by_heart.selectivity < 0.1  # random labels of token types are answered as well
    assert general.selectivity > 0.3
    assert score(knows, "sae", 1).accuracy.estimate > 0.98
    assert score(heart, "sae", 1).accuracy.estimate < 0.65  # one latent is one of eight digits


def test_document_labels_are_asked_on_documents_that_no_probe_has_seen(tmp_path):
    recording = written(tmp_path / "documents", one_hot=False)
    tasks = recording_tasks(recording)
    assert [task.name for task in tasks] == ["late", "in label0", "in label1", "in label2"]
    found = probe({"sae": coordinates_as_sae(len(VOCABULARY))}, recording, tasks, config=SMALL)
    assert score(found, "sae", 1, "in label0").accuracy.estimate > 0.98
    assert score(found, "sae", 1, "in label0").control < 0.75  # some thirty documents: chance has room
    assert score(found, "sae", 1, "late").accuracy.estimate == pytest.approx(0.5, abs=0.05)
    assert "in label0" in found.table()


def test_labels_of_tokens_are_those_read_off_the_text(tmp_path):
    recording = written(tmp_path / "labels", one_hot=False, n=400)
    rows = torch.tensor([1, 18, 19, 21, 39, 399])
    tokens = tokens_at(recording, rows)
    assert tokens.token.tolist() == [int(recording.token_shard(0).tokens[r]) for r in rows]
    assert tokens.position.tolist() == [1, 18, 19, 1, 19, 19]
    assert tokens.document.tolist() == [0, 0, 0, 0, 0, 9]
    assert [t == LEFT_OUT for t in tokens.next_token] == [False, False, True, False, True, True]
    tasks = {task.name: task.label(tokens) for task in text_tasks(VOCABULARY)}
    for i, number in enumerate(tokens.token):
        text = VOCABULARY[number]
        assert tasks["digit"][i] == text.isdigit()
        assert tasks["punctuation"][i] == (text in ".,;:!?-()")
        assert tasks["capital"][i] == (text.isupper() if text.strip().isalpha() else LEFT_OUT)
        assert tasks["word start"][i] == (text.startswith(" ") if text.strip().isalpha() else LEFT_OUT)
        after = tokens.next_token[i]
        expected = LEFT_OUT if after < 0 else int(VOCABULARY[after] in ".,;:!?-()")
        assert tasks["next punctuation"][i] == expected


def test_control_labels_are_a_random_function_of_the_key_with_the_same_share():
    rng = np.random.default_rng(0)
    key, label = rng.integers(0, 300, 5000), (rng.random(5000) < 0.23).astype(np.int8)
    label[::7] = LEFT_OUT
    drawn = control_labels(key, label, seed=1, task="t")
    assert ((drawn == LEFT_OUT) == (label == LEFT_OUT)).all()
    for value in np.unique(key):
        assert len(set(drawn[(key == value) & (drawn != LEFT_OUT)])) <= 1
    assert (drawn == 1).sum() == pytest.approx((label == 1).sum(), rel=0.02)
    assert (drawn != control_labels(key, label, seed=2, task="t")).any()
    used = label != LEFT_OUT
    assert abs(np.corrcoef(drawn[used], label[used])[0, 1]) < 0.1


def test_counts_by_document_give_balanced_accuracy():
    rng = np.random.default_rng(0)
    document = rng.integers(0, 30, 600)
    nothing = np.zeros(600, np.int64)
    tally = Tally(Tokens(nothing, nothing, nothing, document, nothing), SMALL)
    label = rng.choice([0, 1, LEFT_OUT], 600).astype(np.int8)
    used = label != LEFT_OUT
    odds = rng.normal(size=used.sum()) + label[used]
    tally.add(("a", 1, "t", "labels"), odds, label)
    expected = balanced_accuracy_score(label[used], odds > 0)
    assert tally.accuracies["a", 1, "t", "labels"][0][0] == pytest.approx(expected)
    rounded = odds.round(1)  # with ties
    assert auroc(rounded, label[used] == 1) == pytest.approx(roc_auc_score(label[used], rounded))


@pytest.mark.parametrize(("n_yes", "given"), [(5, True), (1, False)])
def test_an_interval_is_given_where_resampled_texts_rarely_lack_an_answer(n_yes, given):
    rng = np.random.default_rng(0)
    document, nothing = np.repeat(np.arange(30), 20), np.zeros(600, np.int64)
    label = (document < n_yes).astype(np.int8)  # of n documents none is drawn with probability e^-n
    tally = Tally(Tokens(nothing, nothing, nothing, document, nothing), SMALL)
    for kind in ("labels", "control"):
        tally.add(("a", 1, "t", kind), rng.normal(size=600) + label - 0.5, label)
    tally.facts["t"] = TaskFacts(name="t", yes="", key="", base_rate=0.5, n_train=600, n_test=600)
    [score] = tally.result().scores
    assert math.isnan(score.accuracy.low) != given
    if given:
        assert score.accuracy.low < score.accuracy.estimate < score.accuracy.high


def test_features_are_chosen_by_the_difference_of_their_means():
    sae = coordinates_as_sae(6)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 6, generator=generator)
    label = np.where(torch.rand(200, generator=generator) < 0.5, 1, 0).astype(np.int8)
    label[:20] = LEFT_OUT
    x[label == 1, 3] += 5
    columns = sparse_columns(sae, x, batch_size=64)
    dense = np.asarray(columns.todense())
    np.testing.assert_allclose(dense, sae.encode(x).numpy(), atol=1e-6)
    expected = dense[label == 1].mean(0) - dense[label == 0].mean(0)
    np.testing.assert_allclose(mean_difference(columns, label), expected, atol=1e-5)  # float32 sums, near 5
    np.testing.assert_allclose(mean_difference(dense, label), expected, atol=1e-5)
    assert np.abs(expected).argmax() == 3
    used = label != LEFT_OUT
    odds = fit_probe(dense[used][:, [3]], label[used], dense[used][:, [3]], strength=1.0)
    assert ((odds > 0) == (label[used] == 1)).all()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_labels_from_a_file_become_tasks(tmp_path, suffix):
    recording = written(tmp_path / "recording", one_hot=False, n=800)
    path = tmp_path / f"mine.{suffix}"
    columns = {"document": [f"doc{i}" for i in range(20)], "label": ["x", "y"] * 10}
    if suffix == "parquet":
        pq.write_table(pa.table(columns), path)
    elif suffix == "jsonl":
        lines = [{"document": d, "label": x} for d, x in zip(*columns.values(), strict=True)]
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        with open(path, "w", newline="") as handle:
            csv.writer(handle).writerows([columns.keys(), *zip(*columns.values(), strict=True)])
    (task,) = file_tasks(path, recording, VOCABULARY)
    tokens = tokens_at(recording, torch.tensor([1, 50, 90]))
    assert (task.name, task.key) == ("mine: y", "document")
    assert task.label(tokens).tolist() == [d % 2 for d in tokens.document]


def test_token_labels_of_several_values_are_asked_one_against_the_others(tmp_path):
    recording = written(tmp_path / "recording", one_hot=False, n=400)
    path = tmp_path / "kinds.csv"
    path.write_text("token,label\n a,first\n b,second\nA,third\nnowhere,fourth\n")
    tasks = file_tasks(path, recording, VOCABULARY)
    assert [task.name for task in tasks] == ["kinds: first", "kinds: second", "kinds: third"]
    token = np.array([VOCABULARY.index(" a"), VOCABULARY.index(" b"), VOCABULARY.index("3")])
    assert tasks[0].label(Tokens(token, token, token, token, token)).tolist() == [1, 0, LEFT_OUT]


@pytest.mark.parametrize(
    ("name", "text", "error", "expected"),
    [
        ("a.txt", "x", ConfigError, ".csv, .jsonl and .parquet"),
        ("a.csv", None, MissingError, "no file"),
        ("a.parquet", "not a table", CorruptError, "cannot read"),
        ("a.csv", "document,value\ndoc0,1\n", ConfigError, "needs the columns"),
        ("a.csv", "document,label\nelsewhere,1\n", ConfigError, "names no document"),
        ("a.csv", "document,label\ndoc0,1\ndoc1,1\n", ConfigError, "1 different labels"),
    ],
)
def test_a_file_that_is_no_table_of_labels_is_refused(tmp_path, name, text, error, expected):
    recording = written(tmp_path / "recording", one_hot=False, n=400)
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(error, match=expected):
        file_tasks(tmp_path / name, recording, VOCABULARY)


def test_a_damaged_table_of_labels_is_named(tmp_path, damage_file):
    recording = written(tmp_path / "recording", one_hot=False, n=400)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"document": [f"doc{n}" for n in range(300)], "label": [n % 2 for n in range(300)]}), path)
    damage_file(path)
    with pytest.raises(CorruptError, match=r"cannot read .*a\.parquet: .*copy the file again"):
        file_tasks(path, recording, VOCABULARY)


def test_what_cannot_be_asked_is_said_or_refused(tmp_path, planted):
    recording, truth = planted
    never = row_task("never", "never", np.zeros(recording.n_rows))
    good = planted_tasks(recording, 2)
    found = probe({"truth": truth}, recording, [never, *good], config=SMALL)
    assert found.skipped == {"never": "0 training tokens answer yes, 20 are needed"}
    assert "not asked: never" in found.table()
    with pytest.raises(ConfigError, match="none of the tasks"):
        probe({"truth": truth}, recording, [never], config=SMALL)
    with pytest.raises(ConfigError, match="probes need"):
        probe({"truth": truth}, recording, good, config=SMALL, heldout_fraction=1e-9)
    with pytest.raises(ConfigError, match="read the same hook point"):
        probe({}, recording, good)
    with pytest.raises(ConfigError, match="width 40"):
        probe({"other": ReLUSAE(coordinates_as_sae(6).weights, metadata=truth.metadata)}, recording, good)
    with pytest.raises(ConfigError, match="k of 1 or more"):
        ProbingConfig(ks=(0,))
    with pytest.raises(MismatchError, match="true features are unknown"):
        planted_tasks(written(tmp_path / "real", one_hot=False, n=400))
