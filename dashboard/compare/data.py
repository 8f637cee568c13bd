"""Two named things, and everything that the tables and artefacts of a workspace say about the pair. Torch-free.

thing(workspace, "demo:540")      a feature; likewise neurons:blocks.9.mlp.hook_post:12, demo (an SAE),
                                  blocks.9.hook_resid_post or MODEL@HOOK_POINT (a layer), MODEL (a model)
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dashboard.components.pages import feature_href
from dashboard.data import features as features
from dashboard.data.meaning import said_words
from dashboard.data.workspace import models
from interp.artifacts import Artefact
from interp.changes.comparison import ModelComparison
from interp.errors import CorruptError, UnknownNameError, UsageError, WorkbenchError
from interp.geometry.space import SpaceComparison, SpaceReport
from interp.names import parse_hook_point
from interp.recording.recorded import Recorded
from interp.results import Record
from interp.workspace import Workspace
from saes.evaluation.config import SCORES
from saes.evaluation.latent_comparison import LatentComparison
from saes.evaluation.sae_comparison import Compared, SAEComparison
from saes.features.meaning import KEPT
from saes.features.schema import NEURONS, FeatureRow, Features
from saes.training.stored import StoredSAE

FEATURE, NEURON, SAE, LAYER, MODEL = "feature", "neuron", "SAE", "layer", "model"
CONTEXTS = 16
"""Held-out contexts on which a run measures the loss inside the model."""
N_PAIRS, N_SAMPLE = 40, 300
"""Matched pairs in an answer, and features from which a null of shared tokens is drawn."""


@dataclass(frozen=True)
class Thing:
    """One side of a comparison."""

    kind: str
    """`feature`, `neuron`, `SAE`, `layer` or `model`."""
    name: str
    """Its name in an address, as `thing` reads it."""
    model: str = ""
    hook_point: str = ""
    dictionary: str = ""
    """Of a feature or neuron: `sae:NAME` or `neurons:HOOK_POINT`; of an SAE `sae:NAME`."""
    index: int = -1
    """Number of a feature or neuron."""
    features: str = ""
    """Features artefact that describes it; empty without one."""
    href: str = ""
    """Address of its own page; empty without one."""

    @property
    def sae(self) -> str:
        """Name of its SAE; empty without one."""
        return self.dictionary.removeprefix("sae:") if self.dictionary.startswith("sae:") else ""

    @property
    def one(self) -> bool:
        """True for a single feature or neuron."""
        return self.kind in (FEATURE, NEURON)


@dataclass(frozen=True)
class Measure:
    """One number about a pair, with its null."""

    name: str
    value: float
    null: float | None
    """95th percentile of the magnitude of the null; of a count, the number expected by chance."""
    p: float | None
    """Fraction of the null that reaches the value, with the value counted among it; None without draws."""
    of: str
    """The null, in words."""


def two(workspace: Workspace, a: str, b: str) -> tuple[Thing, Thing]:
    """Return two comparable things; a neuron next to a feature is one of the feature's model.

    Raises as `thing`, and `UsageError` for two things that cannot be compared.
    """
    one, other = thing(workspace, a), thing(workspace, b)
    if one.kind == NEURON and other.kind == FEATURE:
        one = thing(workspace, a, model=other.model)
    elif one.kind == FEATURE and other.kind == NEURON:
        other = thing(workspace, b, model=one.model)
    kind_of(one, other)
    return one, other


def thing(workspace: Workspace, text: str, *, model: str = "") -> Thing:
    """Return what a name stands for; `model` is that of `neurons:HOOK_POINT:NUMBER`, by default one of the workspace.

    Raises `UnknownNameError` with the nearest names, `UsageError` out of range.
    """
    text = text.strip()
    head, colon, number = text.rpartition(":")
    if colon and number.isdecimal() and len(number) < 10:
        return _one(workspace, head, int(number), model)
    if text.removeprefix("saes/") in workspace.names("sae"):
        name = text.removeprefix("saes/")
        sae = workspace.open(StoredSAE, name)
        key, table = f"sae:{name}", _described(workspace, f"sae:{name}")
        return Thing(SAE, name, sae.model, sae.hook_point, key, features=table, href=sae.href)
    spec, at, hook_point = text.rpartition("@")
    if at or parse_hook_point(text).layer is not None:
        hook_point = str(parse_hook_point(hook_point if at else text))
        model = spec or next(iter(_models_at(workspace, hook_point)), "")
        return Thing(LAYER, f"{model}@{hook_point}" if model else hook_point, model, hook_point)
    known = [*models(workspace), *(name for pair in _compared_models(workspace) for name in pair[1])]
    if text in known:
        return Thing(MODEL, text, text)
    raise UnknownNameError("thing to compare", text[:200], options(workspace), "A feature is NAME:NUMBER.")


def _one(workspace: Workspace, head: str, index: int, model: str) -> Thing:
    """Return a feature or neuron by the name of its features artefact or SAE, or `neurons:HOOK_POINT`."""
    if head.startswith(NEURONS):
        hook_point = str(parse_hook_point(head.removeprefix(NEURONS)))
        if not hook_point.endswith(".mlp.hook_post"):
            raise UsageError(f"neurons live at blocks.N.mlp.hook_post, got {hook_point[:80]!r}")
        dictionary, model = f"{NEURONS}{hook_point}", model or next(iter(_models_at(workspace, hook_point)), "")
        table = _described(workspace, dictionary, model)
    elif head in workspace.names("features"):
        described, table = workspace.open(Features, head), head
        dictionary, model = described.dictionary, described.settings.model
        hook_point = described.neurons or described.settings.hook_point
    elif head in workspace.names("sae"):
        sae, table = workspace.open(StoredSAE, head), _described(workspace, f"sae:{head}")
        dictionary, model, hook_point = f"sae:{head}", sae.model, sae.hook_point
        if not index < sae.d_sae:
            raise UsageError(f"feature {index} is not in {head!r}: its features are 0 to {sae.d_sae - 1}")
    else:
        known = [*workspace.names("features"), *workspace.names("sae")]
        raise UnknownNameError("dictionary", head[:200], known, "Neurons are neurons:blocks.N.mlp.hook_post:NUMBER.")
    if table:
        features.one(workspace, table, index)  # an unknown number fails here, with its message
    kind = NEURON if dictionary.startswith(NEURONS) else FEATURE
    href = feature_href(table, index) if table else ""
    return Thing(kind, f"{head}:{index}", model, hook_point, dictionary, index, table, href)


def _described(workspace: Workspace, dictionary: str, model: str = "") -> str:
    """Return the name of the newest features artefact of a dictionary (of a model's neurons), or "" without one."""
    made = (each for each in workspace.values(Features) if each.dictionary == dictionary)
    return next((each.name for each in made if model in ("", each.settings.model)), "")


def _models_at(workspace: Workspace, hook_point: str) -> Iterator[str]:
    """Yield the models of artefacts of a hook point, newest first, then all others of the workspace."""
    for comparison in workspace.values(SpaceComparison):
        if hook_point in _spaces(comparison):
            yield from comparison.settings.models
    for report in workspace.values(SpaceReport):
        if hook_point in report.settings.hook_points:
            yield report.settings.model
    for recording in workspace.values(Recorded):
        if hook_point in recording.settings.hook_points:
            yield recording.settings.model
    for described in workspace.values(Features):
        if described.settings.hook_point == hook_point:
            yield described.settings.model
    yield from models(workspace)


def _spaces(comparison: SpaceComparison) -> tuple[str, ...]:
    """Return the names of the spaces of a comparison; none where its file is damaged."""
    try:
        return comparison.spaces
    except CorruptError:
        return ()


def options(workspace: Workspace) -> list[str]:
    """Return names to choose from: SAEs, the first feature of each table, layers, models."""
    found = list(workspace.names("sae"))
    found += [f"{m.name}:{features.most_telling(workspace, m.name)}" for m in workspace.newest("features")]
    spaces = [each for recording in workspace.values(Recorded) for each in recording.settings.hook_points]
    spaces += [each for comparison in workspace.values(SpaceComparison) for each in _spaces(comparison)]
    found += [each for each in spaces if isinstance(each, str) and each.startswith("blocks.")]
    return list(
        dict.fromkeys([*found, *models(workspace), *(n for _, pair in _compared_models(workspace) for n in pair)])
    )


def partners(workspace: Workspace, one: Thing) -> list[tuple[str, str]]:
    """Return (name, reason) of things worth comparing with one thing, nearest first."""
    if one.one and one.features:
        row = features.one(workspace, one.features, one.index).row
        found = [(f"{one.features}:{n}", f"neighbour, cosine {cosine:.2f}") for n, cosine in row.near[:4]]
        related = features.relations(workspace, one.features, one.index)
        if related is not None:
            found += [
                (f"{one.features}:{n}", f"fires on the same tokens, Jaccard {value:.2f}")
                for n, value, *_ in related.row.companions[:3]
            ]
            found += [
                (f"{NEURONS}blocks.{layer}.mlp.hook_post:{n}", f"neuron, cosine {cosine:+.2f}")
                for layer, n, cosine in related.row.near_neurons[:3]
            ]
        return found
    if one.kind == SAE:
        others = [each for each in workspace.values(StoredSAE) if each.name != one.name]
        return [(each.name, "at the same hook point") for each in others if each.hook_point == one.hook_point]
    if one.kind == LAYER:
        found = [name for name in options(workspace) if name.startswith("blocks.") and name != one.hook_point]
        return [(f"{one.model}@{name}" if one.model else name, "another layer") for name in found]
    pairs = (pair for _, pair in _compared_models(workspace) if one.name in pair)
    return [(name, "compared before") for pair in pairs for name in pair if name != one.name]


def kind_of(a: Thing, b: Thing) -> str:
    """Return the kind of a comparison. Raises `UsageError` for two things that cannot be compared."""
    if a.one and b.one:
        return FEATURE
    if a.kind != b.kind:
        raise UsageError(
            f"{a.name} is a {a.kind} and {b.name} a {b.kind}: compare two features or neurons, two SAEs, two layers, "
            "or two models"
        )
    return a.kind


def about(workspace: Workspace, one: Thing) -> FeatureRow | None:
    """Return the stored row of a feature or neuron; None where no table describes it."""
    if not (one.one and one.features):
        return None
    return features.one(workspace, one.features, one.index).row


@dataclass(frozen=True)
class SharedTokens:
    """Tokens that two features share; null: pairs of the first with other features of the second's dictionary."""

    what: str
    tokens: list[str]
    measure: Measure


def shared_tokens(workspace: Workspace, a: Thing, b: Thing) -> list[SharedTokens]:
    """Return the promoted tokens, and the tokens of strongest activation, that two described features share."""
    if not (a.features and b.features):
        return []
    of = f"{a.name} with other features of {b.features}"
    found: list[SharedTokens] = []
    for what, table, sql in (
        (PROMOTED, "features", _PROMOTED),
        ("tokens at the peak of examples", "examples", _PEAKS),
    ):
        n = workspace.open(Features, b.features).n_features
        first = max(0, min(b.index - N_SAMPLE // 2, n - N_SAMPLE))
        last = min(first + N_SAMPLE, n - 1)
        mine, others = _said(workspace, a, a.index, a.index), _said(workspace, b, first, last)
        if what != PROMOTED or not mine or not others:
            mine = _lists(workspace, a.features, table, sql, a.index, a.index)
            others = _lists(workspace, b.features, table, sql, first, last)
        mine = mine.get(a.index, [])
        theirs = others.pop(b.index, [])
        if a.features == b.features:
            others.pop(a.index, None)
        if not mine or not theirs or not others:
            continue
        same = [token for token in mine if token in set(theirs)]
        null = sorted(len(set(mine) & set(each)) for each in others.values())
        reach = sum(each >= len(same) for each in null)
        p = (1 + reach) / (1 + len(null))
        bound = float(null[math.ceil(0.95 * len(null)) - 1])
        found.append(SharedTokens(what, same, Measure(f"shared {what}", float(len(same)), bound, p, of)))
    return found


def _said(workspace: Workspace, one: Thing, first: int, last: int) -> dict[int, list[str]]:
    """Return the tokens that features say through the Jacobian lens; none where that is not known."""
    found = said_words(workspace, one.features, range(first, last + 1), KEPT, beyond_null=False)
    return {feature: list(dict.fromkeys(each.strip().lower() for each in words)) for feature, words in found.items()}


PROMOTED = "promoted tokens"
_PROMOTED = """select feature, list_distinct([lower(trim(t)) for t in promoted_tokens]) as tokens
               from t where feature between ? and ?"""
_PEAKS = """select feature, list(distinct lower(trim(tokens[peak + 1]))) as tokens
            from t where feature between ? and ? group by feature"""


def _lists(workspace: Workspace, name: str, table: str, sql: str, low: int, high: int) -> dict[int, list[str]]:
    rows = workspace.query(sql, low, high, t=workspace.table_path("features", name, table)).to_pylist()
    return {row["feature"]: sorted(filter(None, row["tokens"])) for row in rows}


def together(workspace: Workspace, a: Thing, b: Thing) -> Measure | None:
    """Return the recorded co-activation of two features of one table; None where it was not recorded."""
    related = features.relations(workspace, a.features, a.index) if a.features and a.features == b.features else None
    found = [each for each in related.row.companions if each[0] == b.index] if related else []
    if related is None or not found:
        return None
    _, _, both, expected = found[0]
    name = f"tokens on which both fire, of {related.scales.coactivation_tokens:,}"
    return Measure(name, float(both), expected, None, "the number expected if they fired independently")


def comparisons(workspace: Workspace, a: Thing, b: Thing) -> list[SAEComparison]:
    """Return the comparisons of both SAEs as they are now, newest first."""
    hashes = {f"saes/{each.name}": workspace.manifest("sae", each.name).content_hash for each in (a, b)}
    return [each for each in workspace.values(SAEComparison) if hashes.items() <= each.about.parents.items()]


def scores(workspace: Workspace, a: Thing, b: Thing) -> dict[str, Any]:
    """Return reconstruction scores of two SAEs: `rows`, and the `artefact` and common `l0` of a comparison.

    Without a comparison the rows have the scores of each at its own L0, and `artefact` is "".
    """
    for made in comparisons(workspace, a, b):
        rows = [_score_row(row) for row in made.rows if row.baseline or row.name in (a.name, b.name)]
        measured = [key for key in rows[0] if any(row[key] is not None for row in rows)]
        return {"artefact": made.name, "l0": made.l0, "rows": [{key: row[key] for key in measured} for row in rows]}
    heldout = [(each.name, workspace.open(StoredSAE, each.name).heldout) for each in (a, b)]
    rows = [{"dictionary": name, "L0": own and own.l0, "FVU": own and own.fvu} for name, own in heldout]
    return {"artefact": "", "l0": None, "rows": rows}


def _score_row(row: Compared) -> dict[str, Any]:
    name = row.name + (" (baseline)" if row.baseline else "")
    return {"dictionary": name} | {score.title: score.of(row) for score in SCORES if score.on_page}


def stored_matches(workspace: Workspace, a: Thing, b: Thing) -> dict[str, list[Any]] | None:
    """Return the columns `first` (of a), `second` (of b), `cosine`, `random` of a stored match; None without one."""
    for made in comparisons(workspace, a, b):
        if made.matches is None:
            continue
        for one, two in ((a, b), (b, a)):
            sql = "select first, second, cosine, random from t where pair = ?"
            found = made.matches.query(sql, f"{one.name}, {two.name}").to_pydict()
            if found["first"]:
                return found if one is a else found | {"first": found["second"], "second": found["first"]}
    return None


def labels(workspace: Workspace, one: Thing, indices: Iterable[int]) -> dict[int, str]:
    """Return the labels of some features of an SAE; empty where no table describes it."""
    return features.labels(workspace, one.features, list(indices)) if one.features else {}


def run_of(workspace: Workspace, a: Thing, b: Thing) -> tuple[str, dict[str, Any]] | None:
    """Return the verb that compares two SAEs or layers from a page, and its options; None where none can.

    Two SAEs need a recording of their hook point, if possible that of the first.
    """
    if a.kind == LAYER:
        points = list(dict.fromkeys([a.hook_point, b.hook_point]))
        options = {"model": a.model, "hook_points": points, "name": slug("layers", *points, a.model, b.model)}
        return "geometry compare", options | ({} if a.model == b.model else {"other": b.model})
    own = workspace.open(StoredSAE, a.name).recording
    found = [
        each.name
        for each in workspace.values(Recorded)
        if a.hook_point in each.settings.hook_points and each.settings.model == a.model
    ]
    if not found or a.hook_point != b.hook_point:
        return None
    options = {"saes": [a.name, b.name], "recording": own if own in found else found[0], "match": True}
    return "compare saes", options | {"contexts": CONTEXTS, "name": slug("match", a.name, b.name), "overwrite": True}


def slug(*parts: str) -> str:
    """Return a name for an artefact of some things, each named once; layers without `blocks.`."""
    short = (part.removeprefix("blocks.") for part in dict.fromkeys(parts))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(short))[:64]


@dataclass(frozen=True)
class LayerPair:
    """Similarity of two layers from a stored comparison of spaces."""

    comparison: SpaceComparison
    measures: list[Measure]


def layer_pair(workspace: Workspace, a: Thing, b: Thing) -> LayerPair | None:
    """Return CKA, and Procrustes and optimal transport where they were computed; None without a comparison."""
    for made in workspace.values(SpaceComparison):
        for one, two in _space_names(made.settings.models, a, b):
            if {one, two} <= set(_spaces(made)):
                return LayerPair(made, _layer_measures(made, one, two))
    return None


def _space_names(compared: tuple[str, ...], a: Thing, b: Thing) -> Iterator[tuple[str, str]]:
    """Yield the names of two layers in a comparison of one model's layers, or of two models'."""
    if len(compared) == 1 and a.model == b.model == compared[0]:
        yield a.hook_point, b.hook_point
    elif len(compared) == 2:
        marks = dict(zip(compared, ("A ", "B "), strict=True))
        if a.model in marks and b.model in marks:
            yield marks[a.model] + a.hook_point, marks[b.model] + b.hook_point


def _layer_measures(made: SpaceComparison, one: str, two: str) -> list[Measure]:
    first, second = sorted((made.spaces.index(one), made.spaces.index(two)))  # one order, as shuffled rows depend on it
    at = first, second
    cka, null, error = (float(table[at]) for table in (made.cka.cka, made.cka.shuffled, made.cka.error))
    measures = [Measure("CKA (1 the same up to rotation and scale, 0 unrelated)", cka, null, None,
                        f"shuffled tokens; standard error {error:.3f}")]  # fmt: skip
    pair = next((each for each in made.pairs if {each.first, each.second} == {one, two}), None)
    if pair:
        title, of = "Procrustes residual (0 a rotation maps one onto the other)", "smallest of shuffled tokens"
        fit = pair.procrustes
        measures.append(Measure(title, fit.value, fit.null_range[0], fit.p, of))
    if pair and (cloud := pair.transport):
        title = "W2² of optimal transport (squared units)"
        measures.append(Measure(title, cloud.between, cloud.floor, cloud.p, "halves of one cloud"))
    return measures


def dimensions(workspace: Workspace, one: Thing) -> Record | None:
    """Return the stored measures of a layer's space, with `artefact`; None where it was not measured."""
    for made in workspace.values(SpaceReport):
        if made.settings.model == one.model and one.hook_point in made.settings.hook_points:
            row = next(row for row in made.to_records() if row["space"] == one.hook_point)
            return row | {"artefact": made.key}
    return None


def _compared_models(workspace: Workspace) -> list[tuple[Artefact, tuple[str, str]]]:
    """Return the comparisons of two models with the names of their models, newest first."""
    found: list[tuple[Artefact, tuple[str, str]]] = [
        (each, (each.base, each.tuned)) for each in workspace.values(ModelComparison)
    ]
    found += [(each, (each.first, each.second)) for each in workspace.values(LatentComparison)]
    found += [
        (each, (each.settings.models[0], each.settings.models[1]))
        for each in workspace.values(SpaceComparison)
        if len(each.settings.models) == 2
    ]
    return sorted(found, key=lambda each: each[0].about.created, reverse=True)


@dataclass(frozen=True)
class ModelPair:
    """One artefact that compares two models."""

    artefact: str
    kind: str
    href: str
    findings: list[str]


def model_pairs(workspace: Workspace, a: Thing, b: Thing) -> list[ModelPair]:
    """Return the artefacts that compare two models, newest first."""
    found: list[ModelPair] = []
    for made, names in _compared_models(workspace):
        if set(names) == {a.name, b.name}:
            said = made.sentences() if isinstance(made, ModelComparison) else []
            found.append(ModelPair(made.key, made.kind.replace("_", " "), made.href, said))
    return found


def why(error: WorkbenchError) -> str:
    """Return the reason why something could not be measured, as one line."""
    return str(error).splitlines()[0]
