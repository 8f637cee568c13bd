"""How many features pass each test of a proof, and how many controls, for which some tests must fail?

    python -m tests.campaigns.proofs --folder F --n 20 --draws 79 --seed 0 [--minutes 30] [--report]

Features of the shipped dictionary are drawn at random from those that fire. Three controls share their text and words:

- *shuffled decoder rows*: the encoder is as trained, each latent writes another latent's direction;
- *near miss*: the words of a feature with the encoder and the direction of another one, drawn at random;
- *untrained dictionary*: random directions that read and write, on text of their own, with words of their own.

What was proved is kept in the folder, and the same command goes on where it stopped.
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
from interp.lenses.jacobian_lens import JacobianLens
from interp.models.hooked import HookedModel
from interp.models.loading import load_model
from interp.recording.record import RecordConfig, record
from interp.recording.store import Recording
from interp.statistics import proportion_interval
from interp.text.corpora import open_corpus
from interp.workspace import Workspace
from saes.evaluation.baselines import untrained_sae
from saes.features.build import build_features
from saes.features.case import ProofConfig
from saes.features.measure_proof import prove
from saes.features.proof import TESTS
from saes.kinds.base import SAE
from saes.weights.folder import load_sae
from tests.campaigns import report
from workbench.demo import DATA

MODEL = "smollm2-135m"
CLAIMS = tuple(name for name in TESTS if name != "lists")
MUST_FAIL = {
    "as trained": (),
    "shuffled decoder rows": ("steer", "ablate", "joined"),
    "near miss": CLAIMS,
    "untrained dictionary": ("steer", "ablate", "joined"),
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
        build_features(sae, recording, model, folder / "features", dictionary_name="sae:untrained")
    return Subject(sae, folder / "features")


def subjects(model: HookedModel, folder: Path, seed: int) -> dict[str, Callable[[], Subject]]:
    """Return the dictionary of each control, made when it is first asked for."""
    sae = load_sae(DATA / "saes" / "demo")
    tables, generator = DATA / "features" / "demo", torch.Generator().manual_seed(seed)
    same, other, pair = torch.arange(sae.d_sae), *(torch.randperm(sae.d_sae, generator=generator) for _ in range(2))
    return {
        "as trained": lambda: Subject(sae, tables),
        "shuffled decoder rows": lambda: Subject(permuted(sae, same, other), tables),
        "near miss": lambda: Subject(permuted(sae, pair, pair), tables),
        "untrained dictionary": lambda: untrained(model, folder, sae.hook_point, seed),
    }


def proofs(folder: Path, n: int, draws: int, seed: int, minutes: float) -> Iterator[dict[str, Any]]:
    """Yield one row for each control and feature, those of an earlier run first; a feature of each control in turn."""
    path = folder / "proofs.jsonl"
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    yield from known
    done = {(row["control"], row["number"]) for row in known}
    model, start = load_model(MODEL), time.monotonic()
    lens = Workspace(DATA).open(JacobianLens, MODEL)
    config = ProofConfig(draws=draws, examples=4, others=24, new_tokens=1)
    made: dict[str, Subject] = {}
    for number in range(n):
        for control, make in subjects(model, folder, seed).items():
            if (control, number) in done:
                continue
            if time.monotonic() - start > 60 * minutes:
                return
            subject = made.setdefault(control, made.get(control) or make())
            columns = read_table(subject.features / "features.parquet", ["density", "decoder_norm"])
            live = np.flatnonzero((columns["density"].to_numpy() > 0) & (columns["decoder_norm"].to_numpy() > 0))
            feature = int(np.random.default_rng(seed).permutation(live)[number])
            row: dict[str, Any] = {"control": control, "number": number, "feature": feature}
            try:
                proof = prove(model, subject.dictionary, subject.features, feature, config, lens=lens, seed=seed)
                row |= {"words": proof.words.texts, "chosen_by": proof.words.chosen_by, "holds": proof.holds(),
                        "tested": list(proof.p_holm()), "verdict": proof.verdict()}  # fmt: skip
            except ConfigError as error:
                row |= {"holds": [], "tested": [], "verdict": str(error)}
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            yield row


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table of claim by control: the share that holds, with Wilson's interval; bold where it must fail."""
    lines = ["| dictionary | features | " + " | ".join(f"*{claim}*" for claim in CLAIMS) + " |",
             "|---" * (2 + len(CLAIMS)) + "|"]  # fmt: skip
    for control, must_fail in MUST_FAIL.items():
        of_control = [row for row in rows if row["control"] == control and row.get("chosen_by") == "firings"]
        cells = []
        for claim in CLAIMS:
            tested = [row for row in of_control if claim in row["tested"]]
            holding = sum(claim in row["holds"] for row in tested)
            cell = "not tested"
            if tested:
                share = proportion_interval(holding, len(tested))
                cell = f"{holding} of {len(tested)} ({share.low:.2f} to {share.high:.2f})"
            cells.append(f"**{cell}**" if claim in must_fail else cell)
        lines.append(f"| {control} | {len(of_control)} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--draws", type=int, default=79)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in proofs(options.folder, options.n, options.draws, options.seed, options.minutes):
        rows.append(row)
        print(f"{row['control']}, feature {row['feature']}: {row['verdict']}", flush=True)
    lines = table(rows)
    print("\n".join(lines))
    if options.report:
        command = f"`python -m tests.campaigns.proofs --n {options.n} --draws {options.draws} --seed {options.seed}`:"
        report.put("proofs", [command, "", *lines])


if __name__ == "__main__":
    main()
