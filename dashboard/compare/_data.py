"""Two features or neurons by name, and what the tables of a workspace say about the pair. Torch-free.

named(workspace, "demo:540")      a feature; likewise a neuron, neurons:blocks.9.mlp.hook_post:12
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from dashboard.data import features
from dashboard.data.feature_names import is_name
from dashboard.data.meaning import said_words
from interp.errors import UnknownNameError, UsageError
from interp.names import parse_hook_point
from interp.nulls import p_from_null
from interp.recording.recorded import Recorded
from interp.workspace import Workspace
from saes.acts.session import models
from saes.evaluation.counterparts import CounterpartRow, Counterparts
from saes.features.meaning import KEPT
from saes.features.schema import NEURONS, FeatureRow, Features
from saes.training.stored import StoredSAE

N_SAMPLE = 300
"""Features from which a null of shared tokens is drawn."""


@dataclass(frozen=True)
class FeatureOrNeuron:
    """A feature of a dictionary, or a neuron."""

    name: str
    """Its name in an address, as `named` reads it."""
    model: str
    hook_point: str
    dictionary: str
    """`sae:NAME` or `neurons:HOOK_POINT`."""
    index: int
    """Its number in the dictionary."""
    features: str
    """Features artefact that describes it; empty without one."""

    @property
    def sae(self) -> str:
        """Name of its SAE; empty without one."""
        return self.dictionary.removeprefix("sae:") if self.dictionary.startswith("sae:") else ""

    @property
    def neuron(self) -> bool:
        """True for a neuron."""
        return self.dictionary.startswith(NEURONS)


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


def both(workspace: Workspace, a: str, b: str) -> tuple[FeatureOrNeuron, FeatureOrNeuron]:
    """Return two named features; a neuron next to a feature is one of the feature's model. Raises as `named`."""
    first, second = named(workspace, a), named(workspace, b)
    if first.neuron and not second.neuron:
        first = named(workspace, a, model=second.model)
    elif second.neuron and not first.neuron:
        second = named(workspace, b, model=first.model)
    return first, second


def named(workspace: Workspace, text: str, *, model: str = "") -> FeatureOrNeuron:
    """Return the feature or neuron of a name; `model` is that of a neuron, by default one of the workspace.

    Raises `UnknownNameError` with the nearest names, `UsageError` for another form of name or out of range.
    """
    if not is_name(text):
        raise UsageError(
            f"expected a feature, such as demo:12, or a neuron, neurons:blocks.N.mlp.hook_post:12; got {text[:200]!r}"
        )
    head, _, number = text.strip().rpartition(":")
    index = int(number)
    if head.startswith(NEURONS):
        hook_point = str(parse_hook_point(head.removeprefix(NEURONS)))
        if not hook_point.endswith(".mlp.hook_post"):
            raise UsageError(f"neurons live at blocks.N.mlp.hook_post, got {hook_point[:80]!r}")
        dictionary, model = f"{NEURONS}{hook_point}", model or _model_at(workspace, hook_point)
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
        known = dict.fromkeys([*workspace.names("features"), *workspace.names("sae")])
        raise UnknownNameError("dictionary", head[:200], known, "Neurons are neurons:blocks.N.mlp.hook_post:NUMBER.")
    if table:
        features.one(workspace, table, index)  # an unknown number fails here, with its message
    return FeatureOrNeuron(f"{head}:{index}", model, hook_point, dictionary, index, table)


def newest(workspace: Workspace, name: str = "") -> Counterparts | None:
    """Return the counterparts of a name, without one the newest; None where there are none."""
    if name:
        return workspace.open(Counterparts, name)
    return next(iter(workspace.values(Counterparts)), None)


def stored_pair(
    workspace: Workspace, a: FeatureOrNeuron, b: FeatureOrNeuron
) -> tuple[Counterparts, CounterpartRow] | None:
    """Return the counterparts in which one of two features is the other's, with its row; None without any."""
    where = "side = ? and feature = ? and counterpart = ?"
    for made in workspace.values(Counterparts):
        sides = {
            (made.settings.first, made.settings.second): "first",
            (made.settings.second, made.settings.first): "second",
        }
        for one, other in ((a, b), (b, a)):
            side = sides.get((one.features, other.features), "")
            if rows := made.pairs.rows(where, side, one.index, other.index) if side else []:
                return made, rows[0]
    return None


def _described(workspace: Workspace, dictionary: str, model: str = "") -> str:
    """Return the name of the newest features artefact of a dictionary (of a model's neurons), or "" without one."""
    made = (table for table in workspace.values(Features) if table.dictionary == dictionary)
    return next((table.name for table in made if model in ("", table.settings.model)), "")


def _model_at(workspace: Workspace, hook_point: str) -> str:
    """Return the newest model that was recorded at a hook point, else one whose features are there, else the first."""
    recorded = (made.settings for made in workspace.values(Recorded) if hook_point in made.settings.hook_points)
    described = (made.settings for made in workspace.values(Features) if made.settings.hook_point == hook_point)
    return next(chain((settings.model for settings in chain(recorded, described)), models(workspace)), "")


def partners(workspace: Workspace, feature: FeatureOrNeuron) -> list[tuple[str, str]]:
    """Return (name, reason) of what is worth comparing with one feature, nearest first; none without its table."""
    if not feature.features:
        return []
    described, row = features.one(workspace, feature.features, feature.index)
    pairs = [(f"{feature.features}:{n}", f"neighbour, cosine {cosine:.2f}") for n, cosine in row.near[:4]]
    related = features.relations(described, feature.index)
    if related is not None:
        pairs += [
            (f"{feature.features}:{n}", f"fires on the same tokens, Jaccard {value:.2f}")
            for n, value, *_ in related.row.companions[:3]
        ]
        pairs += [
            (f"{NEURONS}blocks.{layer}.mlp.hook_post:{n}", f"neuron, cosine {cosine:+.2f}")
            for layer, n, cosine in related.row.near_neurons[:3]
        ]
    return pairs


def about(workspace: Workspace, feature: FeatureOrNeuron) -> FeatureRow | None:
    """Return the stored row of a feature or neuron; None where no table describes it."""
    return features.one(workspace, feature.features, feature.index).row if feature.features else None


@dataclass(frozen=True)
class SharedTokens:
    """Tokens that two features share; null: pairs of the first with other features of the second's dictionary."""

    what: str
    tokens: list[str]
    measure: Measure


def shared_tokens(workspace: Workspace, a: FeatureOrNeuron, b: FeatureOrNeuron) -> list[SharedTokens]:
    """Return the promoted tokens, and the tokens of strongest activation, that two described features share."""
    if not (a.features and b.features):
        return []
    of = f"{a.name} with other features of {b.features}"
    shared: list[SharedTokens] = []
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
        null = sorted(len(set(mine) & set(tokens)) for tokens in others.values())
        p = p_from_null(len(same), null)
        bound = float(null[math.ceil(0.95 * len(null)) - 1])
        shared.append(SharedTokens(what, same, Measure(f"shared {what}", float(len(same)), bound, p, of)))
    return shared


def _said(workspace: Workspace, feature: FeatureOrNeuron, first: int, last: int) -> dict[int, list[str]]:
    """Return the tokens that features say through the Jacobian lens; none where that is not known."""
    described = workspace.open(Features, feature.features)
    tokens = said_words(workspace, described, range(first, last + 1), KEPT, beyond_null=False)
    return {index: list(dict.fromkeys(token.strip().lower() for token in words)) for index, words in tokens.items()}


PROMOTED = "promoted tokens"
_PROMOTED = """select feature, list_distinct([lower(trim(t)) for t in promoted_tokens]) as tokens
               from t where feature between ? and ?"""
_PEAKS = """select feature, list(distinct lower(trim(tokens[peak + 1]))) as tokens
            from t where feature between ? and ? group by feature"""


def _lists(workspace: Workspace, name: str, table: str, sql: str, low: int, high: int) -> dict[int, list[str]]:
    rows = workspace.query(sql, low, high, t=workspace.table_path("features", name, table)).to_pylist()
    return {row["feature"]: sorted(filter(None, row["tokens"])) for row in rows}


def labels(workspace: Workspace, feature: FeatureOrNeuron, indices: Iterable[int]) -> dict[int, str]:
    """Return the labels of some features of a dictionary; empty where no table describes it."""
    return features.labels(workspace, feature.features, list(indices)) if feature.features else {}
