"""The read API: what the pages show, as JSON, for scripts and agents.

    GET /api/openapi.json                       every read with its parameters
    GET /api/search?query=January               the features that fire on a text, each with its null
    GET /api/feature?features=demo&index=540    one feature; likewise /api/examples, /api/vector, /api/uses ...

Each read is a function of `READS`: its name is the address, its parameters are those of the query, its docstring is the
description. The Model Context Protocol server (`workbench mcp`) offers the same functions, and `ACTS` and
`CHATS`, which run a model and answer with their controls. Pages use the same queries.
An answer holds at most `MAX_ROWS` rows. Errors are `{"error": sentence}`; `components.http_errors` has the
statuses.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import flask

from dashboard.answers import finite_json, lists, plain
from dashboard.components.live import Live
from dashboard.components.pages import current
from dashboard.queue import RunQueue
from interp.artifacts import KINDS, as_json
from interp.artifacts.describe import as_record, schema_of_kind
from interp.errors import (
    ConfigError,
    UnknownNameError,
    UsageError,
)
from interp.workspace import Workspace

MAX_ROWS = 200


def artefacts(workspace: Workspace, kind: str = "") -> list[dict[str, Any]]:
    """Return the artefacts of the workspace, newest first, optionally of one kind: name, settings, main results."""
    if kind and kind not in KINDS:
        raise UnknownNameError("kind of artefact", kind, list(KINDS))
    fields = ("kind", "name", "created", "seed", "content_hash", "config", "summary", "parents")
    found = workspace.newest(*([kind] if kind else KINDS))
    return [{name: getattr(each, name) for name in fields} for each in found[:MAX_ROWS]]


def kinds(workspace: Workspace) -> dict[str, Any]:
    """Return the contents of each kind of artefact: folder, page and verb, JSON schemas, and columns of tables."""
    return {kind: schema_of_kind(kind) for kind in KINDS}


def artefact(workspace: Workspace, key: str) -> dict[str, Any]:
    """Return one artefact by its key, `heads/smollm2-135m`: settings, results and findings, each with its null.

    Of a table it gives the first rows; `kinds` describes the fields.
    """
    return as_record(workspace.open_key(key), MAX_ROWS)


def search(
    workspace: Workspace, query: str, features: str = "", hook_point: str = "", limit: int = 20
) -> dict[str, Any]:
    """Return the features that fire on a text or whose label contains it, each with its score and its null.

    `like demo:12` searches by similarity of directions. No model runs.
    """
    from dashboard.data.meaning import meaning_if_known
    from saes.features.search import search_features

    where: dict[str, Any] = {"features": features or None, "hook_point": hook_point or None}
    found = search_features(workspace, query, limit=_rows(limit), meanings=meaning_if_known, **where)
    return {"headline": found.headline(), **asdict(found)}


def features(
    workspace: Workspace,
    features: str,
    text: str = "",
    sort: str = "feature",
    descending: bool = False,
    density_low: float = 0.0,
    density_high: float = 1.0,
    offset: int = 0,
    limit: int = 50,
) -> dict[str, Any]:
    """Return a slice of a list of features: number, label, density (fraction of tokens), activations."""
    from dashboard.data.features import Query, listing

    query = Query(text=text, density_low=density_low, density_high=density_high, sort=sort, descending=descending)
    found = listing(workspace, features, query, offset, offset + _rows(limit))
    return {"total": found.total, "offset": offset, "rows": found.rows}


def feature(workspace: Workspace, features: str, index: int) -> dict[str, Any]:
    """Return all that is stored about one feature.

    `relations` has nulls: for effects on logits, random directions (`promoted_p`); for neurons, the nearest ones of
    random directions (`scales.neuron_null`); for companions, the counts expected by chance (`coactive_expected`).
    `outdated` says that the SAE was made again since, and all of this describes another direction; else it is empty.
    """
    from dashboard.data.features import explanations, one, relations
    from saes.features.schema import described_another

    found, related = one(workspace, features, index), relations(workspace, features, index)
    return found.to_json() | {
        "outdated": described_another(workspace, found.features),
        "relations": related and related.to_json(),
        "explanations": [each.to_json() for each in explanations(workspace, features, index)],
    }


def examples(workspace: Workspace, features: str, index: int) -> list[dict[str, Any]]:
    """Return windows of text with the feature's activation on each token, by group, strongest first."""
    from dashboard.data import features as data

    return [asdict(each) for each in data.examples(workspace, features, index)]


def vector(workspace: Workspace, features: str, index: int) -> dict[str, Any]:
    """Return the decoder direction of one feature of an SAE, in the units of the model's activations."""
    from dashboard.data.features import one
    from saes.features.schema import check_described
    from saes.weights.folder import load_direction

    found = one(workspace, features, index).features
    dictionary = found.dictionary
    if not found.sae:
        raise ConfigError(f"the vector of {dictionary} is a row of the model's own weights; ask for features of an SAE")
    check_described(workspace, found)
    about, direction = load_direction(workspace.path("sae", found.sae), index)
    return {"dictionary": dictionary, "feature": index, "hook_point": about.hook_point, "direction": lists(direction)}


def uses(workspace: Workspace, features: str, index: int) -> dict[str, Any]:
    """Return the maps, circuits and direction reports that contain one feature, and its stored proofs.

    `outdated` of a proof says why it no longer applies to the features as they are now; else it is empty.
    """
    from dashboard.data import features as data
    from saes.features.proof import Proof, why_outdated

    found = data.uses(workspace, features, index)
    proofs = [
        {"name": each.name, "outdated": why_outdated(workspace, each), "verdict": each.verdict(), "holds": each.holds(),
         "p": each.p_holm()}
        for each in workspace.values(Proof)
        if (each.settings.features, each.settings.feature) == (features, index)
    ]  # fmt: skip
    return {**found._asdict(), "proofs": proofs}


def sae_dashboard(workspace: Workspace, features: str, index: int) -> dict[str, Any]:
    """Return one feature in the JSON of SAEDashboard, which Neuronpedia imports."""
    from dashboard.data.features import dashboard_batch

    return dashboard_batch(workspace, features, index)


def regions(workspace: Workspace, atlas: str, limit: int = 50) -> list[dict[str, Any]]:
    """Return the regions of a map, largest first: label, number of points, bounds."""
    from dashboard.maps.data import largest_regions

    return largest_regions(workspace, atlas, _rows(limit))


def circuit(workspace: Workspace, name: str) -> dict[str, Any]:
    """Return a circuit: its nodes, its strongest edges, and the evidence for each, with the nulls and the verdict."""
    from interp.circuits.found_circuit import open_circuit

    found = open_circuit(workspace, name)
    edges = sorted(found.circuit.edges, key=lambda edge: -abs(edge.score or 0))
    return {
        **as_json(found.circuit),
        "edges": as_json(edges[:MAX_ROWS]),
        "n_edges": len(edges),
        "evaluation": as_json(dict(found.measures()) | found.numbers() | found.nulls() | found.tables()),
        "verdict": as_json(found.verdict),
        "settings": as_json(found.settings),
    }


def compare(workspace: Workspace, a: str, b: str) -> dict[str, Any]:
    """Compare two features or neurons, every number with its null.

    Names: `demo:540` (a feature), `neurons:blocks.9.mlp.hook_post:12`. In `measures`, `null` is the level that 95 % of
    the null stay below in magnitude, or the value expected by chance; `p` is the fraction of the null that reaches the
    value, and `of` says which null. `missing` says what was not measured and why. A pair found by a search is not
    random: judge its cosine by the share of latents whose nearest neighbour is at least as close. Dictionaries, layers
    and models are compared by the verbs `compare` and `geometry compare`; `artefact` returns what they stored.
    """
    from dashboard.compare.measure import compare

    return compare(workspace, a, b)


READS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        *(
            artefacts,
            kinds,
            artefact,
            search,
            features,
            feature,
            examples,
            vector,
            uses,
            sae_dashboard,
            regions,
            circuit,
            compare,
        ),
    )
}
"""Address under `/api/` -> the function that answers, `read(workspace, **parameters)`."""


def prompt(live: Live, model: str, text: str, features: str = "", chat: bool = False) -> dict[str, Any]:
    """Run a prompt: the next tokens, the loss of each token, and its features.

    `next.uniform` is the loss of a uniform guess. `features` names a features artefact; `chat` applies the model's chat
    template.
    """
    found = live.read(text, model=model, features=features or None, chat=chat)
    after = live.next_tokens(text, model=model, after=None, chat=chat)
    return {"tokens": found.tokens, "losses": found.losses, "features": found.features, "next": after}


def read_text(live: Live, model: str, features: str, index: int, text: str) -> Any:
    """Return the activation of one feature on each token, and the numbers of tokens on which others fire.

    The others are features of similar density.
    """
    return live.try_feature("text", model=model, features=features, index=index, text=text)


def steer(live: Live, model: str, features: str, index: int, text: str, strength: float = 1.0) -> Any:
    """Continue a prompt unchanged, steered by a feature, by a random direction of that norm, and by another feature.

    `strength` is in units of the feature's largest activation. `kl` is the change of the next-token distribution in
    nats: an effect counts only where it exceeds that of the random direction.
    """
    return live.try_feature("steer", model=model, features=features, index=index, text=text, strength=strength)


def ablate(live: Live, model: str, features: str, index: int) -> Any:
    """Ablate a feature on its own examples: the change of loss in nats per token, with both nulls.

    `random` has the changes by random directions of the same size, `alike` those by features of similar density.
    """
    return live.try_feature("ablate", model=model, features=features, index=index)


def direction(live: Live, model: str, features: str, index: int) -> Any:
    """Return the lists of words that the direction of a feature separates, each with its p-value by random directions.

    A list is separated if its `p` is at most `alpha`, which is 0.05 divided by the number of lists.
    """
    return live.try_feature("direction", model=model, features=features, index=index)


ACTS: dict[str, Callable[..., Any]] = {each.__name__: each for each in (prompt, read_text, steer, ablate, direction)}
"""Acts that run the model and change nothing on disk: `act(live, **parameters)`. For agents; pages have their own."""


def say(
    source: tuple[Workspace, Live],
    direction: str,
    message: str,
    strength: float = 1.0,
    system: str = "",
    n_new: int = 60,
) -> list[dict[str, Any]]:
    """Say a message to a model: unsteered, steered along a direction, and along a random one of the same length.

    `direction` is the name of an artefact that `start` made with the verb `direction`; `strength` counts in units of
    its chosen amount. `shift` is the mean size of the change of a token's log-probability, in nats: an effect counts
    only where it exceeds that of the random direction.
    """
    from interp.directions.study import DirectionGeometry
    from interp.interventions.conversation import Conversation
    from interp.interventions.recipe import Recipe

    workspace, live = source
    found = workspace.open(DirectionGeometry, direction)
    steps, of = (found.intervention(),), found.settings
    recipe = Recipe(name=direction, steps=steps, model=of.model, weight_hash=of.weight_hash)
    talk = Conversation(recipe=recipe, names=(direction,), strengths=(strength,), system=system, n_new=n_new)
    *_, last = live.chat(talk, message)
    return [
        {
            "chat": chat,
            "text": reply.text,
            "cut": reply.cut,
            "shift": sum(abs(each.shift) for each in reply.tokens) / max(1, len(reply.tokens)),
        }
        for chat, reply in last.replies.items()
    ]


CHATS: dict[str, Callable[..., Any]] = {"say": say}
"""Acts that read the workspace as well: `act((workspace, live), **parameters)`."""


def analyses(runs: RunQueue) -> list[dict[str, str]]:
    """Return the analyses that `start` can run: each a verb of the command line, and what it does in a sentence."""
    return [{"verb": form.verb, "about": form.about.splitlines()[0]} for form in runs.catalogue.forms.values()]


def analysis(runs: RunQueue, verb: str) -> dict[str, Any]:
    """Return what an analysis does, and its options: type, default, choices, and the names on offer here."""
    forms = runs.catalogue.forms
    if verb not in forms:
        raise UnknownNameError("analysis", verb, forms)
    form = forms[verb]
    return {
        "verb": verb,
        "about": form.about,
        "options": [
            asdict(field) | {"offered": runs.catalogue.suggestions(field.menu)[:MAX_ROWS]} for field in form.fields
        ],
    }


def start(runs: RunQueue, verb: str, options: dict[str, Any]) -> dict[str, Any]:
    """Start an analysis, in the queue of the workspace; `options` are those of `analysis`. Follow it with `run`."""
    return run(runs, runs.add(verb, options))


def runs(runs: RunQueue) -> list[dict[str, Any]]:
    """Return every run of the queue with its command, state, progress and the artefacts that it wrote."""
    return [{name: value for name, value in asdict(each).items() if name != "log"} for each in runs.all()][-MAX_ROWS:]


def run(runs: RunQueue, id: str) -> dict[str, Any]:
    """Return one run with its last lines of output; `artefact` reads what it `made`."""
    return asdict(runs.get(id))


def cancel(runs: RunQueue, id: str) -> dict[str, Any]:
    """Take a run out of the queue, or interrupt it as Ctrl-C would; its unfinished artefact can be resumed."""
    runs.cancel(id)
    return run(runs, id)


RUNS: dict[str, Callable[..., Any]] = {each.__name__: each for each in (analyses, analysis, start, runs, run, cancel)}
"""Tools that run analyses: `tool(queue, **parameters)`. For agents; pages have forms of their own."""


def call(source: Any, name: str, given: Mapping[str, Any], offered: Mapping[str, Callable[..., Any]] = READS) -> Any:
    """Answer one read of a workspace, or one of `ACTS` of a live model, with values as text or typed.

    Raises `UnknownNameError` and `UsageError` for names and values that it does not take.
    """
    if name not in offered:
        raise UnknownNameError("read", name, list(offered))
    takes = parameters(offered[name])
    if unknown := given.keys() - takes.keys():
        raise UnknownNameError(f"parameter of {name}", min(unknown), list(takes))
    values = {key: _typed(key, given[key], takes[key]["type"]) for key in given}
    if missing := [key for key, about in takes.items() if about["required"] and key not in values]:
        raise UsageError(f"{name} needs {', '.join(missing)}; /api/openapi.json lists the parameters of every read")
    return plain(offered[name](source, **values))


def parameters(read: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """Return name -> {"type", "required", "default"} of the parameters of a read, from its signature."""
    hints = get_type_hints(read)
    found = {}
    for name, each in list(inspect.signature(read).parameters.items())[1:]:
        kind = hints[name]
        kind = get_args(kind)[0] if isinstance(kind, UnionType) else kind
        found[name] = {
            "type": get_origin(kind) or kind,
            "required": each.default is each.empty,
            "default": each.default,
        }
    return found


_LARGEST = 2**31
_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object"}


def schema(read: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of the parameters of a read."""
    takes = parameters(read)
    properties = {
        name: {"type": _JSON_TYPES[about["type"]]} | ({} if about["required"] else {"default": about["default"]})
        for name, about in takes.items()
    }
    required = [name for name, about in takes.items() if about["required"]]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def openapi() -> dict[str, Any]:
    """Return the description of the API in the OpenAPI format."""
    paths = {}
    for name, read in READS.items():
        about = schema(read)
        query = [
            {"name": key, "in": "query", "required": key in about["required"], "schema": kind}
            for key, kind in about["properties"].items()
        ]
        text = inspect.getdoc(read) or ""
        answers = {"200": {"description": "the answer"}, "400": {"description": "a malformed query"},
                   "404": {"description": "an unknown name"}, "409": {"description": "artefacts that do not fit"},
                   "500": {"description": "a damaged artefact"}}  # fmt: skip
        paths[f"/api/{name}"] = {
            "get": {"operationId": name, "summary": text.splitlines()[0], "description": text,
                    "parameters": query, "responses": answers}
        }  # fmt: skip
    info = {"title": "interp workbench", "version": "1", "description": f"Reads only; at most {MAX_ROWS} rows each."}
    return {"openapi": "3.1.0", "info": info, "paths": paths}


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    server.add_url_rule("/api/openapi.json", "api_openapi", lambda: flask.jsonify(openapi()), methods=["GET"])
    server.add_url_rule("/api/<name>", "api_read", _answer, methods=["GET"])


def _answer(name: str) -> flask.Response:
    found = call(current().workspace, name, flask.request.args.to_dict())
    return flask.Response(finite_json(found), mimetype="application/json")


def _rows(limit: int) -> int:
    if not 1 <= limit <= MAX_ROWS:
        raise UsageError(f"limit must be 1 to {MAX_ROWS}, got {limit}")
    return limit


def _typed(name: str, value: Any, kind: Any) -> Any:
    """Return a parameter in its type, from its text or from JSON."""
    if kind is bool and str(value).lower() in ("true", "1", "false", "0"):
        return str(value).lower() in ("true", "1")
    if kind is dict and isinstance(value, dict):
        return value
    try:
        if kind in (bool, dict) or (kind is not str and isinstance(value, bool)):
            raise ValueError
        found: Any = kind(value)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{name} takes a value of type {_JSON_TYPES[kind]}, got {str(value)[:80]!r}") from None
    if kind in (int, float) and not -_LARGEST < found < _LARGEST:
        raise UsageError(f"{name} takes a finite number below {_LARGEST:,}, got {str(value)[:80]}")
    return found
