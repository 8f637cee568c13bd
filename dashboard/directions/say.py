"""*Say it with the model*: chats side by side, steered along directions and not, and stored conversations.

The browser draws them (assets/say/) and keeps the conversation, which has the form of its file
(`interp.interventions.conversation`):

    GET  /api/chat/direction?name=praise   a direction as an intervention, with the weights it was made for
    GET  /api/chat/kept[?name=]            names of the conversations of the workspace; one of them
    POST /api/chat/say                     `conversation`, `message`, `visitor`: a line of JSON per token
    POST /api/chat/check                   `conversation`: refused for other weights; whether the model has a template
    POST /api/chat/keep                    `name`, `conversation`
"""

import secrets
from typing import Any

import flask
from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from dashboard.components.frame import panel
from dashboard.components.http_errors import json_body
from dashboard.components.pages import current
from dashboard.data.workspace import notes
from dashboard.turns import answered_in_lines, asking
from interp.artifacts import as_json
from interp.directions.study import DirectionGeometry
from interp.errors import ConfigError, UnknownNameError
from interp.interventions.conversation import Conversation
from interp.interventions.intervention import Direction, Intervention
from interp.notes import read_conversation

FURTHEST, FURTHEST_LENGTH = 3.0, 100.0
"""Upper end of the slider, in units of the chosen amount; without one, of the length of the direction."""


def chat_panel(found: DirectionGeometry, kept: str = "") -> html.Section:
    """Return the panel that assets/say/say.mjs fills, begun with a direction or a conversation that was kept."""
    others = [
        each.name for each in current().workspace.values(DirectionGeometry)
        if each.settings.weight_hash == found.settings.weight_hash
    ]  # fmt: skip
    given = {"direction": found.name, "directions": others, "kept": kept, "visitor": secrets.token_hex(8)}
    return panel(
        "Say it with the model",
        dcc.Store(id="say-state", data=given),
        html.Div(id="say-drawn", hidden=True),
        html.Div(id="say"),
        note="the same messages, steered and not; each chat keeps its own replies",
        more="Every token of a steered chat is coloured by its shift: its log-probability in the steered model, less "
        "that in the unsteered model after the same text. The null is a third chat, steered along random directions "
        "of the same length at the same hook points. Enter sends a message, Shift Enter begins a line, Escape stops.",
    )


def register(app: Dash) -> None:
    """Add the routes, and let the script draw the panel."""
    server = app.server
    for what, method, answer in (
        ("direction", "GET", _direction), ("kept", "GET", _kept), ("say", "POST", _say), ("check", "POST", _check),
        ("keep", "POST", _keep),
    ):  # fmt: skip
        server.add_url_rule(f"/api/chat/{what}", f"chat_{what}", answer, methods=[method])
    app.clientside_callback(
        ClientsideFunction("say", "begin"), Output("say-drawn", "children"), Input("say-state", "data")
    )


def _direction() -> flask.Response:
    found = current().workspace.open(DirectionGeometry, flask.request.args.get("name", ""))
    of, chosen = found.settings, found.amount is not None or found.settings.action == "ablate"
    if chosen:
        step = found.intervention()
    else:
        target = Direction(hook_point=of.direction.hook_point, vector=found.vector, origin=of.direction.source)
        step = Intervention(target=target, action=of.action, amount=1.0)
    return flask.jsonify(
        {"name": found.name, "step": as_json(step), "model": of.model, "weight_hash": of.weight_hash,
         "chosen": chosen, "furthest": FURTHEST if chosen else FURTHEST_LENGTH}
    )  # fmt: skip


def _kept() -> flask.Response:
    known, name = notes().conversations(), flask.request.args.get("name", "")
    if not name:
        return flask.jsonify({"names": [*known]})
    if name not in known:
        raise UnknownNameError("conversation", name, known)
    return flask.jsonify(as_json(known[name]))


def _keep() -> flask.Response:
    given = json_body()
    notes().save_conversation(given.get("name", ""), _conversation(given))
    return flask.jsonify({"kept": given["name"]})


def _check() -> flask.Response:
    talk = _conversation(json_body())
    return flask.jsonify({"conversation": as_json(talk), **current().live.check_chat(talk)})


def _say() -> flask.Response:
    given = json_body()
    message, visitor = given.get("message", ""), given.get("visitor", "")
    if not isinstance(message, str) or not isinstance(visitor, str):
        raise ConfigError("`message` and `visitor` are texts")
    with asking(visitor[:64]):
        return answered_in_lines(current().live.chat(_conversation(given), message), visitor[:64])


def _conversation(given: dict[str, Any]) -> Conversation:
    return read_conversation(given.get("conversation"), "the conversation")
