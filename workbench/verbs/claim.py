"""`workbench claim KEY`: a result as a claim that anyone can refute. `workbench check FILE`: such a claim, measured.

A claim is an analysis with its settings, so checking one runs verbs of this workbench, and nothing else that a file
could name. Prompts of the user's own travel in the file, where they are short.
"""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import nan
from pathlib import Path
from typing import Annotated, Any, ClassVar

from annotated_types import Interval as Between

from interp.artifacts import Artefact, as_json, read_json, write_json
from interp.circuits.found_circuit import EdgeCircuit
from interp.claims import (
    MAX_TEXT,
    MAX_VARIATIONS,
    NUMBERS,
    RULE,
    TEXT_NAME,
    Claim,
    ClaimFile,
    ClaimSettings,
    OwnText,
    Setting,
    Settings,
    StatedNumber,
    VariationResult,
)
from interp.errors import ConfigError, MismatchError, MissingError, NoGapError, UnknownNameError, UsageError
from interp.forms import from_json
from interp.options import Argument, Means, Option, check_limits
from workbench.analysis import Analysis, AnalysisRun, Resumable
from workbench.options import made, options_of, value_of
from workbench.terminal import Heading, InWorkspace, RunsModel, Threaded, say, slug
from workbench.verbs.circuit import Find, Induction
from workbench.verbs.features import Prove
from workbench.verbs.why import Why

HEADING = Heading.STUDIES
CHECKED: dict[str, type[Analysis[Any]]] = {" ".join(verb.typed_words()): verb for verb in (Prove, Induction, Find, Why)}
"""Analyses whose results state numbers (`stated`), by the words of the verb."""
SEEDS = 4
"""Further seeds that a new claim asks for."""
MAX_BYTES = 1_000_000
"""Largest file of a claim."""
FREE = ("seed", "seeds", "feature", "n_edges")
"""Whole numbers that name something, or cost nothing; others are sizes, which cost time and memory."""
LARGER, LARGEST = 10, 10_000
"""A size is at most so many times its default, or at most this where it has none."""


def stated_by(artefact: Artefact) -> dict[str, StatedNumber]:
    """Return the numbers that an artefact claims, by name. Raises `ConfigError` for a kind that claims none."""
    if type(artefact).made_by not in CHECKED:
        raise ConfigError(
            f"{artefact.key} states nothing that can be checked; these can be: {', '.join(sorted(CHECKED))}"
        )
    return artefact.stated()  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, kw_only=True)
class StateClaim(InWorkspace):
    """Write a result as a claim, with variations that would refute it.

    Example: workbench claim proofs/demo-540 --number steer

    A variation is the same analysis with another seed. Of a circuit it is also another wording of the task, or an
    attack. Nothing is drawn by a seed for a route: name other wordings and counterparts, such as `--vary "text=The
    capital city of France is" swap=France=Spain`. The file is JSON, with the hashes of everything that was read.
    `workbench check FILE` measures all variations, here or elsewhere.
    """

    words: ClassVar[tuple[str, ...]] = ("claim",)

    key: Annotated[str, Argument("KEY")]
    """Proof, circuit or routes whose result is stated: FOLDER/NAME, as `workbench verify` lists it."""
    number: Annotated[str, Means("NAME")] = ""
    """The number that is claimed. Default: the first that is supported."""
    seeds: Annotated[int, Between(ge=0, le=MAX_VARIATIONS - 1)] = SEEDS
    """Variations by further seeds."""
    vary: Annotated[tuple[str, ...], Means("SETTING=VALUE")] = ()
    """Further variations, each by another value of one setting."""
    out: Path = Path("claim.json")
    """File to write."""

    def __post_init__(self) -> None:
        check_limits(self)

    def run(self) -> None:
        artefact = self.open_workspace().open_key(self.key)
        numbers = stated_by(artefact)
        name = self.number or next((n for n, stated in numbers.items() if stated.outcome == "supported"), "")
        if name not in numbers:
            if not self.number:
                raise ConfigError(f"nothing in {self.key} is supported; name one: --number {' or '.join(numbers)}")
            raise UnknownNameError("number", name, numbers)
        claim = claim_of(artefact, name, numbers[name], self.seeds, self.vary)
        check_settings(claim)
        write_json(self.out, as_json(claim))
        say(f"wrote {self.out}: {claim.sentence}")
        say(f"      next: `workbench check {self.out}` measures it in {len(claim.variations)} variations")


def claim_of(artefact: Artefact, name: str, number: StatedNumber, seeds: int, vary: Sequence[str] = ()) -> ClaimFile:
    """Return a result as a claim, with further seeds, other wordings of its task and an attack as its variations.

    `vary` are further ones, each as SETTING=VALUE. Raises `UnknownNameError` for a setting that is none.
    """
    words = type(artefact).made_by
    verb, text = CHECKED[words], own_text(artefact)
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
        variations=(
            {},
            *(further_seeds(settings, seeds) if seeded(verb) else ()),
            *other_prompts(verb, settings, text),
            *(_changed(verb, change) for change in vary),
        ),
        texts={} if text is None or text.text is None else {text.name: text.text},
    )


def seeded(verb: type[Analysis[Any]]) -> bool:
    """Return False for an analysis that draws nothing by a seed of its settings."""
    return any(option.name in ("seed", "seeds") for option in checkable(verb))


def _changed(verb: type[Analysis[Any]], change: str) -> Settings:
    """Return the variation that `SETTING=VALUE` names."""
    name, _, value = change.partition("=")
    options = {option.name: option for option in checkable(verb)}
    if name not in options:
        raise UnknownNameError("setting", name, options)
    read = value_of(options[name], [value] if options[name].many else value)
    return {name: as_json(read)}


def own_text(artefact: Artefact) -> OwnText | None:
    """Return the file of prompts of an artefact; None where it read none.

    Raises `ConfigError` where the artefact did not keep it.
    """
    if isinstance(artefact, EdgeCircuit) and artefact.file is None and "file" in artefact.settings.task.origin:
        name = artefact.settings.task.origin["file"]
        raise ConfigError(f"{artefact.key} did not keep {name}; make it again with `workbench circuit find`")
    return artefact.file if isinstance(artefact, EdgeCircuit) else None


def other_prompts(verb: type[Analysis[Any]], settings: Settings, own: OwnText | None = None) -> Iterator[Settings]:
    """Yield variations of a task's circuit: judged on each wording of its task, and under attack.

    Prompts of a file that choose the attack are among those that are neither scored nor, where these lack, held out.
    """
    from interp.circuits.tasks import N_TEMPLATES

    held_out, scored, task = settings.get("held_out"), settings.get("prompts"), str(settings.get("task"))
    if verb is Find and isinstance(held_out, int) and isinstance(scored, int) and held_out:
        attack: Settings = {"attacked": True}
        if Path(task).suffix:
            lines = {line for line in (own.text or "").splitlines() if line.strip()} if own else set()
            known = max(scored + held_out, len(lines) - task.endswith(".csv"))
            attack["held_out"] = held_out = min(held_out, known - 2 * scored)
        more: list[Settings] = [{"judged_template": template} for template in range(N_TEMPLATES.get(task, 0))]
        more += [attack] if held_out > 1 or not Path(task).suffix else []
        yield from (row for row in more if not row.items() <= settings.items())


def own_settings(verb: type[Analysis[Any]], artefact: Artefact) -> Settings:
    """Return the options of a verb that are settings of its artefact, and its seed."""
    known = as_json(artefact.settings)  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(artefact, EdgeCircuit):
        known = as_json(artefact.as_options())
    settings = {option.name: known[option.name] for option in checkable(verb) if option.name in known}
    if artefact.about.seed is not None and "seeds" not in settings:
        settings["seed"] = artefact.about.seed
    return settings


def checkable(verb: type[Analysis[Any]]) -> "list[Any]":
    """Return the options that a claim may set: not those about files, workspaces, devices and other weights."""
    others = [option for option in options_of(verb) if not (option.shared and option.name != "seed")]
    return [option for option in others if option.kind != "path" and option.name != "allow_other_weights"]


@dataclass(frozen=True, kw_only=True)
class CheckClaim(Threaded, RunsModel, Resumable["Claim"]):
    """Measure a claim in every variation that it names, and judge it by its rule.

    Example: workbench check claim.json

    Supported: every variation supports it. Not supported: less than half of the decided ones do. Else undecided. A file
    from elsewhere is data: only analyses of this workbench run, with settings that they check. Inputs with another hash
    than in the file are named first. Prompts of the claim are in the file, or named by hash: give those with `--text`.
    `--out` writes the claim with its results, so that another machine can compare.
    """

    words: ClassVar[tuple[str, ...]] = ("check",)
    makes: ClassVar[str] = "claim"
    on_page: ClassVar[bool] = False

    file: Annotated[Path, Argument("FILE")]
    """A claim, as `workbench claim` writes it."""
    harder: bool = False
    """Twice as many variations: each again with a further seed."""
    text: tuple[Path, ...] = ()
    """Texts that the claim names by hash alone, as they are too long to be part of it."""
    out: Path | None = None
    """Write the claim with these results here."""

    def default_name(self) -> str:
        return slug(self.claim().sentence)[:60]

    def claim(self) -> ClaimFile:
        """Return the claim in the file, with further seeds under `--harder`.

        Raises `ConfigError` with the path of what is wrong, `UnknownNameError` for an analysis that is not known.
        """
        if not self.file.is_file():
            raise ConfigError(f"no claim at {self.file}; `workbench claim` writes one")
        if self.file.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{self.file} is larger than {MAX_BYTES:,} bytes, which no claim is")
        claim = from_json(ClaimFile, read_json(self.file), self.file, "asked")
        check_settings(claim)
        if not self.harder:
            return claim
        if not seeded(CHECKED[claim.analysis]):
            raise ConfigError(f"--harder adds seeds, and {claim.analysis} draws by none; add variations to the file")
        n = len(claim.variations)
        if 2 * n > MAX_VARIATIONS:
            raise ConfigError(f"--harder would make {2 * n} variations, and a claim has at most {MAX_VARIATIONS}")
        seeds = further_seeds(claim.settings, n, after=n - 1)
        more = (row | seed for row, seed in zip(claim.variations, seeds, strict=True))
        return replace(claim, variations=(*claim.variations, *more))

    def measure(self, run: AnalysisRun) -> Claim:
        claim, machine = self.claim(), machine_of()
        texts = texts_of(claim, self.text)
        before, missing = compared(run, claim)
        settings_of_claim = ClaimSettings(**{field.name: getattr(claim, field.name) for field in fields(ClaimSettings)})
        folder = run.training(settings_of_claim)
        (folder / "texts").mkdir(exist_ok=True)
        paths = {name: folder / "texts" / name for name in texts}
        for name, content in texts.items():
            paths[name].write_bytes(content)
        results: list[VariationResult] = []
        first, changed = None, before
        for number, settings in enumerate(claim.variations):
            kept = folder / f"variation-{number}.json"
            if kept.exists():
                done = from_json(_Variation, read_json(kept), kept)
            else:
                say(f"variation {number + 1} of {len(claim.variations)}: {words_of_settings(settings)}")
                try:
                    done = self._vary(run, claim, settings, folder / f"run-{number}", first, paths)
                except UsageError as error:
                    raise ConfigError(f"variations.{number}: {error}{missing}") from None
                write_json(kept, as_json(done))
            if others := [key for key, digest in done.parents.items() if run.parents.get(key, digest) != digest]:
                raise MismatchError(f"{', '.join(others)} changed since this check began; start over with --overwrite")
            run.parents |= done.parents
            results.append(done.result(words_of_settings(settings)))
            if first is None:
                first, changed = done.stated, other_inputs(claim.inputs, done.parents)
                if changed and changed != before:
                    say(f"      other inputs than in the file: {', '.join(changed)}")
                if first.sentence != claim.sentence:
                    say(f"      measured: {first.sentence}; the file says {claim.sentence!r}")
        assert first is not None, "a claim has a variation"
        if self.out is not None:
            write_json(self.out, as_json(replace(claim, results=tuple(results), machine=machine)))
        return Claim(
            settings=settings_of_claim, stated=first, variations=tuple(results), changed_inputs=changed,
            machine=machine, texts=claim.texts or None,
        )  # fmt: skip

    def _vary(
        self, run: AnalysisRun, claim: ClaimFile, settings: Settings, folder: Path, first: StatedNumber | None,
        paths: Mapping[str, Path],
    ) -> "_Variation":  # fmt: skip
        """Return one variation as it was measured here; undecided where the model does not do the task as varied."""
        verb = CHECKED[claim.analysis]
        options = {option.name: option for option in checkable(verb)}
        values = {
            name: None if value is None else value_of(options[name], value)
            for name, value in (claim.settings | settings).items()
        }
        if (task := values.get("task")) in paths:
            values["task"] = str(paths[str(task)])
        own = {"workspace": self.workspace, "threads": self.threads, "device": self.device, "dtype": self.dtype}
        analysis = made(verb, values | own)
        inner, started = run.of_another(analysis, folder), time.perf_counter()
        try:
            artefact = analysis.measured(inner)
        except NoGapError as error:
            if first is None:
                raise
            say(f"      not measured: {error}")
            inner.discard()
            none = replace(first, value=nan, low=None, high=None, null=nan, outcome="undecided")
            return _Variation(stated=none, seconds=round(time.perf_counter() - started, 1), parents=inner.parents)
        assert isinstance(artefact, Artefact)
        numbers = stated_by(artefact)
        inner.discard()
        if claim.number not in numbers:
            raise UnknownNameError(f"number of {claim.analysis}", claim.number, numbers)
        return _Variation(
            stated=numbers[claim.number], seconds=round(time.perf_counter() - started, 1), parents=inner.parents
        )


@dataclass(frozen=True, kw_only=True)
class _Variation:
    """A variation that an interrupted check keeps."""

    stated: StatedNumber
    seconds: float
    parents: dict[str, str]

    def result(self, changed: str) -> VariationResult:
        """Return its row in the claim."""
        numbers = {name: getattr(self.stated, name) for name in (*NUMBERS, "outcome")}
        return VariationResult(changed=changed, seconds=self.seconds, **numbers)


def texts_of(claim: ClaimFile, given: Sequence[Path]) -> dict[str, bytes]:
    """Return the texts that a claim reads, by name, each with the hash that the file says.

    Raises `MissingError` with the name and hash of one that is not given, `MismatchError` for another hash.
    """
    wanted = {key.removeprefix("text:"): digest for key, digest in claim.inputs.items() if key.startswith("text:")}
    if others := ", ".join(repr(name) for name in claim.texts if name not in wanted):
        raise ConfigError(f"texts: {others} has no hash among the inputs")
    files = {OwnText.of(path).sha256: path for path in given}
    texts: dict[str, bytes] = {}
    for name, digest in wanted.items():
        if name in claim.texts:
            texts[name] = claim.texts[name].encode()
            if (here := hashlib.sha256(texts[name]).hexdigest()) != digest:
                raise MismatchError(f"texts.{name} has the hash {here[:12]}, inputs say {digest[:12]}; it was edited")
        elif digest in files:
            texts[name] = files[digest].read_bytes()
        else:
            others = ", ".join(f"{path.name} has {here[:12]}" for here, path in files.items())
            raise MissingError(
                f"the claim reads {name} with the SHA-256 hash {digest[:12]}, too long to be part of it"
                f"{others and f' ({others})'}; give the file: --text {name}"
            )
    return texts


def compared(run: AnalysisRun, claim: ClaimFile) -> tuple[tuple[str, ...], str]:
    """Print and return the inputs that are other ones here, and what to do about artefacts that are not here."""
    there = {manifest.key: manifest.content_hash for manifest in run.workspace.artifacts()}
    here = {key: there.get(key, "") for key in claim.inputs if ":" not in key}
    if (spec := claim.settings.get("model")) is not None and f"model:{spec}" in claim.inputs:
        here[f"model:{spec}"] = run.weight_hash(str(spec))
    changed = other_inputs({key: claim.inputs[key] for key in here}, here)
    if changed:
        say(f"other inputs than in the file: {', '.join(changed)}")
    absent = ", ".join(f"{key} ({claim.inputs[key][:12]})" for key in changed if not here[key])
    next_step = f"; not in this workspace: {absent}. Copy these folders from the one where the claim was made"
    return changed, next_step if absent else ""


def other_inputs(file: Mapping[str, str], here: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys whose hash is another here, or that one of both lacks; certificates say nothing of a claim."""
    keys = sorted(key for key in file.keys() | here.keys() if not key.startswith("certificates/"))
    return tuple(key for key in keys if file.get(key) != here.get(key))


def check_settings(claim: ClaimFile) -> None:
    """Raise for what this workbench does not measure: another analysis, rule, setting, type or size.

    A model is named by `workbench models`; a path or an address of another's choice is not followed.
    """
    if claim.analysis not in CHECKED:
        raise UnknownNameError("analysis", claim.analysis, CHECKED)
    if claim.rule != RULE:
        raise ConfigError(f"the rule of a claim is {RULE!r}, the file has {claim.rule!r}")
    whole = [claim.settings | row for row in claim.variations]
    if claim.variations[0] or any(row in whole[:at] for at, row in enumerate(whole)):
        raise ConfigError("variations: the first changes nothing, and no two are the same; edit the file")
    own = [key.removeprefix("text:") for key in claim.inputs if key.startswith("text:")]
    shown = [word for pairs in (claim.inputs, claim.machine) for pair in pairs.items() for word in pair]
    if others := [text for text in shown if len(text) > MAX_TEXT or not text.isprintable()]:
        raise ConfigError(f"inputs and machine have names in one line, got {others[0][:80]!r}")
    if others := [name for name in own if not re.fullmatch(TEXT_NAME, name)]:
        raise ConfigError(f"inputs: {others[0]!r} is not the name of a file, without its folder")
    options = {option.name: option for option in checkable(CHECKED[claim.analysis])}
    for number, row in enumerate((claim.settings, *claim.variations)):
        path = f"variations.{number - 1}" if number else "settings"
        for name, value in row.items():
            if name not in options:
                raise UnknownNameError(f"setting of {claim.analysis}", name, options)
            _check_setting(options[name], value, f"{path}.{name}", own)
        values = {
            name: value_of(options[name], value) for name, value in (claim.settings | row).items() if value is not None
        }
        try:
            made(CHECKED[claim.analysis], values)
        except UsageError as error:
            raise ConfigError(f"{path}: {error}") from None


def _check_setting(option: Option, value: Setting | list[Setting], path: str, own: Sequence[str]) -> None:
    """Raise for a value of another type, a name that is not known here, or a size that would take the machine.

    `path` is where the file has it, `own` are the texts of the claim.
    """
    if value is None and option.optional:
        return
    if isinstance(value, list) != option.many or (isinstance(value, list) and not 0 < len(value) <= MAX_VARIATIONS):
        some = f"a list of 1 to {MAX_VARIATIONS} values" if option.many else "one value"
        raise ConfigError(f"{path} takes {some}, got {str(value)[:80]!r}")
    from interp.circuits.tasks import TASKS
    from interp.models.loading import known_names

    default = option.default if option.many else (option.default or 0,)
    most = LARGER * max(default) if option.kind == "whole" and any(default) else LARGEST
    for entry in value if isinstance(value, list) else [value]:
        if option.kind == "text":
            known = {"model": known_names(), "task": [*TASKS, *own]}.get(option.name, [entry])
            if not isinstance(entry, str) or not entry.isprintable() or len(entry) > MAX_TEXT or entry not in known:
                raise UnknownNameError(path, str(entry)[:80], [*map(str, known)])
        elif option.kind != "whole":
            value_of(option, entry)
        elif not isinstance(entry, int) or isinstance(entry, bool) or (option.name not in FREE and entry > most):
            raise ConfigError(f"{path} is a whole number, at most {most:,}, got {str(entry)[:80]!r}")


def further_seeds(settings: Settings, n: int, *, after: int = 0) -> Iterator[Settings]:
    """Yield `n` variations by further seeds than those of the settings, the first `after` left out."""
    seed, seeds = settings.get("seed"), settings.get("seeds")
    for step in range(after + 1, after + n + 1):
        if isinstance(seeds, list):
            whole = [number for number in seeds if isinstance(number, int)]
            yield {"seeds": [number + step * (max(whole) - min(whole) + 1) for number in whole]}
        else:
            yield {"seed": (seed if isinstance(seed, int) else 0) + step}


def words_of_settings(settings: Mapping[str, Setting | list[Setting]]) -> str:
    """Return what a variation changes, such as `seed 3`."""
    values = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value for name, value in settings.items()
    }
    words = (f"{name.replace('_', ' ')}{'' if value is True else f' {value}'}" for name, value in values.items())
    return ", ".join(words) or "as stated"


def machine_of() -> dict[str, str]:
    """Return what may change the last bits of a result."""
    import torch

    capability = os.environ.get("ATEN_CPU_CAPABILITY") or torch.backends.cpu.get_cpu_capability()
    return {"threads": str(torch.get_num_threads()), "torch": torch.__version__, "instructions": capability}
