"""Bodies of requests, damaged at random: every route that takes JSON names the wrong field, and none answers 500."""

import copy
import json
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fake_live import FakeLive
from make_direction import direction
from make_graph import write_graph
from visit import unguarded

from interp.tracing.graph import AttributionGraph
from interp.workspace import Workspace

CASES = 30
"""Damaged bodies of each route."""
KEY = "features/demo#12"
MISSING = object()
JUNK = [
    MISSING,
    None,
    True,
    -1,
    0.5,
    -(10**18),
    10**400,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "7",
    "../x",
    "<script>",
    "\ud800",
    "\0",
    "a\nb",
    "x" * 30_000,
    [],
    {},
    [[[{"a": [1]}]]],
    {"": {}},
    {"\ud800": 1},
    [None],
    ["x", 3],
    {"a": "b"},
]
WORDS = {"text": "prompt", "features": "usable name", "artefact": "usable name", "key": "name"}
"""Words for a field whose value has the right form, and is refused for what it says."""
Path = tuple[str | int, ...]


@pytest.fixture(scope="module")
def site(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """Return a visitor of a workspace with a graph and a direction, and a body that each route takes."""
    root = tmp_path_factory.mktemp("bodies") / "workspace"
    shutil.copytree(workspace.root, root)
    own = Workspace(root)
    write_graph(own, "capital", n_tokens=13)
    direction(own, model="smollm2-135m")
    client = unguarded(own, FakeLive())
    return client, {**graph_bodies(own), **circuit_bodies(), **live_bodies(), **note_bodies()}


def graph_bodies(own: Workspace) -> dict[str, Any]:
    ids = [node.id for node in own.open(AttributionGraph, "capital").nodes if node.kind == "feature"][:6]
    edits = {"pins": ids[:1], "groups": [["a", ids]], "names": {ids[0]: "x"}}
    found = {
        "part": {"nodes": 20, "edges": 0.9, "target": None, "pins": ids[:1], "hidden": ids[1:2]},
        "edits": {"edits": edits, "was": {}},
        "split": {"source": ids[0], "target": ids[1], "visitor": "v"},
        "loadings": {"visitor": "v"},
        "reasons": {"layer": 1, "head": 0, "query": 2, "key": 1, "visitor": "v"},
    }
    return {f"/graph-data/capital/{path}.json": body for path, body in found.items()}


def circuit_bodies() -> dict[str, Any]:
    """Return bodies of the requests about a circuit of the shared workspace."""
    edits = {"groups": [["a", ["L0H1", "L2H3"]]]}
    found = {"part": {"n": 4, "paths": True}, "edits": {"edits": edits, "was": {}}, "groups": {"by": "band", "n": 4}}
    return {f"/circuit-data/edge-circuits/ioi/{path}.json": body for path, body in found.items()}


def live_bodies() -> dict[str, Any]:
    """Return bodies of a page's requests to the model; `test_dashboard_acts` has those of every act."""
    steer = {"features": "demo", "feature": 3, "text": "Once", "strength": 1.5, "visitor": "v"}
    routes = {"/api/act/steer": steer, "/api/price/judge_steering": steer | {"nulls": "quick"}}
    return routes | {f"/api/visitor/{what}": {"visitor": "v"} for what in ("stage", "cancel")}


def note_bodies() -> dict[str, Any]:
    step = {"target": {"dictionary": "saes/demo", "index": 3}, "action": "add", "amount": 2}
    found = {
        "set": {"key": KEY, "title": "a", "note": "b", "starred": True, "tags": ["mine"]},
        "recipe": {"recipe": {"name": "up", "steps": [step], "prompt": "Once", "model": ""}},
        "delete": {"kind": "list", "name": "mine"},
    }
    return {f"/api/notes/{act}": body for act, body in found.items()}


def post(client: Any, address: str, body: Any) -> Any:
    answer = client.post(address, data=json.dumps(body), content_type="application/json")
    answer.get_data()  # lines are made as they are read
    return answer


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in a body."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in pairs:
        yield from places(part, (*path, key))


def damaged(body: Any, rng: np.random.Generator) -> tuple[Any, list[str]]:
    """Return a body with one wrong value or a field too many, and the names on the way to it."""
    found, paths = copy.deepcopy(body), list(places(body))
    junk = JUNK[rng.integers(len(JUNK))]
    if rng.random() < 0.1:
        return found | {"colour": junk if junk is not MISSING else 1}, ["colour"]
    *way, last = paths[rng.integers(len(paths))]
    held = found
    for key in way:
        held = held[key]
    if junk is MISSING:
        del held[last]
    else:
        held[last] = junk
    return found, [str(each) for each in (*way, last)]


def test_every_route_that_takes_json_takes_the_bodies_that_its_page_sends(site):
    client, bodies = site
    rules = [rule for rule in client.application.url_map.iter_rules() if "POST" in (rule.methods or ())]
    known = {
        f"{rule}".replace("/act/<name>", "/act/steer")
        .replace("/price/<name>", "/price/judge_steering")
        .replace("<folder>/<name>", "edge-circuits/ioi")
        .replace("<name>", "capital")
        for rule in rules
        if not f"{rule}".startswith("/_")
    }
    covered = {address for rule in known if "<" in rule for address in bodies if address.startswith(rule.split("<")[0])}
    assert {rule for rule in known if "<" not in rule} | covered == {*bodies}
    for address, body in bodies.items():
        answer = post(client, address, body)
        assert answer.status_code == 200, (address, answer.text)


def test_a_damaged_body_is_a_400_that_names_the_field_and_never_a_500(site, caplog):
    client, bodies = site
    rng, seen = np.random.default_rng(0), {200: 0, 400: 0, 404: 0, 409: 0}
    for address, body in bodies.items():
        for case in range(CASES):
            sent, names = damaged(body, rng)
            answer = post(client, address, sent)
            said = f"{address} {case} {ascii(sent)[:400]}: {answer.status_code} {answer.text[:300]}"
            assert answer.status_code in seen, said
            seen[answer.status_code] += 1
            if answer.status_code == 400:
                error = answer.get_json()["error"]
                assert "\n" not in error, said
                assert len(error) < 500, said
                known = {*names, *(name.replace("_", " ") for name in names), *(WORDS.get(name) for name in names)}
                assert any(name in error for name in known if name), said
    assert seen[400] > 300, seen
    assert not caplog.records, "an answer in lines failed"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "7", "null", '"text"', "[" * 100_000, '{"visitor": 1' + "0" * 5000 + "}"]
)
def test_a_body_that_is_no_object_is_a_400_on_every_route(site, text):
    client, bodies = site
    for address in bodies:
        answer = client.post(address, data=text, content_type="application/json")
        assert answer.status_code == 400, (address, answer.text)
        assert answer.get_json()["error"].startswith(("the request", "the export of notes")), answer.text
