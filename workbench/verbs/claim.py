"""`workbench claim KEY`: a result as a claim that anyone can refute. `workbench check FILE`: such a claim, measured.

A claim is an analysis with its settings, so checking one runs verbs of this workbench, and nothing else that a file
could name.
"""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from interp.artifacts import Artefact, as_json, read_json, write_json
from interp.claims import Claim, ClaimFile, Setting, Settings, StatedNumber, VariationResult
from interp.errors import ConfigError, UnknownNameError
from interp.forms import from_json
from interp.options import Argument, Means
from workbench.analysis import Analysis, AnalysisRun, Resumable
from workbench.options import made, options_of, value_of
from workbench.terminal import Heading, InWorkspace, RunsModel, Threaded, say, slug
from workbench.verbs.align import Align
from workbench.verbs.circuit import Induction
from workbench.verbs.features import Prove

HEADING = Heading.STUDIES
CHECKED: dict[str, type[Analysis[Any]]] = {" ".join(verb.typed_words()): verb for verb in (Prove, Align, Induction)}
"""Analyses whose results state numbers (`stated`), by the words of the verb."""
SEEDS = 4
"""Further seeds that a new claim asks for."""


def stated_by(artefact: Artefact) -> dict[str, StatedNumber]:
    """Return the numbers that an artefact claims, by name. Raises `ConfigError` for a kind that claims none."""
    if type(artefact).made_by not in CHECKED:
        raise ConfigError(
            f"{artefact.key} states nothing that can be checked; these can be: {', '.join(sorted(CHECKED))}"
        )
    return artefact.stated()  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, kw_only=True)
class StateClaim(InWorkspace):
    """Write a result as a claim: what was measured, its nulls, and the variations that would refute it.

    Example: workbench claim proofs/demo-540 --number steer

    The file is JSON, with the hashes of everything that was read. `workbench check FILE` measures it, here or
    elsewhere.
    """

    words: ClassVar[tuple[str, ...]] = ("claim",)

    key: Annotated[str, Argument("KEY")]
    """Artefact whose result is stated: FOLDER/NAME, as `workbench verify` lists it."""
    number: Annotated[str, Means("NAME")] = ""
    """The number that is claimed. Default: the first that is supported."""
    seeds: int = SEEDS
    """Variations: further seeds."""
    out: Path = Path("claim.json")
    """File to write."""

    def run(self) -> None:
        artefact = self.open_workspace().open_key(self.key)
        numbers = stated_by(artefact)
        name = self.number or next((n for n, stated in numbers.items() if stated.outcome == "supported"), "")
        if name not in numbers:
            if not self.number:
                raise ConfigError(f"nothing in {self.key} is supported; name one: --number {' or '.join(numbers)}")
            raise UnknownNameError("number", name, numbers)
        claim = claim_of(artefact, name, numbers[name], self.seeds)
        write_json(self.out, as_json(claim))
        say(f"wrote {self.out}: {claim.sentence}")
        say(f"      next: `workbench check {self.out}` measures it in {len(claim.variations)} variations")


def claim_of(artefact: Artefact, name: str, number: StatedNumber, seeds: int) -> ClaimFile:
    """Return a result as a claim, with further seeds as its variations."""
    words = type(artefact).made_by
    verb = CHECKED[words]
    settings = own_settings(verb, artefact)
    return ClaimFile(
        sentence=number.sentence,
        subject=number.subject,
        analysis=words,
        settings=settings,
        number=name,
        formula=number.formula,
        unit=number.unit,
        nulls=number.nulls,
        inputs=dict(artefact.about.parents),
        variations=({}, *further_seeds(settings, seeds)),
    )


def own_settings(verb: type[Analysis[Any]], artefact: Artefact) -> Settings:
    """Return the options of a verb that are settings of its artefact, and its seed."""
    known = as_json(artefact.settings)  # pyright: ignore[reportAttributeAccessIssue]
    found = {option.name: known[option.name] for option in checkable(verb) if option.name in known}
    if artefact.about.seed is not None and "seeds" not in found:
        found["seed"] = artefact.about.seed
    return found


def checkable(verb: type[Analysis[Any]]) -> "list[Any]":
    """Return the options that a claim may set: not those about files, workspaces and devices."""
    return [o for o in options_of(verb) if o.name == "seed" or not (o.shared or o.kind == "path")]


@dataclass(frozen=True, kw_only=True)
class CheckClaim(Threaded, RunsModel, Resumable["Claim"]):
    """Measure a claim anew, in every variation that it names, and judge it by the rule that it states.

    Example: workbench check claim.json

    A file from elsewhere is data: only analyses of this workbench run, with settings that they check. What differs from
    the hashes in the file is said first. `--out` writes the claim with the results, so that another machine can
    compare.
    """

    words: ClassVar[tuple[str, ...]] = ("check",)
    makes: ClassVar[str] = "claim"
    on_page: ClassVar[bool] = False

    file: Annotated[Path, Argument("FILE")]
    """A claim, as `workbench claim` writes it."""
    harder: bool = False
    """Twice as many variations: further seeds."""
    out: Path | None = None
    """Write the claim with these results here."""

    def default_name(self) -> str:
        return slug(self.claim().sentence)[:60]

    def claim(self) -> ClaimFile:
        """Return the claim in the file, with further seeds under `--harder`.

        Raises `CorruptError` with the path of what is wrong, `UnknownNameError` for an analysis that is not known.
        """
        if not self.file.is_file():
            raise ConfigError(f"no claim at {self.file}; `workbench claim` writes one")
        claim = from_json(ClaimFile, read_json(self.file), self.file)
        if claim.analysis not in CHECKED:
            raise UnknownNameError("analysis", claim.analysis, CHECKED)
        for settings in (claim.settings, *claim.variations):
            refuse_unknown(claim.analysis, settings)
        if not self.harder:
            return claim
        n = len(claim.variations)
        more = further_seeds(claim.settings, n, after=n - 1)
        return replace(claim, variations=(*claim.variations, *more))

    def measure(self, run: AnalysisRun) -> Claim:
        claim = self.claim()
        results: list[VariationResult] = []
        machine = machine_of()
        changed: tuple[str, ...] = ()
        for number, settings in enumerate(claim.variations):
            kept = run.training(claim) / f"variation-{number}.json"
            if kept.exists():
                results.append(from_json(VariationResult, read_json(kept), kept))
                continue
            say(f"variation {number + 1} of {len(claim.variations)}: {words_of_settings(settings)}")
            inner, result = self._vary(run, claim, settings, run.training(claim) / f"run-{number}")
            run.parents |= inner.parents
            changed = tuple(
                sorted(key for key in claim.inputs if inner.parents.get(key) not in (None, claim.inputs[key]))
            )
            if changed and not number:
                say(f"      other inputs than in the file: {', '.join(changed)}")
            write_json(kept, as_json(result))
            results.append(result)
        if self.out is not None:
            write_json(self.out, as_json(replace(claim, results=tuple(results), machine=machine)))
        return Claim(settings=claim, variations=tuple(results), changed_inputs=changed, machine=machine)

    def _vary(
        self, run: AnalysisRun, claim: ClaimFile, settings: Settings, folder: Path
    ) -> tuple[AnalysisRun, VariationResult]:
        """Return one variation as it was measured here, and its run."""
        verb = CHECKED[claim.analysis]
        options = {option.name: option for option in checkable(verb)}
        values = {
            name: None if value is None and options[name].optional else value_of(options[name], value)
            for name, value in (claim.settings | settings).items()
        }
        analysis = made(verb, values | {"workspace": self.workspace, "threads": self.threads})
        inner, started = run.of_another(analysis, folder), time.perf_counter()
        numbers = stated_by(analysis.measure(inner))
        inner.discard()
        if claim.number not in numbers:
            raise UnknownNameError(f"number of {claim.analysis}", claim.number, numbers)
        stated = numbers[claim.number]
        return inner, VariationResult(
            changed=words_of_settings(settings),
            value=stated.value,
            low=stated.low,
            high=stated.high,
            null=stated.null,
            outcome=stated.outcome,
            seconds=round(time.perf_counter() - started, 1),
        )


def refuse_unknown(analysis: str, settings: Settings) -> None:
    """Raise `UnknownNameError` for a setting that the analysis lacks, and for a model that has no name here.

    A model is named by `workbench models`; a path or an address of another's choice is not followed.
    """
    allowed = [option.name for option in checkable(CHECKED[analysis])]
    for name, value in settings.items():
        if name not in allowed:
            raise UnknownNameError(f"setting of {analysis}", name, allowed)
        if name == "model":
            from interp.models.loading import known_names

            if value not in (names := known_names()):
                raise UnknownNameError("model of a claim", str(value), names)
        elif isinstance(value, str) and Path(value).suffix:
            raise ConfigError(f"a claim names no files, and {name} is {value[:80]!r}; import what it needs first")


def further_seeds(settings: Settings, n: int, *, after: int = 0) -> Iterator[Settings]:
    """Yield `n` variations by further seeds than those of the settings, the first `after` left out."""
    seeds = settings.get("seeds")
    if isinstance(seeds, list):
        whole = [seed for seed in seeds if isinstance(seed, int)]
        steps = range(after + 1, after + n + 1)
        yield from ({"seeds": [seed + step * (max(whole) - min(whole) + 1) for seed in whole]} for step in steps)
        return
    first = settings.get("seed", 0)
    yield from ({"seed": (first if isinstance(first, int) else 0) + after + step + 1} for step in range(n))


def words_of_settings(settings: Mapping[str, Setting | list[Setting]]) -> str:
    """Return what a variation changes, such as `seed 3`."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items()) or "as stated"


def machine_of() -> dict[str, str]:
    """Return what may change the last bits of a result."""
    import torch

    capability = os.environ.get("ATEN_CPU_CAPABILITY") or torch.backends.cpu.get_cpu_capability()
    return {"threads": str(torch.get_num_threads()), "torch": torch.__version__, "instructions": capability}
