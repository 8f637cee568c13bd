"""Does the doctor catch the bugs of the museum, and leave the healthy alone?

    python -m tests.campaigns.doctor --seed 7 [--report] [--only NAME ...]

Every exhibit of `museum` is rebuilt in the families or dictionaries where it is one, with a seed that decides layers,
factors and permutations. Caught means that a check failed (or could no longer be run, where it can in the healthy
set-up). Healthy set-ups, of ten families, five dictionaries and the formats of other tools, must not fail a check.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from interp.doctor.certificate import Check
from interp.doctor.examine import MODEL_TRIALS, set_up
from interp.doctor.trials import run_trials
from interp.models.adapter import bos_token_id
from interp.models.loading import load_model
from interp.models.passes import capture
from interp.seeds import make_generator
from saes.evaluation.dictionary_checks import CardScores, checks_of_dictionary, fvu_of, scores_on_prose
from saes.kinds.base import SAE, SAEMetadata, Weights
from saes.kinds.jumprelu import JumpReLUSAE
from saes.kinds.l1 import ReLUSAE
from saes.kinds.topk import TopKSAE
from tests.campaigns import report
from tests.campaigns.formats import FORMATS, rewritten
from tests.campaigns.museum import EXHIBITS, Exhibit, Patient
from tests.campaigns.set_ups import FAMILIES, write_family

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "museum.md"
POINT = "blocks.1.hook_resid_post"
DICTIONARIES = ("topk", "jumprelu", "relu", "shifted topk", "biased jumprelu")
OF_EDITS = "llama"
"""Family in which edits and dictionaries are examined."""
QUIET = ("text", "chat template", "BOS")
"""Checks that need a trained model, and are silent on random ones."""


@dataclass(frozen=True)
class Outcome:
    """What the doctor said of one set-up."""

    exhibit: str
    set_up: str
    by: list[str]
    """checks that failed"""
    seconds: float


def principal(family: str, kind: str, model: object) -> tuple[SAE, CardScores]:
    """Return a dictionary that reconstructs a hook point without training: half of its principal components, each with
    both signs.

    Its card states L0 and FVU on the same text, and so do the scores stored with it.
    """
    setup = set_up(model, referred=False)
    texts = setup.prompts.texts
    assert texts is not None
    x = capture(setup.model, texts, [POINT])[POINT][:, int(bos_token_id(setup.model) is not None) :].flatten(0, 1)
    mean = x.mean(0)
    _, vectors = torch.linalg.eigh((x - mean).T @ (x - mean))
    largest = vectors.T[len(vectors) // 2 :]
    rows = torch.cat([largest, -largest])
    bias = torch.full((len(rows),), {"shifted topk": 0.3, "biased jumprelu": -0.5}.get(kind, 0.0))
    weights = Weights(rows.T.contiguous(), bias, rows, mean)
    from interp.models.identity import weight_hash

    about = SAEMetadata(model=family, weight_hash=weight_hash(setup.model), hook_point=POINT)
    if kind.endswith("jumprelu"):
        pre = (x - mean) @ weights.W_enc + bias
        sae: SAE = JumpReLUSAE(weights, threshold=torch.full((len(rows),), float(pre.quantile(0.6))), metadata=about)
    elif kind == "relu":
        sae = ReLUSAE(weights, metadata=about)
    else:
        sae = TopKSAE(weights, k=12, metadata=about)
    l0 = float((sae.encode_sparse(x).values > 0).sum(-1).float().mean())
    return sae, CardScores(l0=l0, fvu=fvu_of(sae, x, x), prose=scores_on_prose(sae, setup.model))


class Ward:
    """Set-ups by name, written once and loaded fresh for every examination."""

    def __init__(self, folder: Path):
        self.folder = folder

    def patient(self, family: str, seed: int, dictionary: str = "") -> Patient:
        """Return a fresh set-up."""
        path = self.folder / family
        if not path.exists():
            write_family(family, path)
        patient = Patient(family, load_model(str(path)), make_generator(seed, "museum", family, dictionary))
        if dictionary:
            kind = dictionary.partition(" as ")[0]
            patient.sae, patient.said = principal(family, kind, patient.model)
            if dictionary in FORMATS:
                patient.sae = rewritten(patient.sae, dictionary, self.folder / dictionary.replace(" ", "-"))
        return patient


def examined(patient: Patient, kind: str, change: Callable[[Patient], None] | None = None) -> list[Check]:
    """Return the checks of a set-up, changed or not, that its kind of bug concerns."""
    with patient.undo:
        if change is not None:
            change(patient)
        setup = set_up(patient.model)
        if kind == "dictionary":
            assert patient.sae is not None
            return list(checks_of_dictionary(setup, patient.sae, patient.said))
        trials = [each for each in MODEL_TRIALS if kind != "edits" or each.experiment.part == "edits"]
        return list(run_trials(trials, setup))


def alarms(checks: list[Check], healthy: list[Check]) -> list[str]:
    """Return the checks that failed, or that only a changed set-up could not run."""
    ran = {(check.part, check.name) for check in healthy if check.verdict != "not checked"}
    found = []
    for check in checks:
        stopped = check.verdict == "not checked" and (check.part, check.name) in ran and check.name not in QUIET
        found += [f"{check.part}: {check.name}"] if check.verdict == "failed" or stopped else []
    return found


def set_ups_of(exhibit: Exhibit) -> list[tuple[str, str]]:
    """Return the families, each with a dictionary or none, in which an exhibit is a bug."""
    if exhibit.kind == "dictionary":
        return [(OF_EDITS, each) for each in (DICTIONARIES if exhibit.where[0] in FAMILIES else exhibit.where)]
    return [(OF_EDITS, "")] if exhibit.kind == "edits" else [(family, "") for family in exhibit.where]


def run_campaign(seed: int, folder: Path, only: list[str], one_each: bool = False) -> Iterator[Outcome]:
    """Yield the outcome of every healthy set-up, then of every exhibit in its set-ups."""
    ward, healthy = Ward(folder), {}
    places = [*((family, "") for family in FAMILIES), *((OF_EDITS, kind) for kind in (*DICTIONARIES, *FORMATS))]
    for family, dictionary in places:
        if one_each and family != OF_EDITS:
            continue
        start = time.monotonic()
        checks = examined(ward.patient(family, seed, dictionary), "dictionary" if dictionary else "model")
        healthy[family, dictionary] = checks
        yield Outcome("healthy", f"{family} {dictionary}".strip(), alarms(checks, []), time.monotonic() - start)
    for exhibit in EXHIBITS:
        for family, dictionary in set_ups_of(exhibit):
            if (only and exhibit.name not in only) or (family, dictionary) not in healthy:
                continue
            start = time.monotonic()
            checks = examined(ward.patient(family, seed, dictionary), exhibit.kind, exhibit.apply)
            by = alarms(checks, healthy[family, dictionary])
            yield Outcome(exhibit.name, f"{family} {dictionary}".strip(), by, time.monotonic() - start)


def lines_of(outcomes: list[Outcome], seed: int) -> list[str]:
    """Return the page's table: one line per bug, where it was caught and by what, and the healthy set-ups."""
    well = [each for each in outcomes if each.exhibit == "healthy"]
    alarmed = [each.set_up for each in well if each.by]
    lines = [
        "", f"Seed {seed}. {len(well)} healthy set-ups, {len(alarmed)} false alarms"
        + (f" ({', '.join(alarmed)})" if alarmed else "") + ".", "", "| bug | caught | by |", "|---|---|---|",
    ]  # fmt: skip
    for exhibit in EXHIBITS:
        own = [each for each in outcomes if each.exhibit == exhibit.name]
        caught = [each for each in own if each.by]
        first = sorted({name for each in caught for name in each.by})[:3]
        source = f" ({exhibit.seen})" if exhibit.seen else ""
        lines.append(f"| {exhibit.name}{source} | {len(caught)} of {len(own)} | {', '.join(first)} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--report", action="store_true", help="write the table into docs/explanation/museum.md")
    given = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        for each in run_campaign(given.seed, Path(folder), given.only):
            outcomes.append(each)
            print(f"{each.seconds:5.1f} s  {each.exhibit} [{each.set_up}]: {', '.join(each.by) or '-'}", flush=True)
    print("\n".join(lines_of(outcomes, given.seed)))
    if given.report:
        report.put("museum", lines_of(outcomes, given.seed), PAGE)


if __name__ == "__main__":
    main()
