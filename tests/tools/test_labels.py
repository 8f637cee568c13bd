"""Batches for readers who write and judge labels: what is asked, what is refused, and the scores of answers."""

import json
from pathlib import Path

import pytest

from interp.errors import CorruptError
from tools.labels import BATCH, JUDGED, Batches, marked, summary

N = 2 * BATCH + 10


@pytest.fixture
def batches(tmp_path: Path) -> Batches:
    """Batches of planted evidence: feature i fires on the word `word-i`."""
    rows = []
    for i in range(N):
        passages = [[f"doc-{i}-{at}", at, f"some «word-{i}» here {at}"] for at in range(JUDGED // 2)]
        rows.append({"feature": i, "examples": ["some"], "words": [f"word-{i} 90%"], "says": [], "passages": passages})
    (tmp_path / "evidence.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    made = Batches(tmp_path, seed=0)
    made.make()
    return made


def write(batches: Batches) -> None:
    for number, part in enumerate(batches.parts()):
        features = [row["feature"] for row in part]
        lines = [f"{feature}\t-" if feature == 3 else f"{feature}\tword-{feature}" for feature in features]
        (batches.folder / "write" / f"{number:03d}.answers").write_text("\n".join(lines))
    batches.make()


def judge(batches: Batches, number: int) -> None:
    """Answer as a reader who knows the batch file alone: 1 where the marked word is the label."""
    lines = []
    for block in (batches.folder / "judge" / f"{number:03d}.txt").read_text().split("\n\n")[1:]:
        head, *passages = block.strip().splitlines()
        item, _, label = head.partition("   label: ")
        digits = "".join("1" if f"«{label}»" in passage else "0" for passage in passages)
        lines.append(f"{item.removeprefix('item ')}\t{digits}")
    (batches.folder / "judge" / f"{number:03d}.answers").write_text("\n".join(lines))


def test_a_reader_who_knows_the_words_is_right_and_the_null_is_chance(batches):
    write(batches)
    for number in range(3):
        judge(batches, number)
    head, *rows = batches.collected("a reader", "hash")
    assert head["writer"] == "a reader"
    assert [row["feature"] for row in rows] == list(range(N))
    assert "own" not in rows[3]
    assert {row["own"]["accuracy"] for row in rows if "own" in row} == {1.0}
    null = [row["null"] for row in rows if "null" in row]
    assert len(null) == 12
    assert {side["accuracy"] for side in null} <= {0.45, 0.5}, "chance, but for words that two features share"
    assert all(side["label_of"] != row["feature"] for row in rows if (side := row.get("null")))
    assert summary(rows).startswith(f"{N - 1} of {N - 1} labels stand (mean 1.00); 0 of 12 with")


def test_a_batch_to_judge_shows_neither_feature_nor_truth(batches):
    write(batches)
    text = (batches.folder / "judge" / "000.txt").read_text()
    assert "feature 0" not in text
    assert "doc-" not in text
    items = batches.items(0)
    assert [item.feature for item in items] != sorted(item.feature for item in items)
    texts = [text for item in items for _, _, text, _ in item.passages]
    assert len(texts) == len(set(texts)), "a passage that comes twice would tell that it is nobody's"
    assert all(sum(fires for *_, fires in item.passages) == JUDGED // 2 for item in items)


def test_it_says_what_is_missing_and_goes_on(batches):
    write(batches)
    judge(batches, 0)
    assert list(Batches(batches.folder, 0).missing())[1] == "judge: 2 of 3 batches to answer: [1, 2]"
    assert len(Batches(batches.folder, 0).collected("a reader", "hash")) == 1 + BATCH


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 a label", "is not `number`, tab, answer"),
        ("0\t" + "long " * 30, "feature 0: the answer is missing or damaged"),
        ("", "feature 0: the answer is missing"),
    ],
)
def test_damaged_answers_are_named(batches, line, says):
    write(batches)
    path = batches.folder / "write" / "000.answers"
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]))
    with pytest.raises(CorruptError, match=says):
        batches.answers("write", 0)
    assert any(says.split(":")[0] in text for text in batches.missing())


def test_a_line_break_does_not_break_a_batch():
    assert marked(["a", "\n", " b", "\t"], 1) == "a«⏎» b "
