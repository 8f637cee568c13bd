"""The steps of the tour: each names something that this workspace has, so that its link leads to an answer."""

from collections import Counter
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

from dashboard.data.features import choose
from dashboard.data.meaning import known_meaning
from interp.errors import WorkbenchError
from interp.workspace import Workspace
from saes.features.schema import TOP, Features
from saes.features.telling import telling


class TourStep(NamedTuple):
    """One step: a title, what to do there, and a link."""

    title: str
    words: str
    link: str
    address: str


PROMPT = TourStep(
    "Look at a prompt",
    "Choose a token of a prompt: its features, the logit lens, attention and attribution follow the choice.",
    "Open a prompt",
    "/prompt",
)
MAP = TourStep(
    "See the map",
    "On the atlas similar vectors lie together. A click shows the nearest neighbours in the full space.",
    "Open the map",
    "/atlas",
)


@lru_cache(maxsize=8)
def tour_steps(workspace: Workspace, stamp: str) -> tuple[TourStep, ...]:
    """Return the steps; they are chosen again once `stamp` (`data.workspace.stamp`) changes."""
    try:
        features = _of_features(workspace)
    except WorkbenchError:  # the page that it would lead to says what is wrong
        features = ()
    return (*features, PROMPT, *([MAP] if workspace.names("atlas") else []))


def _of_features(workspace: Workspace) -> tuple[TourStep, ...]:
    """Return the steps on a telling feature, and on a word on which it fires; none without features."""
    if not workspace.names("features"):
        return ()
    first = first_feature(workspace)
    if first is None:
        return _search(""), _prove(f"/feature/{quote(choose(workspace, None))}", "Open the features")
    return _search(first.word), _prove(f"/feature/{quote(first.features)}/{first.feature}", "Open the feature")


class FirstFeature(NamedTuple):
    """The feature to show first, with a word on which it fires and those that it makes the model say."""

    features: str
    feature: int
    label: str
    word: str
    says: tuple[str, ...]


def first_feature(workspace: Workspace) -> FirstFeature | None:
    """Return the most telling feature that fires on a whole word; None where no label exceeds its null.

    Raises `NothingYetError` without features.
    """
    made = workspace.open(Features, choose(workspace, None))
    meaning = known_meaning(workspace, made)
    for feature, label in telling(workspace, made.name, meaning):
        if word := firing_word(workspace, made.name, feature, label):
            says = () if meaning is None else tuple(token for token, _ in meaning.says(feature, 4).raised)
            return FirstFeature(made.name, feature, label, word, says)
    return None


def _search(word: str) -> TourStep:
    return TourStep(
        "Search for a word",
        "Type a word into Find features (key /): those come first that fire on it, and on little else.",
        f"Search for {word}" if word else "Open the search",
        f"/search?q={quote(word)}" if word else "/search",
    )


def _prove(address: str, link: str) -> TourStep:
    words = "A feature's page shows the text on which it fires. Under Prove it, test it against random directions."
    return TourStep("Prove a feature", words, link, address)


def firing_word(workspace: Workspace, name: str, feature: int, label: str = "") -> str:
    """Return a whole word on which a feature's strongest firings peak; empty without one.

    It is the commonest of those in the label, else the commonest.
    """
    sql = 'select tokens[peak + 1] as token, tokens[peak + 2] as after from e where feature = ? and "group" = ?'
    path = workspace.table_path("features", name, "examples")
    rows = workspace.query(sql, feature, TOP, e=path).to_pylist()
    whole = [row["token"] for row in rows if row["token"][:1] == " " and not (row["after"] or " ")[0].isalnum()]
    words = [word for word, _ in Counter(token.strip() for token in whole).most_common() if len(word) > 2]
    words = [word for word in words if word.isalpha()]
    return next((word for word in words if word.lower() in label.lower()), next(iter(words), ""))
