"""The read API: what the pages show, as JSON, for scripts and agents.

    GET /api/openapi.json                       every read with its parameters
    GET /api/search?query=January               the features that fire on a text, each with its null
    GET /api/feature?features=demo&index=540    one feature; likewise /api/examples, /api/vector, /api/uses ...
    POST /api/act/steer                         an act, which runs the model: its fields as JSON
    POST /api/price/ablate                      passes of the model that an act with nulls takes
    POST /api/visitor/stage, /api/visitor/cancel  the progress of a page's acts, and their end: `{"visitor": "..."}`

Each read is a function of `READS`: its name is the address, its parameters are those of the query, its docstring is the
description. Acts are those of `saes.acts`; each has its controls. The Model Context Protocol server (`workbench mcp`)
offers the same, and pages ask the same. An answer holds at most `MOST_ROWS` rows. Errors are `{"error": sentence}`;
`components.http_errors` has the statuses.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache, partial
from typing import Annotated, Any, get_type_hints

import flask
from annotated_types import Interval

from dashboard.answers import MOST_ROWS, finite_json, lists, plain
from dashboard.components.pages import own_page, page_of
from dashboard.data.heads import HeadLine, HeadQuery, HeadReport, choose, report_of
from dashboard.queue import RunQueue
from dashboard.requests import RequestFields, answered, asked_by, form_of
from dashboard.sources import Live, current
from dashboard.turns import answered_in_lines, asking
from interp.acts import Act, Compared, PriceOf, decode, is_streamed, question_schema, typed
from interp.artifacts import KINDS, as_json
from interp.artifacts.describe import as_record, schema_of_kind
from interp.circuits.found_circuit import open_circuit
from interp.circuits.heads_in_text import HeadsInText
from interp.errors import ConfigError, UnknownNameError
from interp.forms import from_json, json_schema
from interp.options import Count
from interp.workspace import Workspace
from saes.acts import catalogue
from saes.features.schema import Features, check_described, described_another

Limit = Annotated[int, Interval(ge=1, le=MOST_ROWS)]
"""Rows of an answer."""


def artefacts(workspace: Workspace, kind: str = "") -> list[dict[str, object]]:
    """Return the artefacts of the workspace, newest first, optionally of one kind: name, settings, main results."""
    if kind and kind not in KINDS:
        raise UnknownNameError("kind of artefact", kind, list(KINDS))
    fields = ("kind", "name", "created", "seed", "content_hash", "config", "summary", "parents")
    manifests = workspace.newest(*([kind] if kind else KINDS))
    return [{name: getattr(manifest, name) for name in fields} for manifest in manifests[:MOST_ROWS]]


def kinds(workspace: Workspace) -> dict[str, object]:
    """Return the contents of each kind of artefact: folder, page and verb, JSON schemas, and columns of tables."""
    return {kind: {"page": own_page(kind) or "/artefact/{key}", **schema_of_kind(kind)} for kind in KINDS}


def artefact(workspace: Workspace, key: str) -> dict[str, Any]:
    """Return one artefact by its key, `heads/smollm2-135m`: settings, results and findings, each with its null.

    Of a table it gives the first rows; `kinds` describes the fields.
    """
    record = as_record(workspace.open_key(key), MOST_ROWS)
    findings = [finding | {"href": page_of(finding["href"])} for finding in record["findings"]]
    return record | {"page": page_of(record["page"]), "findings": findings}


def search(
    workspace: Workspace, query: str, features: str = "", hook_point: str = "", limit: Limit = 20
) -> dict[str, object]:
    """Return the features that fire on a text or whose label contains it, each with its score and its null.

    `like demo:12` searches by similarity of directions. No model runs.
    """
    from dashboard.data.meaning import meaning_if_known
    from saes.features.search import search_features

    where: dict[str, Any] = {"features": features or None, "hook_point": hook_point or None}
    answer = search_features(workspace, query, limit=limit, meanings=meaning_if_known, **where)
    return {"headline": answer.headline(), **asdict(answer)}


def head(workspace: Workspace, name: str, head: str) -> HeadReport:
    """Return all about one head over a text: statistics, kinds with their nulls, words, examples with attention.

    `name` is that of `heads-in-text/NAME`, `head` one such as L5H1.
    """
    return report_of(workspace.open(HeadsInText, name), head)


def heads(workspace: Workspace, name: str, kind: str = "", text: str = "", limit: Limit = 50) -> list[HeadLine]:
    """Return the heads over a text that are of a kind, or attend to or from a word; strongest first."""
    return choose(workspace.open(HeadsInText, name), HeadQuery(kind=kind, text=text))[:limit]


def features(
    workspace: Workspace,
    features: str,
    text: str = "",
    sort: str = "feature",
    descending: bool = False,
    density_low: float = 0.0,
    density_high: float = 1.0,
    offset: Count = 0,
    limit: Limit = 50,
) -> dict[str, object]:
    """Return a slice of a list of features: number, label, density (fraction of tokens), activations."""
    from dashboard.data.features import ListQuery, listing

    query = ListQuery(text=text, density_low=density_low, density_high=density_high, sort=sort, descending=descending)
    part = listing(workspace, features, query, offset, offset + limit)
    return {"total": part.total, "offset": offset, "rows": part.rows}


def feature(workspace: Workspace, features: str, index: Count) -> dict[str, Any]:
    """Return all that is stored about one feature.

    `relations` has nulls: for effects on logits, random directions (`promoted_p`); for neurons, the nearest ones of
    random directions (`scales.neuron_null`); for companions, the counts expected by chance (`coactive_expected`).
    `outdated` says that the SAE was made again since, and all of this describes another direction; else it is empty.
    """
    from dashboard.data.features import explanations, one, relations

    record = one(workspace, features, index)
    related = relations(record.features, index)
    return record.to_json() | {
        "outdated": described_another(workspace, record.features),
        "relations": related and related.to_json(),
        "explanations": [label.to_json() for label in explanations(workspace, record.features, index)],
    }


def examples(workspace: Workspace, features: str, index: Count) -> list[dict[str, object]]:
    """Return windows of text with the feature's activation on each token, by group, strongest first."""
    from dashboard.data import features as data

    return [asdict(example) for example in data.examples(workspace.open(Features, features), index)]


def vector(workspace: Workspace, features: str, index: Count) -> dict[str, object]:
    """Return the decoder direction of one feature of an SAE, in the units of the model's activations."""
    from dashboard.data.features import one
    from saes.weights.folder import load_direction

    artefact = one(workspace, features, index).features
    dictionary = artefact.dictionary
    if not artefact.sae:
        raise ConfigError(
            f"{dictionary} is a part of the model, so no vector is stored for it; name features of an SAE"
        )
    check_described(workspace, artefact)
    sae, direction = load_direction(workspace.path("sae", artefact.sae), index)
    return {"dictionary": dictionary, "feature": index, "hook_point": sae.hook_point, "direction": lists(direction)}


def uses(workspace: Workspace, features: str, index: Count) -> dict[str, object]:
    """Return the maps, direction reports and graphs that contain one feature, and its stored proofs.

    `outdated` of a proof says why it no longer applies to the features as they are now; else it is empty.
    """
    from dashboard.data import features as data
    from saes.features.proof import Proof, why_outdated

    references = data.uses(workspace, workspace.open(Features, features), index)
    proofs = [
        {"name": proof.name, "outdated": why_outdated(workspace, proof), "verdict": proof.verdict(),
         "holds": proof.holds(), "p": proof.p_holm()}
        for proof in workspace.values(Proof)
        if (proof.settings.features, proof.settings.feature) == (features, index)
    ]  # fmt: skip
    return {**references._asdict(), "proofs": proofs}


def sae_dashboard(workspace: Workspace, features: str, index: Count) -> dict[str, object]:
    """Return one feature in the JSON of SAEDashboard, which Neuronpedia imports."""
    from dashboard.data.features import dashboard_batch

    return dashboard_batch(workspace, features, index)


def regions(workspace: Workspace, atlas: str, limit: Limit = 50) -> list[dict[str, object]]:
    """Return the regions of a map, largest first: label, number of points, bounds."""
    from dashboard.maps.data import largest_regions

    return largest_regions(workspace, atlas, limit)


def circuit(workspace: Workspace, name: str) -> dict[str, object]:
    """Return a circuit: its nodes, its strongest edges, and the evidence for each, with the nulls and the verdict."""
    artefact = open_circuit(workspace, name)
    edges = sorted(artefact.circuit.edges, key=lambda edge: -abs(edge.score or 0))
    return {
        **as_json(artefact.circuit),
        "edges": as_json(edges[:MOST_ROWS]),
        "n_edges": len(edges),
        "evaluation": as_json(dict(artefact.measures()) | artefact.numbers() | artefact.nulls() | artefact.tables()),
        "verdict": as_json(artefact.verdict),
        "settings": as_json(artefact.settings),
    }


def compare(workspace: Workspace, a: str, b: str) -> dict[str, object]:
    """Compare two features, such as `demo:540` and `demo:12`, every number with its null.

    In `measures`, `null` is the level that 95 % of
    the null stay below in magnitude, or the value expected by chance; `p` is the fraction of the null that reaches the
    value, and `of` says which null. `missing` says what was not measured and why. A pair found by a search is not
    random: judge its cosine by the share of latents whose nearest neighbour is at least as close. Dictionaries, layers
    and models are compared by the verbs `compare` and `geometry compare`; `artefact` returns what they stored.
    """
    from dashboard.compare.measure import compare

    return compare(workspace, a, b)


READS: dict[str, Callable[..., Any]] = {
    read.__name__: read
    for read in (
        *(
            artefacts,
            kinds,
            artefact,
            search,
            features,
            feature,
            examples,
            heads,
            head,
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


def analyses(runs: RunQueue) -> list[dict[str, str]]:
    """Return the analyses that `start` can run: each a verb of the command line, and what it does in a sentence."""
    return [{"verb": form.verb, "about": form.about.splitlines()[0]} for form in runs.catalogue.forms.values()]


def analysis(runs: RunQueue, verb: str) -> dict[str, object]:
    """Return what an analysis does, and its options: type, default, choices, and the names on offer here."""
    forms = runs.catalogue.forms
    if verb not in forms:
        raise UnknownNameError("analysis", verb, forms)
    form = forms[verb]
    return {
        "verb": verb,
        "about": form.about,
        "options": [
            asdict(field) | {"offered": runs.catalogue.suggestions(field.menu)[:MOST_ROWS]} for field in form.fields
        ],
    }


def start(runs: RunQueue, verb: str, options: dict[str, object]) -> dict[str, object]:
    """Start an analysis, in the queue of the workspace; `options` are those of `analysis`. Follow it with `run`."""
    return run(runs, runs.add(verb, options))


def runs(runs: RunQueue) -> list[dict[str, object]]:
    """Return every run of the queue with its command, state, progress and the artefacts that it wrote."""
    return [{name: value for name, value in asdict(run).items() if name != "log"} for run in runs.all()][-MOST_ROWS:]


def run(runs: RunQueue, id: str) -> dict[str, object]:
    """Return one run with its last lines of output; `artefact` reads what it `made`."""
    return asdict(runs.get(id))


def cancel(runs: RunQueue, id: str) -> dict[str, object]:
    """Take a run out of the queue, or interrupt it as Ctrl-C would; its unfinished artefact can be resumed."""
    runs.cancel(id)
    return run(runs, id)


RUNS: dict[str, Callable[..., Any]] = {tool.__name__: tool for tool in (analyses, analysis, start, runs, run, cancel)}
"""Tools that run analyses: `tool(queue, **parameters)`. For agents; pages have forms of their own."""


def call(
    source: Any, name: str, values: Mapping[str, object], offered: Mapping[str, Callable[..., Any]] = READS
) -> Any:
    """Answer one read of a workspace, or one tool of `RUNS`, from JSON.

    Raises `UnknownNameError` and `ConfigError` for names and values that it does not take.
    """
    if name not in offered:
        raise UnknownNameError("read", name, list(offered))
    form = question(offered[name])
    query: Any = from_json(form, dict(values), name, "asked")
    return plain(offered[name](source, **{field.name: getattr(query, field.name) for field in fields(form)}))


def ask(live: Live, name: str, values: Mapping[str, object]) -> Any:
    """Answer an act from JSON; one that answers in steps, with all of them. Raises as `call` does."""
    act = decode(act_called(name), values)
    return plain([*live.steps(act)] if is_streamed(act) else live.ask(act))


def act_called(name: str) -> type[Act[Any, Any]]:
    """Return the class of an act. Raises `UnknownNameError`."""
    known = catalogue()
    if name not in known:
        raise UnknownNameError("act", name, known)
    return known[name]


@cache
def question(read: Callable[..., Any]) -> Any:
    """Return the parameters of a read as a form: a dataclass whose fields are those after the first parameter."""
    _, *parameters = inspect.signature(read).parameters.values()
    return form_of(read, parameters)


def schema(read: Callable[..., Any]) -> dict[str, Any]:
    """Return the JSON schema of the parameters of a read."""
    return question_schema(question(read))


def openapi() -> dict[str, object]:
    """Return the description of the API in the OpenAPI format."""
    answers = {"200": {"description": "the answer"}, "400": {"description": "a malformed question"},
               "404": {"description": "an unknown name"}, "409": {"description": "artefacts that do not fit"},
               "500": {"description": "a damaged artefact"}}  # fmt: skip
    paths: dict[str, Any] = {}
    forms: dict[str, Any] = {}
    for name, read in READS.items():
        form, text = schema(read), inspect.getdoc(read) or ""
        query = [
            {"name": key, "in": "query", "required": key in form.get("required", []), "schema": kind}
            for key, kind in form["properties"].items()
        ]
        operation: dict[str, Any] = {"operationId": name, "summary": text.splitlines()[0], "description": text}
        operation["responses"] = answers
        if is_dataclass(answer := get_type_hints(read)["return"]):
            described = json_schema(answer)
            forms |= described.pop("$defs", {})
            content = {"content": {"application/json": {"schema": described}}}
            operation["responses"] = answers | {"200": answers["200"] | content}
        paths[f"/api/{name}"] = {"get": operation | {"parameters": query}}
    for name, act in catalogue().items():
        text = act.about()
        operation = {"operationId": name, "summary": text.splitlines()[0], "description": text, "responses": answers}
        form = act.schema()
        forms |= form.pop("$defs", {})
        form["properties"] = form["properties"] | {"visitor": {"type": "string", "description": "The page that asks."}}
        body = {"content": {"application/json": {"schema": form}}, "required": True}
        paths[f"/api/act/{name}"] = {"post": operation | {"requestBody": body}}
        if issubclass(act, Compared):
            priced = {"operationId": f"price_{name}", "summary": f"The passes of the model that `{name}` takes."}
            paths[f"/api/price/{name}"] = {"post": operation | priced | {"requestBody": body}}
    info = {
        "title": "interp workbench",
        "version": "1",
        "description": f"Nothing is changed on disk; at most {MOST_ROWS} rows each.",
    }
    document = {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": forms}}
    return json.loads(json.dumps(document).replace("#/$defs/", "#/components/schemas/"))


def register(server: flask.Flask) -> None:
    """Add the routes to the server."""
    server.add_url_rule("/api/openapi.json", "api_openapi", lambda: flask.jsonify(openapi()), methods=["GET"])
    server.add_url_rule("/api/<name>", "api_read", _answer, methods=["GET"])
    server.add_url_rule("/api/act/<name>", "api_act", _answer_act, methods=["POST"])
    server.add_url_rule("/api/price/<name>", "api_price", _price, methods=["POST"])
    for what, answer in (("stage", _stage), ("cancel", _cancel)):
        server.add_url_rule(f"/api/visitor/{what}", f"api_{what}", partial(answered, answer), methods=["POST"])


def _answer(name: str) -> flask.Response:
    texts = flask.request.args.to_dict()
    values = typed(question(READS[name]), texts) if name in READS else texts
    return flask.Response(finite_json(call(current().workspace, name, values)), mimetype="application/json")


def _answer_act(name: str) -> flask.Response:
    """Answer an act from the JSON of its fields; `visitor` names the page, whose newer requests replace it."""
    visitor, values = asked_by()
    act = decode(act_called(name), values)
    live = current().live
    if is_streamed(act):
        return answered_in_lines(live.steps(act), visitor)
    with asking(visitor):
        return flask.Response(finite_json(plain(live.ask(act))), mimetype="application/json")


def _price(name: str) -> flask.Response:
    """Return what the answer to an act takes, from the same JSON."""
    visitor, values = asked_by()
    with asking(visitor):
        price = current().live.ask(PriceOf(act=decode(act_called(name), values)))
    return flask.Response(finite_json(plain(price)), mimetype="application/json")


def _stage(request: RequestFields) -> flask.Response:
    """Return the progress of a page's requests."""
    return flask.jsonify({"stage": current().live.stage(request.visitor)})


def _cancel(request: RequestFields) -> flask.Response:
    """Drop a page's requests."""
    current().live.cancel(request.visitor)
    return flask.jsonify({})
