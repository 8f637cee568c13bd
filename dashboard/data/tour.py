"""The steps of the tour: each names something that this workspace has, so that its link leads to an answer."""

from collections import Counter
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

from dashboard.data.features import choose
from dashboard.data.meaning import known_meaning
from dashboard.data.workspace import kept
from interp.errors import WorkbenchError
from interp.workspace import Workspace
from saes.features.schema import TOP, Features
from saes.features.telling import telling

TourStep = tuple[str, ...]
"""Title, what to do there, text of a link, and its address."""


@kept
def tour_steps(workspace: Workspace, stamp: str) -> tuple[TourStep, ...]:
    """Return the steps."""
    first, what, word, at = None, "the features", "", ""
    with suppress(WorkbenchError):  # the page that it would lead to says what is wrong
        first = first_feature(workspace, stamp)
    if first is not None:
        what, word, at = "the feature", first.word, f"/{quote(first.features)}/{first.feature}"
    steps = (
        ("features", "Search for a word", "Type a word into Find features (key /): the best match comes first.",
         f"Search for {word}" if word else "Open the search", f"/search?q={quote(word)}" if word else "/search"),
        ("features", "Prove a feature", "A feature's page shows the text on which it fires. Under Prove it, test it "
         "against random directions.", f"Open {what}", f"/feature{at}"),
        ("", "Look at a prompt", "Choose a token of a prompt: its features, the logit lens, attention and attribution "
         "follow the choice.", "Open a prompt", "/prompt"),
        ("atlas", "See the map", "On the atlas similar vectors lie together. A click shows the nearest neighbours in "
         "the full space.", "Open the map", "/atlas"),
    )  # fmt: skip
    return tuple(tuple(step) for kind, *step in steps if not kind or workspace.names(kind))


class FirstFeature(NamedTuple):
    """The feature to show first, with a word on which it fires and those that it makes the model say."""

    features: str
    feature: int
    label: str
    word: str
    says: tuple[str, ...]


@kept
def first_feature(workspace: Workspace, stamp: str) -> FirstFeature | None:
    """Return the most telling feature that fires on a whole word; None without features or labels beyond the null."""
    if not workspace.names("features"):
        return None
    made = workspace.open(Features, choose(workspace, None))
    meaning = known_meaning(workspace, made)
    for feature, label in telling(workspace, made.name, meaning):
        if word := firing_word(workspace, made.name, feature, label):
            says = () if meaning is None else tuple(token for token, _ in meaning.says(feature, 4).raised)
            return FirstFeature(made.name, feature, label, word, says)
    return None


def firing_word(workspace: Workspace, name: str, feature: int, label: str) -> str:
    """Return the commonest whole word on which a feature's strongest firings peak, one in the label if there is."""
    sql = 'select tokens[peak + 1] as token, tokens[peak + 2] as after from e where feature = ? and "group" = ?'
    rows = workspace.query(sql, feature, TOP, e=workspace.table_path("features", name, "examples")).to_pylist()
    whole = [row["token"] for row in rows if row["token"][:1] == " " and not (row["after"] or " ")[0].isalnum()]
    common = Counter(token.strip() for token in whole if token.strip().isalpha()).most_common()
    words = [word for word, _ in common if len(word) > 2]
    return next((word for word in words if word.lower() in label.lower()), next(iter(words), ""))
