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
    made = workspace.open(Features, choose(workspace, None))
    address = f"/feature/{quote(made.name)}"
    for feature, label in telling(workspace, made.name, known_meaning(workspace, made)):
        if word := firing_word(workspace, made.name, feature, label):
            return _search(word), _prove(f"{address}/{feature}", "Open the feature")
    return _search(""), _prove(address, "Open the features")


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
