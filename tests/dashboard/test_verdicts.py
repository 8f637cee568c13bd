"""Verdicts of pages: one sentence of at most 25 words on top, and the method folded behind it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_live import FakeLive
from make_direction import direction
from make_graph import write_graph
from visit import Visitor

from dashboard.app import create_app
from dashboard.components.frame import METHOD, verdict
from dashboard.components.pages import find_pages
from interp.workspace import Workspace

MOST = 25
RESULTS = ("Features", "Graph", "Heads", "Circuit", "Geometry", "Directions", "Changes", "Doctor", "Dynamics", "Atlas")
"""Titles of the pages that open on one result."""


def texts(node: Any) -> Iterator[str]:
    """Yield the texts of a component in JSON, or of a still tree `[tag, properties, *children]`."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        still = len(node) > 1 and isinstance(node[0], str) and isinstance(node[1], dict)
        for child in node[2:] if still else node:
            yield from texts(child)
    elif isinstance(node, dict):
        props = node.get("props", {})
        yield from texts(props.get("children") or props.get("tree") or "")


def judged(node: Any) -> Iterator[str]:
    """Yield the text of every verdict in an answer of the server."""
    if isinstance(node, list):
        still = len(node) > 1 and isinstance(node[0], str) and isinstance(node[1], dict)
        if still and node[1].get("className") == "wb-verdict":
            yield "".join(texts(node))
        for child in node[2:] if still else node:
            yield from judged(child)
    elif isinstance(node, dict):
        if node.get("className") == "wb-verdict":
            yield "".join(texts({"props": node}))
        for value in node.values():
            yield from judged(value)


def verdicts(visitor: Visitor, address: str) -> list[str]:
    parts = [json.loads(line) for line in visitor.open(address).split("\n")]
    return [text for part in parts for text in judged(part)]


def test_the_search_for_verdicts_reads_components_and_still_trees():
    shown = json.loads(json.dumps(verdict("Yes.", "how"), default=lambda part: part.to_plotly_json()))
    assert list(judged(shown)) == ["Yes."]
    assert list(judged({"tree": ["p", {"className": "wb-verdict"}, "A ", ["b", {}, "word"], "."]})) == ["A word."]
    assert METHOD in json.dumps(shown)


@pytest.mark.parametrize("title", RESULTS)
def test_the_page_of_a_result_has_a_verdict_of_at_most_25_words(own, visitor, title):
    if title == "Directions":
        direction(own)
    if title == "Graph":
        write_graph(own, "capital")
    address = next(page.path for page in find_pages() if page.title == title)
    found = verdicts(visitor, address)
    assert [text for text in found if text], "heads fill theirs in the browser's first callback"
    assert [text for text in found if len(text.split()) > MOST] == []


def test_every_kind_of_artefact_has_a_verdict_of_at_most_25_words(workspace: Workspace):
    visitor = Visitor(create_app(workspace, live=FakeLive()))
    assert len(workspace.artifacts()) > 12
    for manifest in workspace.artifacts():
        found = verdicts(visitor, f"/artefact/{manifest.key}")
        assert found, manifest.key
        assert [text for text in found if len(text.split()) > MOST] == [], manifest.key
