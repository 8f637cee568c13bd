"""Two features by name, and what the tables of a workspace say about the pair. Torch-free.

named(workspace, "demo:540")      a feature, by its SAE or its features artefact
"""

from dataclasses import dataclass

from dashboard.data import features
from dashboard.data.feature_names import is_name
from interp.errors import UnknownNameError, UsageError
from interp.workspace import Workspace
from saes.evaluation.counterparts import CounterpartRow, Counterparts
from saes.features.schema import FeatureRow, Features
from saes.training.stored import StoredSAE


@dataclass(frozen=True)
class NamedFeature:
    """A feature of a dictionary."""

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


def named(workspace: Workspace, text: str) -> NamedFeature:
    """Return the feature of a name.

    Raises `UnknownNameError` with the nearest names, `UsageError` for another form of name or out of range.
    """
    if not is_name(text):
        raise UsageError(f"expected a feature, such as demo:12, got {text[:200]!r}")
    head, _, number = text.strip().rpartition(":")
    index = int(number)
    if head in workspace.names("features"):
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
        raise UnknownNameError("dictionary", head[:200], known)
    if table:
        features.one(workspace, table, index)  # an unknown number fails here, with its message
    return NamedFeature(f"{head}:{index}", model, hook_point, dictionary, index, table)


def newest(workspace: Workspace, name: str = "") -> Counterparts | None:
    """Return the counterparts of a name, without one the newest; None where there are none."""
    if name:
        return workspace.open(Counterparts, name)
    return next(iter(workspace.values(Counterparts)), None)


def stored_pair(workspace: Workspace, a: NamedFeature, b: NamedFeature) -> tuple[Counterparts, CounterpartRow] | None:
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


def _described(workspace: Workspace, dictionary: str) -> str:
    """Return the name of the newest features artefact of a dictionary, or "" without one."""
    return next((table.name for table in workspace.values(Features) if table.dictionary == dictionary), "")


def about(workspace: Workspace, feature: NamedFeature) -> FeatureRow | None:
    """Return the stored row of a feature; None where no table describes it."""
    return features.one(workspace, feature.features, feature.index).row if feature.features else None
