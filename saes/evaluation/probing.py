"""Sparse probing: logistic regressions that read few latents (Gurnee et al. 2023, arXiv 2305.01610).

1. Tokens of training documents are labelled by a yes-or-no question, a `ProbeTask`.
2. The `k` latents with the largest difference in mean between yes and no are chosen, and a logistic regression reads
   them.
3. The probe is evaluated on held-out documents, which neither it nor the SAE was trained on. The scores are balanced
   accuracy (guessing gives 0.5 at any base rate) and the area under the ROC curve.
4. All is repeated with control labels, random for each token type (or document, or position). *Selectivity* is the
   accuracy minus the accuracy on control labels (Hewitt and Liang 2019, arXiv 1909.03368).
5. Baselines at the same `k` are principal components, coordinates and an untrained SAE. A probe of all coordinates is
   the practical upper bound.

Intervals are over held-out documents, for the mean over seeds. Seeds draw training tokens, control labels and the
untrained SAE. Sparse probing is the most reliable of the SAE benchmarks, and still does not distinguish variants of one
kind (arXiv 2605.18229): differences within the intervals are noise.

Tasks come from a recording, from its vocabulary, or from a table of labels. The label of a task is a function of a
*key*: the token, the next token, the document, or the position in the context. Its control task (Hewitt and Liang 2019,
arXiv 1909.03368) is a random function of the same key, with the same share of yes. A probe can solve the control only
by memorising keys, so only accuracy above it is evidence of a representation.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, Int64, Shaped
from torch import Tensor

from interp.artifacts import table_errors
from interp.errors import ConfigError, MissingError
from interp.geometry.probes import logistic_regression
from interp.progress import Progress
from interp.recording.store import Recording, Split
from interp.seeds import derive_seed, make_generator
from interp.statistics import MIN_DOCUMENTS, Interval, auroc, poisson_weights, quantile_ends
from saes.evaluation.baselines import untrained_like
from saes.evaluation.scores import ALL, MEAN, MIN_ROWS, ProbeScore, Probing, ProbingConfig, TaskFacts
from saes.kinds.base import SAE

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Key = Literal["token", "next token", "document", "place", "row"]
"""Property of a token that determines its label; `place` is the position in the context."""
LEFT_OUT = -1
"""Label of a row to which a question does not apply."""

N_LABELS = 3
"""Number of document labels (packages, files) that become tasks: the most frequent ones."""
MAX_VALUES = 8
"""Largest number of values of a label in a file; each is a task against the others."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of some rows of a recording, `[n]` int64 each."""

    row: Int64[np.ndarray, " n"]
    """global row in the recording"""
    token: Int64[np.ndarray, " n"]
    """token id"""
    next_token: Int64[np.ndarray, " n"]
    """id of the next token; -1 where the context ends or no text follows"""
    document: Int64[np.ndarray, " n"]
    """running number of the document"""
    position: Int64[np.ndarray, " n"]
    """position in the context"""

    def key(self, kind: Key) -> Int64[np.ndarray, " n"]:
        """Return the values `[n]` of a key."""
        return getattr(self, {"next token": "next_token", "place": "position"}.get(kind, kind))

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class ProbeTask:
    """One yes-or-no question about tokens."""

    name: str
    yes: str
    """description of a positive token"""
    key: Key
    """property that determines the label"""
    label: Callable[[Tokens], Int8[np.ndarray, " n"]]
    """function that returns labels `[n]` int8: 1 yes, 0 no, -1 does not apply"""


def tokens_at(recording: Recording, rows: Int[Tensor, " n"]) -> Tokens:
    """Read token, document and position of the global `rows [n]`, one token shard at a time."""
    rows = rows.cpu()
    starts, length = recording.shard_starts, recording.context_length
    shard_of = np.searchsorted(starts, rows.numpy(), side="right") - 1
    columns = np.empty((3, len(rows)), np.int64)
    for shard in np.unique(shard_of):
        inside = shard_of == shard
        part = recording.token_shard(int(shard))
        local = rows.numpy()[inside] - int(starts[shard])
        token, document = part.tokens.numpy(), part.document.numpy()
        after = np.minimum(local + 1, len(token) - 1)
        follows = ((local + 1) % length != 0) & (document[after] >= 0)
        columns[:, inside] = token[local], np.where(follows, token[after], -1), document[local]
    position = (rows.numpy() - starts[shard_of]) % length
    return Tokens(rows.numpy(), columns[0], columns[1], columns[2], position)


def text_tasks(vocabulary: Sequence[str]) -> list[ProbeTask]:
    """Return tasks about the text of a token or of the next token; `vocabulary` is the text of every token id."""
    flags = {name: np.array([flag(text) for text in vocabulary], np.int8) for name, flag in _FLAGS.items()}
    return [
        ProbeTask("capital", "the token's first letter is a capital", "token", _lookup("token", flags["capital"])),
        ProbeTask("digit", "the token holds a digit", "token", _lookup("token", flags["digit"])),
        ProbeTask("word start", "the token begins a word", "token", _lookup("token", flags["word start"])),
        ProbeTask("punctuation", "the token is punctuation", "token", _lookup("token", flags["punctuation"])),
        ProbeTask("next capital", "the next token's first letter is a capital", "next token", _next(flags["capital"])),
        ProbeTask("next word start", "the next token begins a word", "next token", _next(flags["word start"])),
        ProbeTask("next punctuation", "the next token is punctuation", "next token", _next(flags["punctuation"])),
    ]


def recording_tasks(recording: Recording) -> list[ProbeTask]:
    """Return tasks about the position of a token in its context, and about the label of its document."""
    half = recording.context_length // 2
    late = ProbeTask(
        "late", f"the token is at position {half} or later", "place", lambda t: (t.position >= half).astype(np.int8)
    )
    documents = recording.documents()
    labels = np.array([document.label for document in documents])
    number = np.array([document.document for document in documents])
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2:
        return [late]
    chosen = names[np.argsort(-counts, kind="stable")][:N_LABELS]
    return [
        late,
        *(
            ProbeTask(
                f"in {name}", f"the document is labelled {str(name)!r}", "document", _members(number[labels == name])
            )
            for name in chosen
        ),
    ]


def row_task(name: str, yes: str, labels: Shaped[np.ndarray, " n_rows"]) -> ProbeTask:
    """Return a task with a given label for every row of the recording: `labels [n_rows]`, 1, 0 or -1."""
    labels = np.asarray(labels, np.int8)
    return ProbeTask(name, yes, "row", lambda tokens: labels[tokens.row])


def planted_tasks(recording: Recording, n: int = 8) -> list[ProbeTask]:
    """Return tasks that ask whether a planted feature is on, for `n` features from the most to the least frequent.

    Raises `MismatchError` for a recording of a model, which has no planted features.
    """
    from saes.evaluation.synthetic import read_synthetic

    data = read_synthetic(recording)
    chosen = np.unique(np.linspace(0, data.config.n_features - 1, n).astype(int))
    on = np.zeros((recording.n_rows, len(chosen)), np.int8)
    for shard, start in enumerate(recording.shard_starts[:-1]):
        rows = next(data.batches(recording.shard_rows[shard], start=shard))  # the rows that were written
        on[start : start + len(rows.x)] = (rows.strengths[:, torch.from_numpy(chosen)] > 0).numpy()
    return [row_task(f"feature {f}", f"planted feature {f} is on", on[:, i]) for i, f in enumerate(chosen)]


def file_tasks(path: Path, recording: Recording, vocabulary: Sequence[str] | None) -> list[ProbeTask]:
    """Read tasks from a table of labels: a .csv, .jsonl or .parquet file.

    Its columns are `label` and one of `document` (an id of the recording) or `token` (its exact text). Two values of
    `label` give one task; three to eight give one task each, against the others. `vocabulary` is the text of every
    token id, for labels of tokens. Raises `MissingError` (no file), `CorruptError` (not a table), `ConfigError`
    (missing columns, no row that was recorded, too many values).
    """
    table = _read_table(Path(path))
    keys = [key for key in ("document", "token") if key in table]
    if "label" not in table or len(keys) != 1:
        raise ConfigError(f"{path} needs the columns label and either document or token; it has {', '.join(table)}")
    kind: Key = "document" if keys[0] == "document" else "token"
    known = (
        {document.id: document.document for document in recording.documents()}
        if kind == "document"
        else {text: number for number, text in reversed(list(enumerate(vocabulary or [])))}
    )
    values = {
        known[str(k)]: str(label) for k, label in zip(table[kind], table["label"], strict=True) if str(k) in known
    }
    if not values:
        raise ConfigError(f"{path} names no {kind} of {recording.folder}; `document` is its id, `token` its exact text")
    names = sorted(set(values.values()))
    if not 2 <= len(names) <= MAX_VALUES:
        raise ConfigError(
            f"{path} has {len(names)} different labels for the recorded text; tasks need 2 to {MAX_VALUES}"
        )
    positive = names[1:] if len(names) == 2 else names
    return [
        ProbeTask(f"{Path(path).stem}: {n}", f"{kind} labelled {n!r}", kind, _from_table(kind, values, n))
        for n in positive
    ]


def control_labels(
    key: Int64[np.ndarray, " n"], label: Int[np.ndarray, " n"], *, seed: int, task: str
) -> Int8[np.ndarray, " n"]:
    """Draw a random label for each value of `key [n]`, with the share of yes of `label [n]`.

    Keys are labelled yes in random order until that share is reached. Rows labelled `LEFT_OUT` retain that label.
    """
    values, index, counts = np.unique(key, return_inverse=True, return_counts=True)
    used = label != LEFT_OUT
    counts = np.bincount(index[used], minlength=len(values))
    wanted = int((label == 1).sum())
    yes = np.zeros(len(values), np.int8)
    order = np.random.default_rng(derive_seed(seed, "control labels", task)).permutation(len(values))
    for value in order:
        if counts[value] and counts[value] <= wanted:
            yes[value] = 1
            wanted -= counts[value]
    return np.where(used, yes[index], LEFT_OUT).astype(np.int8)


def _lookup(kind: Key, flags: np.ndarray) -> Callable[[Tokens], np.ndarray]:
    return lambda tokens: flags[tokens.key(kind)]


def _next(flags: np.ndarray) -> Callable[[Tokens], np.ndarray]:
    return lambda tokens: np.where(tokens.next_token >= 0, flags[tokens.next_token], LEFT_OUT).astype(np.int8)


def _members(documents: np.ndarray) -> Callable[[Tokens], np.ndarray]:
    return lambda tokens: np.isin(tokens.document, documents).astype(np.int8)


def _from_table(kind: Key, values: dict[int, str], yes: str) -> Callable[[Tokens], np.ndarray]:
    def label(tokens: Tokens) -> np.ndarray:
        answers = {number: int(value == yes) for number, value in values.items()}
        return np.array([answers.get(int(key), LEFT_OUT) for key in tokens.key(kind)], np.int8)

    return label


def _read_table(path: Path) -> dict[str, list[object]]:
    from pyarrow import csv, json, parquet

    readers = {".csv": csv.read_csv, ".jsonl": json.read_json, ".parquet": parquet.read_table}
    if path.suffix not in readers:
        raise ConfigError(f"labels are read from .csv, .jsonl and .parquet files, got {path}")
    if not path.exists():
        raise MissingError(f"no file at {path}; check the path of the labels")
    with table_errors(path, "write or copy the file again"):
        return readers[path.suffix](str(path)).to_pydict()


def _capital(text: str) -> int:
    first = next((c for c in text if c.isalpha()), "")
    return int(first.isupper()) if first else LEFT_OUT


def _word_start(text: str) -> int:
    return int(text.startswith(" ")) if any(c.isalpha() for c in text) else LEFT_OUT


def _punctuation(text: str) -> int:
    return int(bool(text.strip()) and not any(c.isalnum() for c in text))


_FLAGS: dict[str, Callable[[str], int]] = {
    "capital": _capital,
    "digit": lambda text: int(any(c.isdigit() for c in text)),
    "word start": _word_start,
    "punctuation": _punctuation,
}


MIN_KEYS = 3
"""Smallest number of documents of each answer, for tasks about documents."""
STRENGTH = {"few": 1.0, "all": 0.1}
"""Inverse L2 penalty of the regressions of `k` latents and of all coordinates, on standardised inputs."""


class _Basis(NamedTuple):
    """Inputs of probes for training and test rows, `[n, m]` each: a scipy CSR matrix or an array."""

    name: str
    train: "csr_matrix | np.ndarray"
    test: "csr_matrix | np.ndarray"


def probe(
    saes: Mapping[str, SAE],
    recording: Recording,
    tasks: Sequence[ProbeTask],
    *,
    config: ProbingConfig | None = None,
    heldout_fraction: float = 0.1,
    progress: Progress | None = None,
) -> Probing:
    """Probe SAEs that read one hook point of `recording`, and the baselines there.

    `saes` are the dictionaries by name.

    `heldout_fraction` is that of the SAEs' training. Memory: the sampled rows and their active latents. Cost: some
    milliseconds for each of `2 tasks * seeds * (1 + dictionaries * ks)` probes, about a second for one of all
    coordinates. Raises `ConfigError` (no SAE, several hook points, too few tokens, no usable task).
    """
    config = config or ProbingConfig()
    hook_point = _one_hook_point(saes, recording)
    test_rows = sample_rows(recording, config.n_test, split="heldout", fraction=heldout_fraction, seed=config.seeds[0])
    test, x_test = tokens_at(recording, test_rows), recording.read_rows(hook_point, test_rows)
    encoded = {name: sparse_columns(sae, x_test) for name, sae in saes.items()}
    tally, total = Tally(test, config), 0
    for seed in config.seeds:
        rows = sample_rows(recording, config.n_train, split="train", fraction=heldout_fraction, seed=seed)
        train, x_train = tokens_at(recording, rows), recording.read_rows(hook_point, rows)
        bases = [_Basis(name, sparse_columns(sae, x_train), encoded[name]) for name, sae in saes.items()]
        bases += _baselines(next(iter(saes.values())), recording, x_train, x_test, seed)
        labelled = tally.label(tasks, train, seed)
        total = total or len(labelled) * len(config.seeds)
        for number, (task, labels) in enumerate(labelled.items()):
            for kind, (y_train, y_test) in labels.items():
                for name, k, scores in _probes(bases, y_train, y_test, config.ks):
                    tally.add((name, k, task, kind), scores, y_test)
            if progress:
                progress(config.seeds.index(seed) * len(labelled) + number + 1, total, {"task": task})
    return tally.result()


def sample_rows(recording: Recording, n: int, *, split: Split, fraction: float, seed: int) -> Int64[Tensor, " m"]:
    """Draw global rows of a split uniformly: `[m <= n]` int64, sorted.

    Raises `ConfigError` when the split has too few tokens.
    """
    local = (recording.real_rows(shard, split, fraction) for shard in range(recording.n_shards))
    rows = torch.cat([part + int(start) for part, start in zip(local, recording.shard_starts[:-1], strict=True)])
    if len(rows) < 2 * MIN_ROWS:
        raise ConfigError(
            f"{recording.folder} has {len(rows)} tokens in its {split!r} split, probes need {2 * MIN_ROWS}; record more"
        )
    generator = make_generator(seed, "probing", split)
    return rows[torch.randperm(len(rows), generator=generator)[:n]].sort().values


@torch.no_grad()
def sparse_columns(sae: SAE, x: Float[Tensor, "n d_in"], batch_size: int = 2048) -> "csr_matrix":
    """Return activations of latents on `x [n, d_in]` as a CSR matrix `[n, d_sae]`, times the norm of each decoder row.

    The norm makes latents comparable by their contributions to the reconstruction.
    """
    from scipy.sparse import csr_matrix, vstack

    lengths = sae.decoder_directions.norm(dim=1)
    parts = []
    for part in x.split(batch_size):
        acts = sae.encode_sparse(part.to(sae.device))
        on = (acts.values > 0).nonzero(as_tuple=True)
        columns = acts.indices[on].long()
        values = (acts.values[on] * lengths[columns]).float().cpu().numpy()
        parts.append(csr_matrix((values, (on[0].cpu().numpy(), columns.cpu().numpy())), (len(part), sae.d_sae)))
    return vstack(parts, format="csr")


def mean_difference(features: "csr_matrix | np.ndarray", label: Int[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
    """Return the mean of each column over rows labelled 1, minus that over rows labelled 0: `[m]`."""
    means = [np.asarray(features[np.flatnonzero(label == answer)].mean(axis=0)).ravel() for answer in (1, 0)]
    return means[0] - means[1]


def fit_probe(
    train: Float[np.ndarray, "n k"],
    label: Int[np.ndarray, " n"],
    test: Float[np.ndarray, "n_test k"],
    *,
    strength: float,
) -> Float[np.ndarray, " n_test"]:
    """Fit a logistic regression to `train [n, k]`, both answers weighted equally; return log odds of yes `[n_test]`."""
    return logistic_regression(strength, balanced=True, tol=1e-3).fit(train, label).decision_function(test)


def _probes(
    bases: Sequence[_Basis], y_train: np.ndarray, y_test: np.ndarray, ks: tuple[int, ...]
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Fit all probes of one task; yield `(dictionary, k, log odds of the test rows that have a label)`."""
    rows, others = np.flatnonzero(y_train != LEFT_OUT), np.flatnonzero(y_test != LEFT_OUT)
    for basis in bases:
        if basis.name == ALL:
            train, test = (_dense(part) for part in (basis.train, basis.test))
            scores = fit_probe(train[rows], y_train[rows], test[others], strength=STRENGTH["all"])
            yield ALL, basis.train.shape[1], scores
            continue
        order = np.argsort(-np.abs(mean_difference(basis.train, y_train)), kind="stable")
        for k in ks:
            train, test = (_dense(part[:, order[:k]]) for part in (basis.train, basis.test))
            yield basis.name, k, fit_probe(train[rows], y_train[rows], test[others], strength=STRENGTH["few"])


def _dense(columns: "csr_matrix | np.ndarray") -> np.ndarray:
    return columns if isinstance(columns, np.ndarray) else columns.toarray()


def _baselines(sae: SAE, recording: Recording, x_train: Tensor, x_test: Tensor, seed: int) -> list[_Basis]:
    """Return the baselines as inputs of probes.

    They are principal components and coordinates (signed, without a TopK), an untrained SAE of the same size and L0,
    and the whole activation.
    """
    mean = x_train.mean(0)
    _, vectors = torch.linalg.eigh((x_train - mean).T.double() @ (x_train - mean).double())
    components = vectors.flip(1).to(x_train)
    untrained = untrained_like(sae, recording, x_train, seed=seed)
    train, test = ((x - mean).numpy() for x in (x_train, x_test))
    return [
        _Basis("pca", train @ components.numpy(), test @ components.numpy()),
        _Basis("coordinates", train, test),
        _Basis("untrained", sparse_columns(untrained, x_train), sparse_columns(untrained, x_test)),
        _Basis(ALL, train, test),
    ]


class Tally:
    """Balanced accuracies of all probes in every bootstrap replicate over documents."""

    def __init__(self, test: Tokens, config: ProbingConfig):
        self.test, self.config = test, config
        self.documents, self.document_index = np.unique(test.document, return_inverse=True)
        self.weights = poisson_weights(self.documents.tolist())
        self.facts: dict[str, TaskFacts] = {}
        self.skipped: dict[str, str] = {}
        self.accuracies: dict[tuple[str, int, str, str], list[np.ndarray]] = {}
        """`(dictionary, k, task, labels or control)` -> for each seed, balanced accuracy in every replicate"""
        self.areas: dict[tuple[str, int, str, str], list[float]] = {}

    def label(
        self, tasks: Sequence[ProbeTask], train: Tokens, seed: int
    ) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
        """Return labels and control labels of the usable tasks, on training and test rows."""
        by_task = {}
        for task in tasks:
            if task.name in self.skipped:
                continue
            labels = task.label(train), task.label(self.test)
            reason = unusable(task, labels, (train, self.test))
            control = _controls(task, labels, train, self.test, seed) if not reason else None
            if reason or control is None:
                self.skipped[task.name] = reason or "no control labels of both answers exist"
                self._forget(task.name)
                continue
            by_task[task.name] = {"labels": labels, "control": control}
            self.facts[task.name] = TaskFacts(
                name=task.name,
                yes=task.yes,
                key=task.key,
                base_rate=float((labels[1] == 1).sum() / (labels[1] != LEFT_OUT).sum()),
                n_train=int((labels[0] != LEFT_OUT).sum()),
                n_test=int((labels[1] != LEFT_OUT).sum()),
            )
        if not by_task:
            raise ConfigError(f"none of the tasks can be probed on these tokens: {self.skipped}; record more")
        return by_task

    def add(self, what: tuple[str, int, str, str], scores: np.ndarray, label: np.ndarray) -> None:
        """Add the log odds `scores` of one probe on the test rows that have a label."""
        rows = np.flatnonzero(label != LEFT_OUT)
        yes, predicted = label[rows] == 1, scores > 0
        counts = np.stack([yes & predicted, yes, ~yes & ~predicted, ~yes], axis=1).astype(np.float64)
        by_document = np.zeros((len(self.documents), 4))
        np.add.at(by_document, self.document_index[rows], counts)
        true_yes, all_yes, true_no, all_no = (self.weights @ by_document).T
        with np.errstate(invalid="ignore", divide="ignore"):
            self.accuracies.setdefault(what, []).append((true_yes / all_yes + true_no / all_no) / 2)
        self.areas.setdefault(what, []).append(auroc(scores, yes))

    def result(self) -> Probing:
        names = list(self.facts)
        pairs = list(dict.fromkeys((name, k) for name, k, _, _ in self.accuracies))
        return Probing(
            tasks=list(self.facts.values()),
            skipped=self.skipped,
            scores=[self._score(name, k, [task], task) for name, k in pairs for task in names],
            means=[self._score(name, k, names, MEAN) for name, k in pairs],
            n_test=len(self.test),
            n_documents=len(self.documents),
            seeds=self.config.seeds,
        )

    def _score(self, name: str, k: int, tasks: list[str], title: str) -> ProbeScore:
        by_seed = np.mean([self.accuracies[name, k, task, "labels"] for task in tasks], axis=0)  # [seeds, replicates]
        control = float(np.mean([self.accuracies[name, k, task, "control"] for task in tasks], axis=0)[:, 0].mean())
        n = len(self.documents)
        ends = quantile_ends(by_seed.mean(0)[1:], n) if n >= MIN_DOCUMENTS else None
        accuracy = float(by_seed[:, 0].mean())
        return ProbeScore(
            dictionary=name,
            k=k,
            task=title,
            accuracy=Interval(accuracy, *(ends or (math.nan, math.nan))),
            control=control,
            selectivity=accuracy - control,
            auroc=float(np.mean([self.areas[name, k, task, "labels"] for task in tasks])),
            by_seed=tuple(map(float, by_seed[:, 0])),
        )

    def _forget(self, task: str) -> None:
        """Remove a task for all seeds, since one seed's sample has too few labels."""
        self.facts.pop(task, None)
        for table in (self.accuracies, self.areas):
            for what in [what for what in table if what[2] == task]:
                del table[what]


def unusable(task: ProbeTask, labels: tuple[np.ndarray, np.ndarray], tokens: tuple[Tokens, Tokens]) -> str:
    """Return the reason why a task cannot be probed; an empty string when it can."""
    for side, label, part in zip(("training", "held-out"), labels, tokens, strict=True):
        for answer, word in ((1, "yes"), (0, "no")):
            rows = np.flatnonzero(label == answer)
            if len(rows) < MIN_ROWS:
                return f"{len(rows)} {side} tokens answer {word}, {MIN_ROWS} are needed"
            documents = len(np.unique(part.document[rows]))
            if task.key == "document" and documents < MIN_KEYS:
                return f"{documents} {side} documents answer {word}, {MIN_KEYS} are needed"
    return ""


def _controls(
    task: ProbeTask, labels: tuple[np.ndarray, np.ndarray], train: Tokens, test: Tokens, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw control labels of training and test rows by one random function; None when twenty draws lack an answer."""
    key = np.concatenate([train.key(task.key), test.key(task.key)])
    for draw in range(20):
        drawn = control_labels(key, np.concatenate(labels), seed=derive_seed(seed, "control", draw), task=task.name)
        parts = drawn[: len(train)], drawn[len(train) :]
        if all((part == answer).sum() >= MIN_ROWS for part in parts for answer in (0, 1)):
            return parts
    return None


def _one_hook_point(saes: Mapping[str, SAE], recording: Recording) -> str:
    hook_points = {sae.hook_points for sae in saes.values()}
    if len(hook_points) != 1 or len(next(iter(hook_points))) != 1:
        raise ConfigError(
            f"all dictionaries must read the same hook point, these read {sorted(hook_points) or 'none'}; "
            "probe those of one hook point at a time"
        )
    hook_point = recording.check_hook_point(next(iter(hook_points))[0])
    widths = {name: sae.d_in for name, sae in saes.items() if sae.d_in != recording.d(hook_point)}
    if widths:
        raise ConfigError(
            f"{recording.folder} has width {recording.d(hook_point)} at {hook_point}, the dictionaries read {widths}; "
            "choose the recording that they were trained on"
        )
    return hook_point
