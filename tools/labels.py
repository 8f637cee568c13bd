"""Labels of the dictionary that ships, written and judged by readers: `python -m tools.labels --folder FOLDER`.

A reader is a language model or a person who reads a batch file and writes an answers file; nothing is asked over a
network here. Run the command again after answers came: it checks them, says which are missing or damaged, and makes
what can be made next.

1. *Evidence* of each feature (`evidence.jsonl`): `SHOWN` stored examples, the words that it fires on, and the words
   that it makes the model say; and `JUDGED // 2` passages of other documents on which it fires strongly, from text that
   the model wrote itself. No example is from the document of a passage.
2. *Writing* (`write/000.txt`): the evidence of `BATCH` features without the passages. An answer is one line `number`,
   tab, label of two to eight words; `-` where there is no single idea.
3. *Judging* (`judge/000.txt`): another reader gets a label and `JUDGED` passages, shuffled, one token of each marked,
   and writes one line `number`, tab, a digit per passage: 1 where the feature would fire on the marked token. Half of
   the passages are the feature's, half are those of other features, so every passage is somebody's, and none comes
   twice in a file. Among the items are passages with a label of another file: the null. The reader cannot tell which.
4. *Collecting*: balanced accuracy of each label with its interval. A label stands at `HOLDS` or more.

The table (`text/labels.jsonl.xz`) has labels, scores, answers, rejected labels and the document of every passage.
`tools.adopt` gives the labels that stand to the dictionary that ships.
"""

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from interp.artifacts import atomic_file
from interp.errors import CorruptError
from interp.recording.recorded import RecordConfig
from interp.recording.store import NO_TOKEN, Recording, document_names, read_passages
from interp.seeds import derive_seed
from interp.workspace import Workspace
from saes.explain.run import score_answers
from saes.features.meaning import meaning_of
from saes.features.schema import MOST_TELLING, Features
from saes.features.written_labels import HOLDS
from saes.weights.folder import load_sae
from tools import run_tool
from tools.build import write_corpus
from tools.sources import SAMPLED, sampled
from workbench.demo import MODEL, RESID, SHIPPED, unpack
from workbench.steps import WorkspaceStep, run_step
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded, bar, say, wrote
from workbench.verbs.record import Record

TABLE = Path(__file__).parent / "text" / "labels.jsonl.xz"
TEXT = "labels-text"
BATCH, SHOWN, JUDGED, NULL_EVERY = 40, 12, 20, 8
LEAST = 5
"""Fewest passages on which a feature fires; with fewer it is not judged."""
STRONG = 0.5
"""Fraction of the largest activation from which a firing is strong, as for labels made by rule."""
LONGEST, FEWEST_WORDS, MOST_WORDS = 80, 1, 9
WINDOW = 10
TASKS = {
    "write": """Each feature of a dictionary fires on some tokens of text. Write what it fires on: two to eight words of
plain English, specific, as a person would say it ('recipes and dishes', 'months, in dates', '*not* before a verb').
The token in «» is where it fires most. 'words' are those that hold most of its activation; 'says' are words that it
makes the model say. Answer one line per feature: its number, a tab, the label; '-' where there is no single idea.
""",
    "judge": """Each label says on which tokens a feature fires. For each passage decide whether it fires on the token
in «», by the label alone. Answer one line per item: its number, a tab, one digit per passage: 1 it fires, 0 not.
""",
}
"""What the readers are asked."""
QUESTION = {"write": "feature", "judge": "item"}


@dataclass(frozen=True)
class Judging:
    """One item of a file to judge."""

    feature: int
    label_of: int
    """the feature whose label is shown: another one for the null"""
    label: str
    passages: list[tuple[str, int, str, bool]]
    """in the order shown: document, position, text, and whether the feature fires"""


@dataclass(frozen=True, kw_only=True)
class ReadLabels(InWorkspace, Seeded, Threaded, OnDevice):
    """Make batches for readers who write and judge labels, check their answers, and collect them."""

    folder: Path
    """Folder of evidence, batches and answers."""
    n: int = 4_000
    """Features to label: the first of the list, then by density."""
    tokens: int = 900_000
    """Tokens of the text that passages are taken from."""
    writer: str = ""
    """Who wrote the labels: public name of the model, with its date. Needed to collect them."""

    def run(self) -> None:
        """Do what can be done, and say what is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        workspace = Workspace(self.workspace, create=True)
        unpack(workspace)
        path = self.folder / "evidence.jsonl"
        if not path.exists():
            self.record(workspace)
            with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
                for row in evidence(workspace, self.n, self.seed):
                    out.write(json.dumps(row, ensure_ascii=False) + "\n")
            wrote(path, "evidence and passages of each feature")
        batches = Batches(self.folder, self.seed)
        batches.make()
        for line in batches.missing():
            say(line)
        if self.writer:
            rows = batches.collected(self.writer, workspace.open(Features, SHIPPED).about.content_hash)
            with atomic_file(TABLE) as temporary:
                text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                temporary.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
            wrote(TABLE, summary(rows))

    def record(self, workspace: Workspace) -> None:
        """Record the text that passages are taken from."""
        corpus = workspace.root / f"{TEXT}.jsonl"
        if not corpus.exists():
            write_corpus(corpus, {"sampled": sampled()}, chars=46_000_000, seed=derive_seed(self.seed, TEXT))
        verb = Record(
            model=MODEL, name=TEXT, corpus=str(corpus), hook_points=(RESID,), tokens=self.tokens, seed=self.seed,
            context_length=RecordConfig.context_length, workspace=self.workspace, threads=self.threads,
            device=self.device,
        )  # fmt: skip
        run_step(workspace, WorkspaceStep("Record", "Passages to judge labels by.", verb), "1/1")


def chosen(workspace: Workspace, n: int) -> list[int]:
    """Return the `n` features to label: a tenth that leads the list of features, then by density, but no dense ones."""
    table = workspace.table_path("features", SHIPPED, "features")
    first = workspace.query(f"select feature from f where n_fired > 0 order by {MOST_TELLING} limit {n // 10}", f=table)
    dense = workspace.query("select feature from f where density between 0 and 0.02 order by density desc", f=table)
    return list(dict.fromkeys(first["feature"].to_pylist() + dense["feature"].to_pylist()))[:n]


def evidence(workspace: Workspace, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the evidence of each feature, and its passages."""
    features = chosen(workspace, n)
    recording = Recording(workspace.path("recording", TEXT))
    rng = np.random.default_rng(derive_seed(seed, "passages"))
    firings = read_firings(workspace, recording)
    names, _ = document_names(recording)
    examples, words = shown_examples(workspace, features), index_words(workspace, features)
    meaning = meaning_of(workspace, workspace.open(Features, SHIPPED))
    assert meaning is not None
    vocabulary = meaning.vocabulary.texts
    for feature in features:
        known = {document for document, _ in examples[feature]}
        fires = _apart(recording, rng.permutation(firings[feature])[:80], names, known, JUDGED // 2, vocabulary)
        if len(fires) < LEAST:
            continue
        says = [token.strip() for token, _ in meaning.says(feature, 10).raised]
        yield {
            "feature": feature,
            "examples": [text for _, text in examples[feature]],
            "words": words.get(feature, []),
            "says": says,
            "passages": fires,
        }


@torch.no_grad()
def read_firings(workspace: Workspace, recording: Recording) -> list[np.ndarray]:
    """Return the rows of the strong firings of each feature."""
    sae = load_sae(workspace.path("sae", SHIPPED))
    table = workspace.table_path("features", SHIPPED, "features")
    maximum = workspace.query("select max_activation from f order by feature", f=table)
    least = STRONG * torch.from_numpy(maximum["max_activation"].to_numpy().copy())
    rows_of, features_of = [], []
    with bar("firings") as progress:
        for shard in range(recording.n_shards):
            start = int(recording.shard_starts[shard])
            acts = recording.activation_shard(RESID, shard)
            real = recording.token_shard(shard).document.numpy() >= 0
            for at in range(0, len(acts), 4096):
                sparse = sae.encode_sparse(acts[at : at + 4096].float())
                fires = (sparse.values > 0) & torch.from_numpy(real[at : at + 4096])[:, None]
                row, slot = fires.nonzero(as_tuple=True)
                feature, value = sparse.indices[row, slot], sparse.values[row, slot]
                strong = value >= least[feature]
                rows_of.append(start + at + row[strong].numpy())
                features_of.append(feature[strong].numpy())
            progress(shard + 1, recording.n_shards, {})
    rows, of = np.concatenate(rows_of), np.concatenate(features_of)
    order = np.argsort(of, kind="stable")
    ends = np.searchsorted(of[order], np.arange(sae.d_sae + 1))
    return [rows[order[ends[i] : ends[i + 1]]] for i in range(sae.d_sae)]


def _apart(
    recording: Recording, rows: np.ndarray, names: list[str], known: set[str], most: int, vocabulary: Sequence[str]
) -> list[tuple[str, int, str]]:
    """Return up to `most` passages (document, position, text), one of a document, none of the documents `known`."""
    passages, seen = read_passages(recording, rows, before=WINDOW, after=WINDOW), set(known)
    taken: list[tuple[str, int, str]] = []
    for ids, document, position in zip(*passages, strict=True):
        name = names[int(document)]
        if name not in seen and len(taken) < most:
            seen.add(name)
            tokens = ["" if i == NO_TOKEN else vocabulary[int(i)] for i in ids.tolist()]
            taken.append((name, int(position), marked(tokens, WINDOW)))
    return taken


def marked(tokens: Sequence[str], at: int) -> str:
    """Return text with one token between «»; a line break is ⏎."""
    text = "".join([*tokens[:at], "«", tokens[at], "»", *tokens[at + 1 :]])
    return text.replace("\n", "⏎").replace("\t", " ").replace("\r", "")


def shown_examples(workspace: Workspace, features: Sequence[int]) -> dict[int, list[tuple[str, str]]]:
    """Return `SHOWN` examples of each feature, (document, text): the strongest, then some of each quarter."""
    table = workspace.table_path("features", SHIPPED, "examples")
    rows = workspace.query(
        "select feature, document_id, tokens, peak, group_order from e order by feature, rank, group_order", e=table
    ).to_pylist()
    examples: dict[int, list[tuple[str, str]]] = {feature: [] for feature in features}
    for row in sorted(rows, key=lambda row: row["group_order"] > 0):
        texts = examples.get(row["feature"])
        if texts is not None and len(texts) < SHOWN:
            texts.append((row["document_id"], marked(row["tokens"], row["peak"])))
    return examples


def index_words(workspace: Workspace, features: Sequence[int]) -> dict[int, list[str]]:
    """Return the words that hold most of the activation of each feature, with their share of it."""
    folder = workspace.path("features", SHIPPED) / "index"
    rows = workspace.query(
        """select feature, folded, sum(f.share) as held from f join u using (unit) where folded <> ''
           group by 1, 2 qualify row_number() over (partition by feature order by held desc) <= 8
           order by feature, held desc""",
        f=folder / "firings.parquet",
        u=folder / "units.parquet",
    ).to_pylist()
    wanted, words = set(features), {}
    for row in rows:
        if row["feature"] in wanted:
            words.setdefault(row["feature"], []).append(f"{row['folded']} {row['held']:.0%}")
    return words


@dataclass(frozen=True)
class Batches:
    """Batch files of a folder with their answers."""

    folder: Path
    seed: int

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Evidence of the features, in their order."""
        return [json.loads(line) for line in (self.folder / "evidence.jsonl").read_text("utf-8").splitlines()]

    def parts(self) -> list[list[dict[str, Any]]]:
        """Return the features of each batch."""
        return [self.rows[at : at + BATCH] for at in range(0, len(self.rows), BATCH)]

    def make(self) -> None:
        """Write the batches that can be written and are not there."""
        for number, part in enumerate(self.parts()):
            self._write("write", number, [self._evidence(row) for row in part])
        if all(self.answers("write", number) is not None for number in range(len(self.parts()))):
            for number in range(len(self.parts())):
                texts = []
                for at, item in enumerate(self.items(number)):
                    passages = [f"{i:>2} {text}" for i, (_, _, text, _) in enumerate(item.passages, 1)]
                    texts.append("\n".join([f"item {at}   label: {item.label}", *passages]))
                self._write("judge", number, texts)

    def _evidence(self, row: dict[str, Any]) -> str:
        lines = [f"feature {row['feature']}   words: {', '.join(row['words'])}   says: {', '.join(row['says'])}"]
        return "\n".join([*lines, *(f"- {text}" for text in row["examples"])])

    def _write(self, step: str, number: int, texts: list[str]) -> None:
        path = self.folder / step / f"{number:03d}.txt"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text(TASKS[step] + "\n" + "\n\n".join(texts) + "\n", encoding="utf-8")

    def items(self, number: int) -> list[Judging]:
        """Return the items of a file to judge, shuffled: its own features, and the null.

        The null shows passages of features of the file before with labels of the one before that.
        """
        rng = Random(derive_seed(self.seed, "judging", number))
        parts = self.parts()
        own, before, two_before = ((number - back) % len(parts) for back in range(3))
        labels = {k: self.answers("write", k) or {} for k in {own, before, two_before}}
        pairs = [(row, own, row["feature"]) for row in parts[own]]
        others = [row["feature"] for row in parts[two_before] if labels[two_before][row["feature"]] != "-"]
        pairs += [(row, two_before, rng.choice(others)) for row in parts[before][::NULL_EVERY] if others]
        shown = {row["feature"] for row, _, _ in pairs}
        rest = [passage for row in self.rows if row["feature"] not in shown for passage in row["passages"]]
        rng.shuffle(rest)
        items = []
        for row, of, label_of in pairs:
            label = labels[of][label_of]
            if label != "-":
                fires = [(*passage, True) for passage in row["passages"]]
                passages = fires + [(*rest.pop(), False) for _ in range(JUDGED // 2)]
                items.append(Judging(row["feature"], label_of, label, rng.sample(passages, len(passages))))
        rng.shuffle(items)
        return items

    def answers(self, step: str, number: int) -> dict[int, str] | None:
        """Return the answers of a batch; None where there are none yet. Raises `CorruptError` for damaged ones."""
        path = self.folder / step / f"{number:03d}.answers"
        if not path.exists():
            return None
        answers: dict[int, str] = {}
        for line in path.read_text("utf-8").splitlines():
            name, tab, answer = line.partition("\t")
            if line.strip():
                if not tab or not name.strip().isdigit():
                    raise CorruptError(f"{path}: {line!r} is not `number`, tab, answer")
                answers[int(name)] = answer.strip()
        if step == "write":
            wanted = {row["feature"]: 0 for row in self.parts()[number]}
        else:
            wanted = {at: len(item.passages) for at, item in enumerate(self.items(number))}
        if wrong := [name for name in wanted if not _well_formed(step, answers.get(name, ""), wanted[name])]:
            raise CorruptError(
                f"{path}: {QUESTION[step]} {', '.join(map(str, wrong))}: the answer is missing or damaged"
            )
        return answers

    def missing(self) -> Iterator[str]:
        """Yield what is missing or damaged."""
        for step in TASKS:
            lacking = []
            for number in range(len(self.parts())):
                try:
                    lacking += [number] * (self.answers(step, number) is None)
                except CorruptError as error:
                    yield str(error)
            yield f"{step}: {len(lacking)} of {len(self.parts())} batches to answer: {lacking[:10]}"

    def collected(self, writer: str, features_hash: str) -> list[dict[str, Any]]:
        """Return the rows of the table: what was made, then a row per feature."""
        rows: list[dict[str, Any]] = [
            {"writer": writer, "features": features_hash, "tasks": TASKS, "text": SAMPLED.name, "holds": HOLDS}
        ]
        generator = np.random.default_rng(derive_seed(self.seed, "label scores"))
        made: dict[int, dict[str, Any]] = {}
        for number, part in enumerate(self.parts()):
            try:
                labels, judged = self.answers("write", number), self.answers("judge", number)
            except CorruptError:  # `missing` names it
                continue
            if labels is None or judged is None:
                continue
            for row in part:
                made.setdefault(row["feature"], {})["label"] = labels[row["feature"]]
            for at, item in enumerate(self.items(number)):
                truth = [fires for *_, fires in item.passages]
                score = score_answers(truth, [digit == "1" for digit in judged[at]], generator=generator)
                assert score is not None
                side = "own" if item.label_of == item.feature else "null"
                made.setdefault(item.feature, {})[side] = {
                    "accuracy": round(score.estimate, 3), "low": round(score.low, 3), "high": round(score.high, 3),
                    "answers": judged[at], "label_of": item.label_of, "truth": "".join("01"[fires] for fires in truth),
                    "passages": [passage[:2] for passage in item.passages],
                }  # fmt: skip
        return rows + [{"feature": feature, **row} for feature, row in sorted(made.items()) if "label" in row]


def _well_formed(step: str, answer: str, n: int) -> bool:
    if step == "judge":
        return len(answer) == n and set(answer) <= {"0", "1"}
    return answer == "-" or (len(answer) <= LONGEST and FEWEST_WORDS <= len(answer.split()) <= MOST_WORDS)


def summary(rows: list[dict[str, Any]]) -> str:
    """Return how many labels stand, with the pass rate of the null."""
    own = [row["own"]["accuracy"] for row in rows if "own" in row]
    null = [row["null"]["accuracy"] for row in rows if "null" in row]
    none = sum(row.get("label") == "-" for row in rows)
    return (
        f"{sum(a >= HOLDS for a in own):,} of {len(own):,} labels stand (mean {np.mean(own):.2f}); "
        f"{sum(a >= HOLDS for a in null)} of {len(null)} with another feature's label (mean {np.mean(null):.2f}); "
        f"{none} without a single idea"
    )


if __name__ == "__main__":
    run_tool(ReadLabels)
