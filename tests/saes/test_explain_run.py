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
from explain_planted import EVEN_ONLY, TRIGGERS, planted_workspace
from fake_endpoint import FakeEndpoint, coin, completion, excerpts, perfect

from dashboard.data import features as view
from interp.artifacts import open_artefact, partial_path, read_manifest, verify
from interp.artifacts.tables import schema_of
from interp.errors import CorruptError, MismatchError
from interp.workspace import Workspace
from saes.explain._contexts import RANDOM, feature_rows
from saes.explain.adopt import adopt_labels
from saes.explain.cases import choose_features
from saes.explain.providers import ENDPOINT, ENDPOINT_MODEL
from saes.features.schema import LABEL_FIELDS, LABEL_SCORES, FeatureRow, Features
from saes.features.written_labels import SCORES, ContextJudgement, FeatureLabel, Labels, LabelScore
from workbench.__main__ import main

KEY = "sk-secret-of-the-test-456"
ALL = [str(feature) for feature in range(len(TRIGGERS))]


@pytest.fixture(scope="module")
def workspace(one_thread, tmp_path_factory) -> Workspace:
    return planted_workspace(tmp_path_factory.mktemp("explain") / "workspace")


def command(workspace: Workspace, fake: FakeEndpoint, name: str, *more: str, features=("0", "1", "3")) -> list[str]:
    words = ["explain", "planted", "--workspace", str(workspace.root), "--threads", "1", "--name", name, "--yes"]
    # the model's name is the run's, so that no run of one test finds the replies of another
    return [*words, "--provider", fake.url, "--model", name, "--features", *features, *more]


def run(*arguments, **settings) -> int:
    return main(command(*arguments, **settings))


def labels_of(workspace: Workspace, name: str) -> Labels:
    return workspace.open(Labels, name)


def rows_of(workspace: Workspace, name: str) -> list[FeatureLabel]:
    return labels_of(workspace, name).labels.rows(order="feature")


def scores_of(workspace: Workspace, name: str, score: str = "detection") -> dict[int, LabelScore]:
    return {each.feature: each for each in labels_of(workspace, name).scores.rows("name = ?", score)}


def trials_of(workspace: Workspace, name: str) -> list[ContextJudgement]:
    return labels_of(workspace, name).trials.rows()


def replies_of(workspace: Workspace, name: str) -> bytes:
    return (workspace.path("labels", name) / "replies.jsonl").read_bytes()


@pytest.fixture(scope="module")
def explained(workspace):
    """All planted features, explained and judged by one who reads perfectly; with a key that must not be found."""
    os.environ["WORKBENCH_API_KEY"] = KEY
    try:
        with FakeEndpoint() as fake:
            assert run(workspace, fake, "perfect", "--into", "labelled", features=ALL) == 0
    finally:
        del os.environ["WORKBENCH_API_KEY"]
    return fake


def test_planted_features_are_explained_and_recognised(workspace, explained):
    rows = rows_of(workspace, "perfect")
    for row, characters in zip(rows, TRIGGERS, strict=True):
        named = {chr(int(number)) for number in str(row.label).split()[1:]}
        assert named <= set(characters)
        assert len(named) >= 2
        for score in SCORES:
            assert scores_of(workspace, "perfect", score)[row.feature].accuracy >= 0.85, (row.feature, score)
    found = labels_of(workspace, "perfect")
    assert found.means["detection"].own.mean.estimate > 0.97
    assert found.means["fuzzing"].own.mean.estimate > 0.99
    assert found.unanswered == 0


def test_another_feature_s_label_is_worth_a_half(workspace, explained):
    for score in SCORES:
        found = labels_of(workspace, "perfect").means[score]
        assert found.null.mean.estimate == pytest.approx(0.5, abs=0.1)
        assert found.gain.mean.low > 0.3
    for row in rows_of(workspace, "perfect"):
        assert row.null_feature != row.feature


def test_negatives_are_silent_and_positives_fire(workspace, explained):
    tokens = np.concatenate([
        part.tokens.numpy() for part in map(recording(workspace).token_shard, range(recording(workspace).n_shards))
    ])  # fmt: skip
    hard = 0
    for each in trials_of(workspace, "perfect"):
        if each.scorer == "fuzzing":
            continue
        start = each.row // 40 * 40
        low, high = max(start + 1, each.row - 8), min(start + 40, each.row + 9)
        fires = np.isin(tokens[low:high], [ord(c) for c in TRIGGERS[each.feature]]).any()
        assert fires == each.truth
        hard += each.group not in (RANDOM, "top", "q1", "q2", "q3", "q4")
    assert hard > 0


def recording(workspace):
    from interp.recording.store import Recording

    return Recording(workspace.path("recording", "planted"))


def test_what_is_judged_was_not_shown(workspace, explained):
    for row in rows_of(workspace, "perfect"):
        assert len(row.heldout_rows) >= 8
        nearest = np.abs(np.subtract.outer(row.shown_rows, row.heldout_rows)).min()
        assert nearest >= 9, "windows of 17 tokens may be cut to 9 by the start of a context, and not overlap"


def test_the_scores_can_be_computed_again_from_the_trials(workspace, explained):
    trials = trials_of(workspace, "perfect")
    for feature, found in scores_of(workspace, "perfect", "fuzzing").items():
        own = [t for t in trials if t.feature == feature == t.label_of and t.scorer == "fuzzing"]
        right = [np.mean([t.answer == t.truth for t in own if t.truth == side]) for side in (True, False)]
        assert found.accuracy == pytest.approx(np.mean(right))
        assert found.n == len(own)


def test_the_artefact_is_whole_documented_and_without_the_key(workspace, explained):
    folder = workspace.path("labels", "perfect")
    assert verify(folder) == []
    features = workspace.manifest("features", "planted")
    assert read_manifest(folder).parents["features/planted"] == features.content_hash
    assert {"saes/planted", "recordings/planted"} <= read_manifest(folder).parents.keys()
    assert explained.headers[0]["Authorization"] == f"Bearer {KEY}"
    for path in folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_labels_taken_in_are_shown_and_the_old_ones_stay_beside(workspace, explained):
    old, new = (pq.read_table(workspace.path("features", n) / "features.parquet") for n in ("planted", "labelled"))
    assert new.schema.equals(schema_of(FeatureRow))
    about = ["label", "label_source", *LABEL_FIELDS, *LABEL_SCORES, "other_labels", "other_sources", "other_scores"]
    assert new.drop_columns(about).equals(old.drop_columns(about))
    assert new["label_kind"].to_pylist()[: len(ALL)] == ["written"] * len(ALL)
    assert new["label"][0].as_py() == rows_of(workspace, "perfect")[0].label
    assert new["other_labels"][0].as_py() == [old["label"][0].as_py(), *old["other_labels"][0].as_py()]
    score = scores_of(workspace, "perfect", "detection")[0]
    assert (new["label_score"][0].as_py(), new["label_heldout"][0].as_py()) == (pytest.approx(score.accuracy), 12)
    assert new["label_null_high"][0].as_py() < score.accuracy
    assert new["label_source"].to_pylist()[: len(ALL) + 1] == ["perfect"] * len(ALL) + ["token statistics"]
    assert verify(workspace.path("features", "labelled")) == []
    for name in ("planted", "labelled"):
        described = view.explanations(workspace, workspace.open(Features, name), 0)
        (found,) = [label for label in described if label.made.name == "perfect"]
        assert found.label.statistics_label == old["label"][0].as_py()
        assert found.to_json()["scores"][0]["accuracy"] > 0.85
    assert view.explanations(workspace, workspace.open(Features, "labelled"), 60) == []


def test_labels_of_other_features_are_not_taken_in(workspace, explained, tmp_path):
    with pytest.raises(MismatchError, match="was not made for"):
        adopt_labels(labels_of(workspace, "perfect"), workspace.open(Features, "labelled"), tmp_path / "x")


@pytest.fixture
def copies(workspace, explained, tmp_path) -> dict[str, Path]:
    """Copies of the labels and of the features that they were made for, to be damaged."""
    kinds = {"labels": "perfect", "features": "planted"}
    return {kind: Path(shutil.copytree(workspace.path(kind, n), tmp_path / kind / n)) for kind, n in kinds.items()}


@pytest.mark.parametrize("table", ["labels", "features"])
def test_labels_of_a_damaged_table_are_not_taken_in(copies, table, damage_file, tmp_path):
    damage_file(copies[table] / f"{table}.parquet")
    with pytest.raises(CorruptError, match=rf"cannot read .*{table}\.parquet"):
        adopt_labels(
            open_artefact(Labels, copies["labels"]), open_artefact(Features, copies["features"]), tmp_path / "x"
        )
    assert not partial_path(tmp_path / "x").exists()


def test_damaged_tables_of_features_are_named(copies, damage_file):
    features = copies["features"]
    for table in ("features", "examples"):
        damage_file(features / f"{table}.parquet")
    with pytest.raises(CorruptError, match=r"cannot read .*features\.parquet"):
        choose_features(features, top=3)
    for table in ("features", "examples"):
        with pytest.raises(CorruptError, match=rf"cannot read .*{table}\.parquet"):
            feature_rows(features, table, [0, 1])


def test_a_judge_who_does_not_read_scores_a_half(workspace):
    with FakeEndpoint(lambda prompt, number: coin(prompt)) as fake:
        assert run(workspace, fake, "coin", features=ALL) == 0
    for score in SCORES:
        found = labels_of(workspace, "coin").means[score]
        assert found.own.mean.estimate == pytest.approx(0.5, abs=0.1)
        assert found.gain.mean.low < 0 < found.gain.mean.high


def test_labels_that_do_not_hold_are_left_out(workspace, tmp_path):
    with FakeEndpoint(lambda prompt, number: coin(prompt)) as fake:
        assert run(workspace, fake, "guessed", features=ALL) == 0
    features = workspace.open(Features, "planted")
    adopted = adopt_labels(labels_of(workspace, "guessed"), features, tmp_path / "features" / "x")
    kinds = adopted.features.arrow()["label_kind"].to_pylist()
    scores = scores_of(workspace, "guessed", "detection")
    right = [score.accuracy >= 0.75 and score.accuracy > score.null for score in scores.values()]
    assert [kinds[feature] == "written" for feature in scores] == right
    assert sum(right) <= len(right) / 4
    assert adopted.features.arrow()["label"].to_pylist()[60:] == features.features.arrow()["label"].to_pylist()[60:]


def test_look_alikes_find_out_a_label_that_says_too_little(workspace):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "half-true", features=("3", str(EVEN_ONLY))) == 0
    hard, easy = scores_of(workspace, "half-true", "detection_hard"), scores_of(workspace, "half-true")
    assert hard[3].accuracy == 1.0
    assert hard[EVEN_ONLY].accuracy < easy[EVEN_ONLY].accuracy - 0.05 < 1
    same = labels_of(workspace, "half-true").trials.rows('"group" = ? and label_of = ?', "same token", EVEN_ONLY)
    assert len(same) >= 4
    assert all(t.answer and not t.truth for t in same if t.feature == EVEN_ONLY)


def test_replies_that_cannot_be_read_are_worth_a_half_and_counted(workspace, capsys):
    def answer(prompt, number):
        return perfect(prompt) if "Explanation:" in prompt else "I would say yes, mostly."

    with FakeEndpoint(answer) as fake:
        assert run(workspace, fake, "mute") == 0
    found = labels_of(workspace, "mute")
    assert found.unanswered == 1.0
    for score in SCORES:
        assert found.means[score].own.mean.estimate == 0.5
    assert {each.answer for each in trials_of(workspace, "mute")} == {None}
    assert "100% of the judgements could not be read" in capsys.readouterr().out


def test_a_label_that_cannot_be_read_is_none_and_is_not_scored(workspace):
    def answer(prompt, number):
        return "\n\n" if "Explanation:" in prompt and number % 2 else perfect(prompt)

    with FakeEndpoint(answer) as fake:
        assert run(workspace, fake, "unlabelled", "--concurrency", "1", features=ALL[:4]) == 0
    rows = rows_of(workspace, "unlabelled")
    assert [row.label is None for row in rows] == [False, True, False, True]
    assert list(scores_of(workspace, "unlabelled")) == [0, 2]
    assert labels_of(workspace, "unlabelled").n_labelled == 2


def test_the_token_statistics_can_be_scored_too(workspace):
    def answer(prompt, number):
        """A judge who reads labels such as `"A", "B" (100 %)`."""
        label = json.loads(re.search(r'fires on: (".*")$', prompt, flags=re.MULTILINE).group(1))
        known = {json.loads(text) for text in re.findall(r'"(?:[^"\\]|\\.)*"', label)}
        assert "Explanation:" not in prompt
        return json.dumps([int(bool(known & set(text))) for text in excerpts(prompt)])

    with FakeEndpoint(answer) as fake:
        more = ("--label-from", "token-statistics")
        assert run(workspace, fake, "statistics", *more, features=("3", "4", "5")) == 0
    rows = rows_of(workspace, "statistics")
    assert all(row.label == row.statistics_label for row in rows)
    assert all(row.label_source == "token statistics" for row in rows)
    assert labels_of(workspace, "statistics").label_source == "token statistics"
    assert [score.accuracy for score in scores_of(workspace, "statistics").values()] == [1.0] * 3


def test_the_plan_is_what_is_sent(workspace, capsys):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "plan", "--dry-run", "--price-in", "1000", "--price-out", "0") == 0
        out = capsys.readouterr().out
        assert fake.prompts == [], "a dry run sends nothing"
        assert not partial_path(workspace.path("labels", "plan")).exists()
        planned, tokens = (int(re.search(p, out).group(1).replace(",", "")) for p in
                           (r"([\d,]+) requests to send", r"about ([\d,]+) tokens in"))  # fmt: skip
        assert f"at most {tokens / 1000:,.2f} at the prices given" in out
        assert run(workspace, fake, "plan") == 0
        assert len(fake.prompts) == len(set(fake.prompts)) == planned
        sent = sum(len(prompt.encode()) for prompt in fake.prompts) / 3.5
        assert tokens == pytest.approx(sent, rel=0.15), "labels were not known when it was counted"
        assert fake.url in out


def test_a_plan_over_the_budget_sends_nothing(workspace, capsys):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "budget", "--max-requests", "5") == 2
        assert fake.prompts == []
    assert "the budget is 5" in capsys.readouterr().err


def test_a_name_that_is_taken_is_refused_before_anything_is_sent(workspace, explained, capsys):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "perfect") == 2
        assert run(workspace, fake, "fresh", "--into", "planted") == 2
        assert fake.prompts == []
    assert capsys.readouterr().err.count("is already there") == 2


def test_replies_that_were_cut_off_are_counted(workspace, capsys):
    cut = json.dumps({"choices": [{"message": {"content": "[1,"}, "finish_reason": "length"}]}).encode()
    with FakeEndpoint(lambda p, n: perfect(p) if "Explanation:" in p else (200, {}, cut)) as fake:
        assert run(workspace, fake, "cut", features=("3",)) == 0
    assert "replies were cut off at --max-tokens" in capsys.readouterr().out
    replies = labels_of(workspace, "cut").replies
    assert replies.cut == len(fake.prompts) - 1


def test_nothing_is_sent_unasked(workspace, capsys):
    with FakeEndpoint() as fake:
        words = [word for word in command(workspace, fake, "unasked") if word != "--yes"]
        assert main(words) == 2
        assert fake.prompts == []
    assert "add --yes to agree" in capsys.readouterr().err


def test_a_run_that_dies_goes_on_and_sends_nothing_twice(workspace, capsys):
    good: list[str] = []

    def answer(prompt, number):
        if number >= 20 and not good:
            return 500, {}, b"out of memory"
        return perfect(prompt)

    with FakeEndpoint(answer) as fake:
        assert run(workspace, fake, "dies", "--retries", "0") == 2
        assert "the replies so far are saved" in capsys.readouterr().err
        answered = fake.prompts[:20]
        assert partial_path(workspace.path("labels", "dies")).exists()
        good.append("now")
        before = len(fake.prompts)
        assert run(workspace, fake, "dies", "--retries", "0") == 0
        assert not set(answered) & set(fake.prompts[before:])
    assert run(workspace, fake, "dies", "--overwrite") == 0, "all replies are here, and the endpoint is gone"
    assert "nothing to send" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_killed_in_the_middle_goes_on_to_the_same_bytes(workspace):
    reached: list[float] = []

    def answer(prompt, number):
        if number == 25 and not reached:
            reached.append(time.monotonic())
            time.sleep(60)
        return perfect(prompt)

    with FakeEndpoint(answer) as fake:
        words = [sys.executable, "-m", "workbench", *command(workspace, fake, "killed", "--concurrency", "1")]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not reached and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        assert reached, "the run ended before it was killed"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        partial = partial_path(workspace.path("labels", "killed"))
        with open(partial / "replies.jsonl", "ab") as handle:
            handle.write(b'{"key": "half a li')  # what a kill while writing leaves
        assert run(workspace, fake, "killed") == 0
        counts = Counter(fake.prompts)
        waiting = fake.prompts[25]
        assert counts.pop(waiting) == 2, "the request in flight is asked again"
        assert set(counts.values()) == {1}, "what was answered is not"
        first = replies_of(workspace, "killed")
        assert run(workspace, fake, "killed", "--overwrite") == 0
        assert replies_of(workspace, "killed") == first
        assert len(first.splitlines()) == len(set(fake.prompts))


def test_another_selection_asks_only_what_is_new(workspace):
    with FakeEndpoint() as fake:
        words = ("--no-null",)
        name = "selection"
        assert run(workspace, fake, name, *words, features=("4", "5")) == 0
        before = len(fake.prompts)
        more = command(workspace, fake, name, *words, features=("4", "5", "6"))
        more[more.index("--name") + 1] = "selection-2"
        assert main(more) == 0
        assert 0 < len(fake.prompts) - before < before
        assert len(set(fake.prompts)) == len(fake.prompts)
    rows = rows_of(workspace, "selection-2")
    assert [score.null for score in scores_of(workspace, "selection-2").values()] == [None] * 3
    assert rows[:2] == rows_of(workspace, name)[:2]


def test_busy_endpoints_are_waited_for(workspace):
    asked = set()

    def busy_at_first(p, n):
        if (request := repr(p)) in asked:
            return perfect(p)
        asked.add(request)
        return 429, {"Retry-After": "0"}, b""

    with FakeEndpoint(busy_at_first) as fake:
        assert run(workspace, fake, "busy", features=("1", "3")) == 0
    assert len(asked) > 20
    assert labels_of(workspace, "busy").means["detection"].own.mean.estimate == 1.0


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
        (["--top", "3", "--sample", "3"], "choose features in one way"),
        ([], "choose features in one way"),
        (["--top", "0"], "choose features in one way"),
        (["--top", "3", "--shown", "1"], "shown must lie between 2 and 100"),
        (["--top", "3", "--max-tokens", "1"], "max_tokens must be at least 16"),
        (["--top", "3", "--temperature", "9"], "temperature must lie between 0 and 2"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(workspace, more, expected, capsys):
    with FakeEndpoint() as fake:
        words = [
            "explain",
            "planted",
            "--workspace",
            str(workspace.root),
            "--provider",
            fake.url,
            "--model",
            "m",
            *more,
        ]
        assert main(words) == 2
        assert fake.prompts == []
    assert expected in capsys.readouterr().err


def test_label_asks_the_endpoint_of_the_environment(workspace, monkeypatch, capsys):
    words = ["label", "planted", "--workspace", str(workspace.root), "--threads", "1", "--features", "0", "3"]
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert main(words) == 2
    assert f"set ${ENDPOINT}" in capsys.readouterr().err
    with FakeEndpoint() as fake:
        monkeypatch.setenv(ENDPOINT, fake.url)
        monkeypatch.setenv(ENDPOINT_MODEL, "of-the-environment")
        assert main(words) == 0
        assert fake.prompts
    found = labels_of(workspace, "planted-0-and-1-more")
    assert [row.feature for row in found.labels.rows()] == [0, 3]
    assert found.judge == "of-the-environment"


@pytest.mark.parametrize(("way", "n"), [("--top", 3), ("--sample", 3)])
def test_features_are_chosen_by_frequency_or_by_chance(workspace, way, n):
    with FakeEndpoint() as fake:
        words = ["explain", "planted", "--workspace", str(workspace.root), "--provider", fake.url, "--model", way[2:]]
        assert main([*words, way, str(n), "--yes", "--no-null"]) == 0
    found = [row.feature for row in rows_of(workspace, f"planted-{way[2:]}")]
    assert len(found) == n
    table = pq.read_table(workspace.path("features", "planted") / "features.parquet").to_pydict()
    fired = np.array(table["n_fired"])
    assert all(fired[found] > 0)
    if way == "--top":
        assert sorted(fired[found]) == sorted(fired)[-n:]


def test_the_same_label_is_no_null(workspace):
    with FakeEndpoint(lambda p, n: "Explanation: characters 65 66" if "Explanation:" in p else perfect(p)) as fake:
        assert run(workspace, fake, "same", features=("3", "4")) == 0
    assert [score.null for score in scores_of(workspace, "same").values()] == [None, None]
    assert len(set(fake.prompts)) == len(fake.prompts)


def test_a_null_needs_a_second_feature(workspace):
    with FakeEndpoint() as fake:
        assert run(workspace, fake, "single", features=("3",)) == 0
    (found,) = scores_of(workspace, "single").values()
    assert (found.accuracy, found.null) == (1.0, None)
    assert labels_of(workspace, "single").means["detection"].gain is None


def test_a_null_body_is_an_empty_reply(workspace):
    with FakeEndpoint(lambda *_: (200, {}, completion(None))) as fake:
        assert run(workspace, fake, "empty", features=("3",)) == 0
    assert rows_of(workspace, "empty")[0].label is None
    assert trials_of(workspace, "empty") == []
