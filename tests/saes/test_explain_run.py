"""`workbench explain` on planted features: good judges score 1, wrong labels and coins a half."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from explain_planted import TRIGGERS, planted_workspace
from fake_endpoint import FakeEndpoint, coin, completion, perfect

from dashboard.data import features as view
from interp.artifacts import open_artefact, partial_path, read_manifest, verify
from interp.artifacts.tables import schema_of
from interp.errors import CorruptError, MismatchError
from interp.recording.store import Recording
from interp.workspace import Workspace
from saes.explain.adopt import adopt_labels
from saes.explain.endpoint import ENDPOINT, ENDPOINT_MODEL, KEY
from saes.explain.run import RANDOM
from saes.features.schema import LABEL_FIELDS, LABEL_SCORES, FeatureRow, Features
from saes.features.written_labels import FeatureLabel, Labels, LabelScore
from workbench.__main__ import main

SECRET = "sk-secret-of-the-test-456"
ALL = [str(feature) for feature in range(len(TRIGGERS))]


@pytest.fixture(scope="module")
def workspace(one_thread, tmp_path_factory) -> Workspace:
    return planted_workspace(tmp_path_factory.mktemp("explain") / "workspace")


@pytest.fixture(scope="module", autouse=True)
def environment():
    """The test's own endpoint, whatever the machine names."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (ENDPOINT, ENDPOINT_MODEL, KEY):
            patch.delenv(name, raising=False)
        yield


def command(workspace: Workspace, name: str, *more: str, features=("0", "1", "3")) -> list[str]:
    words = ["explain", "planted", "--workspace", str(workspace.root), "--threads", "1", "--name", name, "--yes"]
    return [*words, "--features", *features, *more]


def run(workspace: Workspace, fake: FakeEndpoint, name: str, *more: str, key: str = "", **settings) -> int:
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in ((ENDPOINT, fake.url), (ENDPOINT_MODEL, "my-model"), (KEY, key)):
            patch.setenv(variable, value)
        return main(command(workspace, name, *more, **settings))


def labels_of(workspace: Workspace, name: str) -> Labels:
    return workspace.open(Labels, name)


def rows_of(workspace: Workspace, name: str) -> list[FeatureLabel]:
    return labels_of(workspace, name).labels.rows(order="feature")


def scores_of(workspace: Workspace, name: str) -> dict[int, LabelScore]:
    return {each.feature: each for each in labels_of(workspace, name).scores.rows()}


@pytest.fixture(scope="module")
def explained(workspace):
    """All planted features, explained and judged by one who reads perfectly; with a key that must not be found."""
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "perfect", "--into", "labelled", features=ALL, key=SECRET) == 0
    return fake


def test_planted_features_are_explained_and_recognised(workspace, explained):
    for row, characters in zip(rows_of(workspace, "perfect"), TRIGGERS, strict=True):
        named = {chr(int(number)) for number in str(row.label).split()[1:]}
        assert named <= set(characters)
        assert len(named) >= 2
        assert scores_of(workspace, "perfect")[row.feature].accuracy >= 0.85, row.feature
    found = labels_of(workspace, "perfect")
    assert found.means.own.mean.estimate > 0.97
    assert found.unanswered == 0


def test_another_feature_s_label_is_worth_a_half(workspace, explained):
    found = labels_of(workspace, "perfect").means
    assert found.null.mean.estimate == pytest.approx(0.5, abs=0.1)
    assert found.gain.mean.low > 0.3
    for row in rows_of(workspace, "perfect"):
        assert row.null_feature != row.feature


def test_negatives_are_silent_and_positives_fire(workspace, explained):
    recording = Recording(workspace.path("recording", "planted"))
    tokens = np.concatenate([recording.token_shard(shard).tokens.numpy() for shard in range(recording.n_shards)])
    trials = labels_of(workspace, "perfect").trials.rows()
    for each in trials:
        assert (chr(tokens[each.row]) in TRIGGERS[each.feature]) == each.truth
        assert (each.group == RANDOM) != each.truth
    assert 0.4 < np.mean([each.truth for each in trials]) < 0.6


def test_what_is_judged_was_not_shown(workspace, explained):
    for row in rows_of(workspace, "perfect"):
        assert len(row.heldout_rows) >= 8
        nearest = np.abs(np.subtract.outer(row.shown_rows, row.heldout_rows)).min()
        assert nearest >= 9, "windows of 17 tokens may be cut to 9 by the start of a context, and not overlap"


def test_the_scores_can_be_computed_again_from_the_trials(workspace, explained):
    trials = labels_of(workspace, "perfect").trials.rows()
    for feature, found in scores_of(workspace, "perfect").items():
        own = [t for t in trials if t.feature == feature == t.label_of]
        right = [np.mean([t.answer == t.truth for t in own if t.truth == side]) for side in (True, False)]
        assert found.accuracy == pytest.approx(np.mean(right))
        assert found.n == len(own)


def test_the_artefact_is_whole_and_without_the_key(workspace, explained):
    folder = workspace.path("labels", "perfect")
    assert verify(folder) == []
    features = workspace.manifest("features", "planted")
    assert read_manifest(folder).parents == {"features/planted": features.content_hash}
    assert explained.headers[0]["Authorization"] == f"Bearer {SECRET}"
    for path in folder.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_labels_taken_in_are_shown_and_the_old_ones_stay_beside(workspace, explained):
    old, new = (pq.read_table(workspace.path("features", n) / "features.parquet") for n in ("planted", "labelled"))
    assert new.schema.equals(schema_of(FeatureRow))
    about = ["label", "label_source", *LABEL_FIELDS, *LABEL_SCORES, "other_labels", "other_sources", "other_scores"]
    assert new.drop_columns(about).equals(old.drop_columns(about))
    assert new["label_kind"].to_pylist()[: len(ALL)] == ["written"] * len(ALL)
    assert new["label"][0].as_py() == rows_of(workspace, "perfect")[0].label
    assert new["other_labels"][0].as_py() == [old["label"][0].as_py(), *old["other_labels"][0].as_py()]
    score = scores_of(workspace, "perfect")[0]
    assert (new["label_score"][0].as_py(), new["label_heldout"][0].as_py()) == (pytest.approx(score.accuracy), 12)
    assert new["label_null_high"][0].as_py() < score.accuracy
    assert new["label_source"].to_pylist()[: len(ALL) + 1] == ["my-model"] * len(ALL) + ["token statistics"]
    assert verify(workspace.path("features", "labelled")) == []
    for name in ("planted", "labelled"):
        described = view.explanations(workspace, workspace.open(Features, name), 0)
        (found,) = [label for label in described if label.made.name == "perfect"]
        assert found.label.statistics_label == old["label"][0].as_py()
        assert found.to_json()["score"]["accuracy"] > 0.85
    assert view.explanations(workspace, workspace.open(Features, "labelled"), 60) == []


def test_labels_of_other_features_are_not_taken_in(workspace, explained, tmp_path):
    with pytest.raises(MismatchError, match="was not made for"):
        adopt_labels(labels_of(workspace, "perfect"), workspace.open(Features, "labelled"), tmp_path / "x")


@pytest.mark.parametrize("table", ["labels", "features"])
def test_labels_of_a_damaged_table_are_not_taken_in(workspace, explained, table, damage_file, tmp_path):
    names = {"labels": "perfect", "features": "planted"}
    copies = {kind: Path(shutil.copytree(workspace.path(kind, n), tmp_path / kind / n)) for kind, n in names.items()}
    damage_file(copies[table] / f"{table}.parquet")
    with pytest.raises(CorruptError, match=rf"cannot read .*{table}\.parquet"):
        adopt_labels(
            open_artefact(Labels, copies["labels"]), open_artefact(Features, copies["features"]), tmp_path / "x"
        )
    assert not partial_path(tmp_path / "x").exists()


def test_the_labels_of_a_judge_who_does_not_read_score_a_half_and_are_left_out(workspace, tmp_path):
    with FakeEndpoint(lambda prompt, number: coin(prompt)) as fake:
        assert run(workspace, fake, "coin", features=ALL) == 0
    found = labels_of(workspace, "coin")
    assert found.means.own.mean.estimate == pytest.approx(0.5, abs=0.1)
    assert found.means.gain.mean.low < 0 < found.means.gain.mean.high
    features = workspace.open(Features, "planted")
    adopted = adopt_labels(found, features, tmp_path / "features" / "x").features.arrow()
    kinds, scores = adopted["label_kind"].to_pylist(), scores_of(workspace, "coin")
    right = [score.accuracy >= 0.75 and score.accuracy > score.null for score in scores.values()]
    assert [kinds[feature] == "written" for feature in scores] == right
    assert sum(right) <= len(right) / 4
    assert adopted["label"].to_pylist()[60:] == features.features.arrow()["label"].to_pylist()[60:]


def test_replies_that_cannot_be_read_are_worth_a_half_and_counted(workspace, capsys):
    def answer(prompt, number):
        return perfect(prompt) if "Explanation:" in prompt else "I would say yes, mostly."

    with FakeEndpoint(answer) as fake:
        assert run(workspace, fake, "mute") == 0
    found = labels_of(workspace, "mute")
    assert (found.unanswered, found.means.own.mean.estimate) == (1.0, 0.5)
    assert {each.answer for each in found.trials.rows()} == {None}
    assert "100% of the judgements could not be read" in capsys.readouterr().out


def test_a_label_that_cannot_be_read_is_none_and_is_not_scored(workspace):
    unread: set[str] = set()

    def answer(prompt, number):
        if "Explanation:" in prompt and len(unread) < 2:
            unread.add(prompt)
        return (200, {}, completion(None)) if prompt in unread else perfect(prompt)

    with FakeEndpoint(answer) as fake:
        assert run(workspace, fake, "unlabelled", features=ALL[:4]) == 0
    rows, scores = rows_of(workspace, "unlabelled"), scores_of(workspace, "unlabelled")
    assert [row.feature for row in rows if row.label is not None] == list(scores)
    assert labels_of(workspace, "unlabelled").n_labelled == len(scores) == 2


def test_the_plan_is_what_is_sent(workspace, capsys):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "plan", "--dry-run", "--price-in", "1000") == 0
        out = capsys.readouterr().out
        assert fake.prompts == [], "a dry run sends nothing"
        assert not partial_path(workspace.path("labels", "plan")).exists()
        planned, tokens = (int(re.search(p, out).group(1).replace(",", "")) for p in
                           (r"([\d,]+) requests to send", r"about ([\d,]+) tokens in"))  # fmt: skip
        assert f"to {fake.url}; at most {tokens / 1000:,.2f} at the prices given" in out
        assert run(workspace, fake, "plan") == 0
        assert len(fake.prompts) == len(set(fake.prompts)) == planned
        sent = sum(len(prompt.encode()) for prompt in fake.prompts) / 3.5
        assert tokens == pytest.approx(sent, rel=0.15), "labels were not known when it was counted"


def test_nothing_is_sent_unasked_over_the_budget_or_under_a_name_that_is_taken(workspace, explained, capsys):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "budget", "--max-requests", "5") == 2
        assert run(workspace, fake, "unasked", "--no-yes") == 2
        assert run(workspace, fake, "perfect") == 2
        assert run(workspace, fake, "fresh", "--into", "planted") == 2
        assert fake.prompts == []
    said = capsys.readouterr().err
    assert "the budget is 5" in said
    assert "add --yes to agree" in said
    assert said.count("is already there") == 2


def test_without_an_endpoint_the_variables_are_named(workspace, capsys):
    assert main(command(workspace, "nobody")) == 2
    assert f"set ${ENDPOINT}" in capsys.readouterr().err


def test_replies_that_were_cut_off_are_counted(workspace, capsys):
    cut = json.dumps({"choices": [{"message": {"content": "[1,"}, "finish_reason": "length"}]}).encode()
    with FakeEndpoint(lambda p, n: perfect(p) if "Explanation:" in p else (200, {}, cut)) as fake:
        assert run(workspace, fake, "cut", features=("3",)) == 0
    assert "replies were cut off at --max-tokens" in capsys.readouterr().out
    assert labels_of(workspace, "cut").replies.cut == len(fake.prompts) - 1


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_to_the_same_bytes(workspace, monkeypatch):
    reached: list[float] = []

    def answer(prompt, number):
        if number >= 20 and not stopped:
            reached.append(time.monotonic())
            time.sleep(60)
        return perfect(prompt)

    stopped: list[bool] = []
    with FakeEndpoint(answer) as fake:
        monkeypatch.setenv(ENDPOINT, fake.url)
        monkeypatch.setenv(ENDPOINT_MODEL, "my-model")
        words = [sys.executable, "-m", "workbench", *command(workspace, "killed")]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(reached) < 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert reached, "the run ended before it was killed"
        time.sleep(1)  # until what was answered is on the disk
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        stopped.append(True)
        replies = partial_path(workspace.path("labels", "killed")) / "replies.jsonl"
        assert len(replies.read_bytes().splitlines()) == 20
        with open(replies, "ab") as handle:
            handle.write(b'{"key": "half a li')  # what a kill while writing leaves
        assert run(workspace, fake, "killed") == 0
    counts = Counter(fake.prompts)
    assert set(counts.values()) == {1, 2}
    assert sum(n == 2 for n in counts.values()) == 4, "the requests in flight are asked again, what was answered is not"
    first = (workspace.path("labels", "killed") / "replies.jsonl").read_bytes()
    assert len(first.splitlines()) == len(counts)
    with FakeEndpoint() as other:
        fresh = run(workspace, other, "whole")
    assert fresh == 0
    assert rows_of(workspace, "killed") == rows_of(workspace, "whole")
    assert scores_of(workspace, "killed") == scores_of(workspace, "whole")


def test_a_dead_feature_is_left_out_with_the_reason(workspace, capsys):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "dead", features=("0", "1", "40")) == 0
        assert "feature 40 is skipped: it fires in only 0 different contexts" in capsys.readouterr().out
        assert run(workspace, fake, "dead-alone", features=("40",)) == 2
    assert "none of these features can be explained" in capsys.readouterr().err
    assert labels_of(workspace, "dead").skipped.keys() == {40}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--features", "99"], "its features are 0 to 63"),
        (["--top", "3", "--features", "3"], "choose features in one way"),
        ([], "explain takes one of"),
        (["--top", "-1"], "choose features in one way"),
        (["--top", "3", "--like", "planted"], "explain takes one of"),
        (["--top", "3", "--shown", "1"], "shown must lie between 2 and 100"),
        (["--top", "3", "--max-tokens", "1"], "max_tokens must be at least 16"),
    ],
)
def test_what_cannot_be_asked_is_refused(workspace, more, expected, capsys):
    assert main(["explain", "planted", "--workspace", str(workspace.root), *more]) == 2
    assert expected in capsys.readouterr().err


def test_the_most_frequent_features_are_chosen(workspace, capsys):
    with FakeEndpoint() as fake, pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT, fake.url)
        patch.setenv(ENDPOINT_MODEL, "my-model")
        assert main(["explain", "planted", "--workspace", str(workspace.root), "--top", "3", "--yes"]) == 0
    found = [row.feature for row in rows_of(workspace, "planted-top-3")]
    fired = np.array(pq.read_table(workspace.path("features", "planted") / "features.parquet")["n_fired"])
    assert sorted(fired[found]) == sorted(fired)[-3:]


def test_the_same_label_and_a_single_feature_have_no_null(workspace):
    with FakeEndpoint(lambda p, n: "Explanation: characters 65 66" if "Explanation:" in p else perfect(p)) as fake:
        assert run(workspace, fake, "same", features=("3", "4")) == 0
        assert run(workspace, fake, "single", features=("3",)) == 0
    assert [score.null for score in scores_of(workspace, "same").values()] == [None, None]
    (alone,) = scores_of(workspace, "single").values()
    assert (alone.null, labels_of(workspace, "single").means.gain) == (None, None)
