"""*Directions*: one direction of a model, its steering and its meaning, every number with its null.

*Say it with the model*: one conversation, unsteered, steered along the direction, and along a random one (act `Say`).
The browser draws it (assets/say/) and keeps it while the page is open.
"""

import secrets
from functools import partial

from dash import ClientsideFunction, Dash, Input, Output, dcc, html

from dashboard.components.evidence import as_table, number, percent, records_table
from dashboard.components.forms import fields_data
from dashboard.components.frame import Part, attempt, graph, page, panel, quiet_link, still, verdict
from dashboard.components.measures import eigenvalues, evidence, missing_panel, signed
from dashboard.components.pages import (
    Page,
    artefact_menu,
    feature_href,
    menu_choices,
    page_of,
    register_parts,
    run_button,
    runs_href,
    whole_number,
)
from dashboard.data import features
from dashboard.figures.geometry import (
    along_figure,
    effect_and_damage,
    in_planes_figure,
    layers_and_strengths,
    probe_over_layers,
    spectrum_figure,
)
from dashboard.figures.theme import Theme, theme, visible
from dashboard.sources import PageSources, current, open_artefact
from interp.directions.choice import JudgedCell, SteeringChoice
from interp.directions.files import transformers_code
from interp.directions.monitor import Monitor
from interp.directions.study import DirectionGeometry, TokenReading
from interp.errors import UsageError, WorkbenchError
from interp.geometry.probes import DirectionAccuracy, Erasure
from interp.geometry.separation import ListAlong
from interp.interventions.recipe import Recipe
from interp.models.packaged import PACKAGED
from interp.nulls import WITHIN, null_range
from interp.workspace import Workspace
from saes.acts.writing import Say
from saes.features.schema import FeatureRow, Features
from saes.training.stored import StoredSAE

KIND = "direction"


def layout(context: PageSources, name: str | None = None, feature: str = "", **_: object) -> html.Div:
    """`/directions/<name>`; without a name the newest direction.

    With a `feature`, `demo:12`, the chats are steered along what it writes.
    """
    workspace = context.workspace
    if feature:
        return _of_feature(workspace, feature)
    report = workspace.open(DirectionGeometry, open_artefact(workspace, (KIND,), name).name)
    choices = menu_choices(workspace, (KIND,))
    return page(
        "Directions",
        dcc.Store(id="directions-state", data=report.name),
        attempt(partial(verdict_panel, report)),
        attempt(partial(chat_panel, report.name, report.settings.weight_hash)),
        html.P(
            quiet_link("Make another direction", runs_href("direction", model=report.settings.model)),
            className="wb-row",
        ),
        html.Div(id="directions-parts"),
        controls=artefact_menu("Direction", choices, page_of(report.href), width=260, key=report.key),
    )


def _of_feature(workspace: Workspace, feature: str) -> html.Div:
    """Return the chats along a feature, and the button that chooses and judges a strength for it."""
    sae, described, row = _feature(workspace, feature)
    label = visible(row.label or "no label", 100)
    options = {"model": described.settings.model, "feature": f"{sae.name}:{row.feature}"}
    judge = run_button("direction", options, id="judge-feature", text="Choose and judge a strength", opens=True)
    return page(
        "Directions",
        chat_panel(feature, str(getattr(sae.settings, "weight_hash", ""))),
        panel("Make it a direction", judge, note="tries layers and strengths against random directions"),
        lead=[
            "Along what ", quiet_link(f"{feature}, {label}", feature_href(described.name, row.feature)),
            " writes. Strength 1 is its largest activation.",
        ],
    )  # fmt: skip


def _feature(workspace: Workspace, feature: str) -> tuple[StoredSAE, Features, FeatureRow]:
    """Return the dictionary and the row of a feature `NAME:NUMBER`. Raises `UsageError` for a neuron."""
    name, _, number = feature.rpartition(":")
    described, row = features.one(workspace, name, whole_number(number, -1) or 0)
    if described.neurons:
        raise UsageError(f"{name} describes neurons; a chat is steered along features of an SAE")
    return workspace.open(StoredSAE, described.dictionary.removeprefix("sae:")), described, row


def register(app: Dash) -> None:
    """Add the callback that draws the figures, and let the script draw the chats."""
    register_parts(app, "directions", show_direction)
    app.clientside_callback(
        ClientsideFunction("say", "begin"), Output("say-drawn", "children"), Input("say-state", "data")
    )


def show_direction(name: str, scheme: str | None) -> list[Part]:
    """Return the panels of a direction, two in a row."""
    report, colours = current().workspace.open(DirectionGeometry, name), theme(scheme)
    rows = [
        (partial(curve_panel, report, colours), partial(samples_panel, report)),
        (partial(grid_panel, report, colours), partial(methods_panel, report)),
        (partial(meaning_panel, report), partial(along_panel, report, colours)),
        (partial(side_panel, report, colours), partial(planes_panel, report, colours)),
        (partial(variance_panel, report, colours), partial(apply_panel, report)),
    ]
    drawn = [[part for draw in row if (part := attempt(draw)) is not None] for row in rows]
    return [
        still(html.Div(parts, className="wb-two wb-even" if len(parts) > 1 else "wb-two wb-one"))
        for parts in drawn
        if parts
    ]


def verdict_panel(report: DirectionGeometry) -> html.Section:
    """Return the verdict on the steering, and every number behind it."""
    origin, choice = report.settings.direction, report.choice
    rows = [("made from", visible(origin.source, 300)), ("hook point", visible(origin.hook_point, 60))]
    if not isinstance(choice, str):
        rows += _choice_rows(choice)
    return panel(
        html.Span(visible(origin.name, 80), dir="auto"),
        verdict(f"{report.headline()}.", evidence([*rows, ("classifies examples", accuracy_words(report.accuracy))])),
        className="wb-findings",
    )


def _choice_rows(choice: SteeringChoice) -> list[tuple[str, str]]:
    rows = [("question", visible(choice.question, 200)), ("rule", choice.rule)]
    if choice.chosen is None or choice.judged is None:
        return rows
    judged = choice.judged
    effect, damage = judged.effect, judged.damage
    placebo = ""
    if len(judged.placebo_effect):
        most = number(judged.placebo_effect.max(), signed=True)
        placebo = f"; {len(judged.placebo_effect)} features at most {most}"
    return [
        *rows,
        (
            "chosen",
            f"{choice.action} at {choice.hook_point}, strength {choice.strength:g} ({number(choice.amount)} long)",
        ),
        (
            "effect, held out",
            f"{number(effect.estimate, signed=True)} [{number(effect.low, signed=True)}, "
            f"{number(effect.high, signed=True)}] {choice.measured_in}, p {number(judged.p)}",
        ),
        (
            "random directions",
            f"{number(judged.random_effect.mean(), signed=True)}, at most "
            f"{number(judged.random_effect.max(), signed=True)} of {len(judged.random_effect)}" + placebo,
        ),
        (
            "damage, held out",
            f"{number(damage.estimate, signed=True)} nats a token on neutral text (random directions "
            f"{number(judged.random_damage.mean(), signed=True)})",
        ),
        ("moved the wrong way", f"{percent(judged.wrong)} of {judged.n_questions} questions"),
        ("repeats itself", _three(judged, "repetition", percent)),
        ("fluency cost", _three(judged, "surprise", number) + " (nats a token in the unsteered model)"),
    ]


def _three(judged: JudgedCell, name: str, write: object) -> str:
    assert callable(write)
    plain, steered, random = (write(getattr(text, name)) for text in (judged.plain, judged.steered, judged.random))
    return f"{steered} steered, {plain} unsteered, {random} at random"


def curve_panel(report: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the effect against the damage, or the reason why it was not measured."""
    title, choice = "Effect against damage", report.choice
    if isinstance(choice, str):
        return missing_panel(title, choice)
    label = f"Effect of steering along {report.settings.direction.name} against the loss on neutral text"
    return panel(
        title,
        graph("direction-steering", figure=effect_and_damage(choice, colours), label=label, height=400),
        as_table(choice.to_records()),
        note=f"a line per layer, a point per strength, on {choice.n_questions} questions; diamond: the chosen point, "
        "held out",
        more="Dotted line: the largest damage that may be chosen. Diamond: the chosen point on the questions that did "
        "not choose it, with its 95 % interval. Null: random directions of the same length.",
    )


def grid_panel(report: DirectionGeometry, colours: Theme) -> html.Section | None:
    """Return every layer and strength; nothing where none was tried."""
    if isinstance(report.choice, str):
        return None
    height = 120 + 34 * len(report.choice.hook_points)
    figure = layers_and_strengths(report.choice, colours, height=height)
    return panel(
        "Layers and strengths",
        graph("direction-grid", figure=figure, label="Effect by layer and strength", height=height),
        note="effect on the choosing half; grey cells cost too much or stay " + WITHIN,
    )


def methods_panel(report: DirectionGeometry) -> html.Section | None:
    """Return the methods side by side; nothing for a direction that was given."""
    if not report.variants:
        return None
    rows = [
        {"method": name, "held out": variant.accuracy.accuracy, "shuffled labels": variant.accuracy.shuffled,
         "at most": variant.accuracy.shuffled_high, "untrained model": variant.untrained, "cosine": variant.cosine}
        for name, variant in report.variants.items()
    ]  # fmt: skip
    return panel(
        "Methods",
        records_table(rows),
        note="share of held-out examples on the right side (0.5 is chance); cosine with the difference in means",
        more="Nulls: shuffled labels, and the untrained model.",
    )


def samples_panel(report: DirectionGeometry) -> html.Section | None:
    """Return continuations with and without steering."""
    choice = report.choice
    if isinstance(choice, str) or choice.judged is None or not choice.judged.samples:
        return None
    columns = ("prompt", "unsteered", "steered", "random direction")
    rows = [html.Tr([html.Th(column, scope="col") for column in columns])]
    for sample in choice.judged.samples:
        texts = (sample.prompt, sample.plain, sample.steered, sample.random)
        rows.append(html.Tr([html.Td(visible(text, 300), dir="auto") for text in texts]))
    return panel("What it writes", html.Div(html.Table(rows, className="wb-samples"), className="wb-scroll"))


def apply_panel(report: DirectionGeometry) -> html.Section:
    """Return the commands that steer with it and write it to files, and lines of plain transformers."""
    name, of = report.name, report.settings
    command = f'workbench steer directions/{name} --prompt "..."'
    lines = [command, f"{command} --write {name}.safetensors", f"{command} --write {name}.gguf"]
    try:
        recipe = Recipe(name=name, steps=(report.intervention(),), model=of.model, weight_hash=of.weight_hash)
        hub = PACKAGED[of.model].hub if of.model in PACKAGED else of.model
        code = transformers_code(recipe, f"{name}.safetensors", hub)
    except WorkbenchError as error:
        return panel("Use it elsewhere", html.P(str(error)))
    return panel(
        "Use it elsewhere",
        html.Pre("\n".join(lines), className="wb-code", tabIndex=0),
        html.P("The same with plain transformers and the file:"),
        html.Pre(code, className="wb-code", tabIndex=0),
        more="A file is refused for other weights. A GGUF control vector can only add, and llama.cpp also adds at the "
        "first token, which the workbench leaves unchanged.",
    )


ASKED = ("strength", "n_new", "temperature", "seed", "system")
"""Fields of the act that are asked for."""


def chat_panel(direction: str, weight_hash: str) -> html.Section:
    """Return the panel that assets/say/say.mjs fills: chats along a direction, or a feature `demo:12`."""
    monitors = [
        monitor.name for monitor in current().workspace.values(Monitor) if monitor.settings.weight_hash == weight_hash
    ]
    return panel(
        "Say it with the model",
        dcc.Store(id="say-state", data={"direction": direction, "monitors": monitors, "visitor": secrets.token_hex(8)}),
        html.Div(id="say-drawn", hidden=True),
        html.Div(id="say", **fields_data(say=(Say, ASKED))),
        note="the same messages, steered and not; each chat keeps its own replies",
        more="The colour of a token says how much more likely steering made it: its log-probability with "
        "steering, less that without, after the same text. Null: a third chat, steered along a random direction of the "
        "same length. A monitor (`workbench monitor`) colours instead tokens above its threshold, in every chat. Enter "
        "sends a message, Shift Enter begins a line, Escape stops.",
    )


def meaning_panel(report: DirectionGeometry) -> html.Section:
    """Return the tokens that a direction raises, the lists that it separates, and the effect of erasing it."""
    along, reading = report.along, report.reading
    apart = ", ".join(along.set_apart)
    rows = [
        ("after erasure", _erased(report.erased)),
        ("tokens raised", visible(reading, 200) if isinstance(reading, str) else _tokens(reading.raised)),
        ("tokens lowered", visible(reading, 200) if isinstance(reading, str) else _tokens(reading.lowered)),
        ("largest logit", _largest(reading)),
        *((visible(word_list.name, 30), _list(word_list)) for word_list in along.lists),
    ]
    return panel(
        "What it means",
        verdict(
            f"It separates {apart} from the other lists, further than random directions."
            if apart
            else "It separates no list of words further than random directions do.",
            html.P(
                f"Separated: p at most {number(along.alpha)} (smallest possible {number(along.smallest_p)}); p: share "
                "of random directions that separate the list at least as far."
            ),
            evidence(rows[3:]),
        ),
        evidence(rows[:3]),
    )


def along_panel(report: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the words of every list along the direction."""
    figure = along_figure(report.along, colours)
    label = f"Words of every list along the direction {report.settings.direction.name}"
    rows = [{"list": word_list.name, **row} for word_list in report.along.lists for row in word_list.to_records()]
    return panel(
        "Words along it",
        graph("direction-along", figure=figure, label=label, height=int(figure.layout.height)),
        as_table(rows),
        note="projection of each word's activation, mean over sentences; whiskers: 95 % over sentences",
    )


def variance_panel(report: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the variance along the direction next to the spectrum of all words."""
    along = report.along
    figure = spectrum_figure(along.spectrum, colours, height=320)
    return panel(
        "Variance along it",
        graph("direction-spectrum", figure=figure, label="Spectrum of all words against isotropic points", height=320),
        as_table(eigenvalues(along.spectrum)),
        note=f"{percent(along.share)} of the variance of all words; along a random direction "
        f"{percent(along.random_share)}, in 99 of 100 at most {percent(along.random_share_high)}; bars: principal "
        "components",
    )


def planes_panel(report: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the share of the direction in the plane of each list."""
    table = [
        {"list": word_list.name, "in its plane": word_list.plane_share, "random, mean": word_list.random_plane_share,
         "random, 99 of 100": word_list.random_plane_high} for word_list in report.along.lists
    ]  # fmt: skip
    label = f"Share of the direction {report.settings.direction.name} in the plane of each list"
    figure = in_planes_figure(report.along.lists, colours, height=320)
    return panel(
        "Overlap with the planes of lists",
        graph("direction-planes", figure=figure, label=label, height=320),
        as_table(table),
        note="fraction of the direction in the plane of each list; coloured: above 99 of 100 random directions",
        more="0: none, 1: all of it. A direction can be part of a circle or line.",
    )


def side_panel(report: DirectionGeometry, colours: Theme) -> html.Section:
    """Return a probe over layers for the side on which a word lies, or why it is missing."""
    title = "Linear probe for the side of a word"
    if isinstance(report.probes, str):
        return missing_panel(title, report.probes)
    columns = ("accuracy", "low", "high", "base_rate", "control", "selectivity", "random")
    rows = [(layer.probe.hook_point, layer.to_records()[0]) for layer in report.probes]
    label = f"Accuracy of a probe for the side of {report.settings.direction.name} over layers, with its nulls"
    figure = probe_over_layers(report.probes, report.settings.direction.hook_point, colours, height=380)
    return panel(
        title,
        graph("direction-probe", figure=figure, label=label, height=380),
        as_table([{"at": at, **{column: row[column] for column in columns}} for at, row in rows]),
        note="accuracy on held-out words; nulls: random directions, and random control labels",
        more="The probe predicts on which side of the median a word lies along the direction. Words of one list lie "
        "together along any direction, so random directions are a null.",
    )


def accuracy_words(score: DirectionAccuracy | None) -> str:
    """Return the held-out accuracy of a direction with its null; empty for a direction that was given."""
    if score is None:
        return ""
    null = null_range("shuffled labels", percent(score.shuffled), percent(score.shuffled_high))
    return f"{percent(score.accuracy)} of {score.n_heldout} held-out examples; {null}"


def _erased(erasure: Erasure | str) -> str:
    if isinstance(erasure, str):
        return ""
    return (
        f"a linear probe falls from {percent(erasure.before_heldout)} to {percent(erasure.after_heldout)} of held-out "
        f"words (base rate {percent(erasure.base_rate_heldout)}; random directions erased {percent(erasure.random)}); "
        f"the activations change by {percent(erasure.change)}"
    )


def _tokens(tokens: tuple[str, ...]) -> str:
    return " · ".join(visible(token, 24) for token in tokens[:8])


def _largest(reading: TokenReading | str) -> str:
    if isinstance(reading, str):
        return ""
    through = f", through the Jacobian lens {reading.lens.partition('/')[2]}" if reading.lens else ", by direct effect"
    null = null_range("random directions", number(reading.random), number(reading.random_high))
    return f"{number(reading.raised_logits[0])} above the mean logit; {null}{through}"


def _list(word_list: ListAlong) -> str:
    if not any(word_list.counted):
        return ""  # the direction was made from it
    if word_list.separation is None or word_list.p is None or word_list.auc is None:
        return "too few words besides those that the direction was made from"
    return (
        f"{signed(word_list.separation)} standard deviations from the others, p {number(word_list.p)}; a word of it "
        f"lies above one of the others with probability {percent(word_list.auc)}"
    )


PAGE = Page(
    title="Directions",
    path="/directions",
    group="models",
    templates=("/directions/<name>",),
    order=82,
    about="Steer the model, and chat with it steered",
    layout=layout,
    register=register,
    shows="Directions that steer a model: made from pairs of texts, two lists of words, a trait or a feature, at a "
    "layer and strength that were chosen on one half of the examples and judged on the other.",
    command="workbench direction MODEL --towards WORDS --away WORDS",
    fill=lambda workspace, model: ("direction", {"model": model}),
)
