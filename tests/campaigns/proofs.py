"""How many features pass each test of a proof, and how many controls, for which some tests must fail?

    python -m tests.campaigns.proofs --folder F --n 20 --draws 79 --seed 0 [--minutes 30] [--report]
        [--workspace W --features NAME] [--tests joined]

Features of a dictionary, by default the shipped one, are drawn at random from those that fire. Three controls:

- *shuffled decoder rows*: the encoder is as trained, each latent writes another latent's direction;
- *near miss*: the words of a feature with the encoder and the direction of another one, drawn at random;
- *untrained dictionary*: random directions that read and write, on text of their own, with words of their own.

Beside the claims stands the rule before decision 38: steering raises the words that a direction says most itself, more
than random directions raise theirs and features of like density raise these.

*joined* needs one pass of the model, so `--tests joined` measures it for many more. What was measured is kept in the
folder, and the same command goes on where it stopped.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.artifacts import read_table
from interp.errors import ConfigError
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.nulls import ALPHA, p_from_null
from interp.recording.record import RecordConfig, record
from interp.recording.store import Recording
from interp.statistics import proportion_interval
from interp.text.corpora import open_corpus
from interp.workspace import Workspace
from saes.evaluation.baselines import untrained_sae
from saes.features.build import Described, build_features
from saes.features.case import ProofConfig
from saes.features.meaning import lens_for
from saes.features.measure_proof import prove
from saes.features.proof import OWN_WORDS, TESTS
from saes.features.schema import Features
from saes.kinds.base import SAE
from saes.weights.folder import load_sae
from tests.campaigns import report
from workbench.demo import DATA

CLAIMS = tuple(name for name in TESTS if name != "lists")
MUST_FAIL = {
    "as trained": (),
    "shuffled decoder rows": ("steer", "ablate", "joined", OWN_WORDS),
    "near miss": (*CLAIMS, OWN_WORDS),
    "untrained dictionary": ("steer", "ablate", "joined", OWN_WORDS),
}
"""Controls, and the tests that they must not pass more often than chance."""
TOKENS, LATENTS, ACTIVE = 60_000, 1024, 4
"""Text, latents, and latents active on a token, of the untrained dictionary."""


@dataclass(frozen=True)
class Subject:
    """A dictionary and the tables of the features that it is proved with."""

    dictionary: SAE
    features: Path


def permuted(sae: SAE, encoder: torch.Tensor, decoder: torch.Tensor) -> SAE:
    """Return a dictionary whose latent `i` reads as latent `encoder[i]` and writes as latent `decoder[i]`."""
    state = dict(sae.state_dict())
    state["W_dec"] = state["W_dec"][decoder]
    for name, value in state.items():
        if name == "W_enc":
            state[name] = value[:, encoder]
        elif name not in ("W_dec", "b_dec") and value.shape[:1] == (sae.d_sae,):
            state[name] = value[encoder]
    changed = copy.deepcopy(sae)
    changed.load_state_dict(state)
    return changed


def untrained(model: HookedModel, folder: Path, hook_point: str, seed: int) -> Subject:
    """Return an untrained dictionary with tables of its own text, made once."""
    if not (folder / "recording").exists():
        config = RecordConfig(tokens=TOKENS)
        record(model, open_corpus("docstrings"), folder / "recording", config, hook_points=[hook_point])
    recording = Recording(folder / "recording")
    sae = untrained_sae(recording, hook_point, d_sae=LATENTS, k=ACTIVE, seed=seed)
    if not (folder / "features").exists():
        build_features(Described(dictionary=sae, name="sae:untrained", folder=folder / "features"), recording, model)
    return Subject(sae, folder / "features")


def subjects(
    model: HookedModel, described: Features, workspace: Workspace, folder: Path, seed: int
) -> dict[str, Callable[[], Subject]]:
    """Return the dictionary of each control, made when it is first asked for."""
    sae = load_sae(workspace.path("sae", described.settings.dictionary.removeprefix("sae:")))
    tables, generator = workspace.path("features", described.name), torch.Generator().manual_seed(seed)
    same, other, pair = torch.arange(sae.d_sae), *(torch.randperm(sae.d_sae, generator=generator) for _ in range(2))
    return {
        "as trained": lambda: Subject(sae, tables),
        "shuffled decoder rows": lambda: Subject(permuted(sae, same, other), tables),
        "near miss": lambda: Subject(permuted(sae, pair, pair), tables),
        "untrained dictionary": lambda: untrained(model, folder, sae.hook_point, seed),
    }


def proofs(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield one row for each control and feature, those of an earlier run first; a feature of each control in turn."""
    folder, seed = options.folder, options.seed
    path = folder / f"{'-'.join(options.tests)}.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    yield from known
    done = {(row["control"], row["number"]) for row in known}
    workspace = Workspace(options.workspace)
    described = workspace.open(Features, options.features)
    model, lens, start = load_model(described.settings.model), lens_for(workspace, described), time.monotonic()
    config = ProofConfig(draws=options.draws, new_tokens=1)
    made: dict[str, Subject] = {}
    for number in range(options.n):
        for control, make in subjects(model, described, workspace, folder, seed).items():
            if (control, number) in done or control not in options.controls:
                continue
            if time.monotonic() - start > 60 * options.minutes:
                return
            subject = made.setdefault(control, made.get(control) or make())
            columns = read_table(subject.features / "features.parquet", ["density", "decoder_norm"])
            live = np.flatnonzero((columns["density"].to_numpy() > 0) & (columns["decoder_norm"].to_numpy() > 0))
            feature, began = int(np.random.default_rng(seed).permutation(live)[number]), time.process_time()
            row: dict[str, Any] = {"control": control, "number": number, "feature": feature}
            try:
                proof = prove(model, subject.dictionary, subject.features, feature, config, lens=lens,
                              tests=options.tests, seed=seed)  # fmt: skip
                row |= {"words": proof.words.texts, "chosen_by": proof.words.chosen_by, "holds": proof.holds(),
                        "verdict": proof.verdict(),
                        "p": {test.name: test.p for test in proof.measures if test.name in (*TESTS, OWN_WORDS)},
                        "by_null": {test.name: {kind: p_from_null(test.value, null) for kind, null
                                                in test.by_null.items()} for test in proof.measures if test.tested},
                        "values": {test.name: test.value for test in proof.measures},
                        "seconds": time.process_time() - began}  # fmt: skip
            except ConfigError as error:
                row |= {"verdict": str(error)}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            yield row


def share(ps: list[float], must_fail: bool) -> str:
    """Return how many p-values are at most 0.05, with Wilson's interval; bold where no more than chance may be."""
    if not ps:
        return "not tested"
    holding = sum(p <= ALPHA for p in ps)
    interval = proportion_interval(holding, len(ps))
    cell = f"{holding} of {len(ps)} ({interval.low:.2f} to {interval.high:.2f})"
    return f"**{cell}**" if must_fail else cell


def table(folder: Path) -> list[str]:
    """Return the table of claim by control, from all that was measured: p at most 0.05 before Holm's correction."""
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for line in (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()):
        row = json.loads(line)
        if row.get("chosen_by") == "firings":
            rows.setdefault((row["control"], row["number"]), {}).update(row["p"])
    columns = {**{claim: f"*{claim}*" for claim in CLAIMS}, OWN_WORDS: "the old rule, *steer*"}
    lines = [f"| dictionary | {' | '.join(columns.values())} |", "|---" * (1 + len(columns)) + "|"]
    for control, must_fail in MUST_FAIL.items():
        of_control = [p for (name, _), p in rows.items() if name == control]
        cells = [share([p[test] for p in of_control if test in p], test in must_fail) for test in columns]
        lines.append(f"| {control} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--draws", type=int, default=79)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workspace", type=Path, default=DATA)
    parser.add_argument("--features", default="demo")
    parser.add_argument("--tests", nargs="+", default=CLAIMS)
    parser.add_argument("--controls", nargs="+", default=list(MUST_FAIL))
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for row in proofs(options):
        print(f"{row['control']}, feature {row['feature']}: {row['verdict']}", flush=True)
    lines = table(options.folder)
    print("\n".join(lines))
    if options.report:
        command = f"`python -m tests.campaigns.proofs --n {options.n} --draws {options.draws} --seed {options.seed}`:"
        report.put("proofs" if options.workspace == DATA else f"proofs of {options.features}", [command, "", *lines])


if __name__ == "__main__":
    main()
