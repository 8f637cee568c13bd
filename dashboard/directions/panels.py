"""Panels of a direction's making and steering: verdict, curve, grid, methods, samples, and its use elsewhere."""

from dash import html

from dashboard.components.evidence import as_table, number, percent, records_table
from dashboard.components.frame import graph, panel
from dashboard.components.measures import evidence, missing_panel
from dashboard.directions.meaning import accuracy_words
from dashboard.figures.directions import effect_and_damage, layers_and_strengths
from dashboard.figures.theme import Theme, visible
from interp.directions.choice import NOT_JUDGED, Judged, Judgement, SteeringChoice
from interp.directions.study import DirectionGeometry
from interp.errors import WorkbenchError

_WORKS = {
    True: "Steering along it works, more than along any random direction.",
    False: "Steering along it does no more than along random directions.",
    None: "Steering along it was not measured.",
}


def verdict_panel(found: DirectionGeometry) -> html.Section:
    """Return the verdict on the steering, and every number behind it."""
    origin, choice = found.settings.direction, found.choice
    rows = [("made from", visible(origin.source, 300)), ("hook point", visible(origin.hook_point, 60))]
    if not isinstance(choice, str):
        rows += _choice_rows(choice)
    return panel(
        html.Span(visible(origin.name, 80), dir="auto"),
        html.P(_verdict(found), className="wb-verdict"),
        evidence([*rows, ("classifies examples", accuracy_words(found.accuracy))]),
        className="wb-findings",
    )


def _verdict(found: DirectionGeometry) -> str:
    if isinstance(found.choice, SteeringChoice) and found.choice.chosen is None:
        return "No layer and strength exceeds random directions at an acceptable cost, so none was chosen."
    return _WORKS[found.moves_output]


def _choice_rows(choice: SteeringChoice) -> list[tuple[str, str]]:
    rows = [("question", visible(choice.asked, 200)), ("rule", choice.rule)]
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
        ("surprises the unsteered model", _three(judged, "surprise", number) + " nats a token"),
        *_judgement_rows(judged.judgement),
    ]


def _judgement_rows(found: Judgement | str) -> list[tuple[str, str]]:
    """Return the verdict of a judge; nothing if none was asked."""
    if isinstance(found, str):
        return [] if found == NOT_JUDGED else [("judge", visible(found, 300))]
    change = f"{number(found.change.low, signed=True)}, {number(found.change.high, signed=True)}"
    return [
        (
            f"yes to {visible(found.question, 120)!r}",
            f"{percent(found.steered)} of {found.n_samples} samples, {percent(found.plain)} unsteered (change "
            f"{number(found.change.estimate, signed=True)} [{change}]); {len(found.random)} random directions "
            f"{percent(found.random.mean())}, at most {percent(found.random.max())}, says {visible(found.by, 60)}",
        )
    ]


def _three(judged: Judged, name: str, write: object) -> str:
    assert callable(write)
    plain, steered, random = (write(getattr(each, name)) for each in (judged.plain, judged.steered, judged.random))
    return f"{steered} steered, {plain} unsteered, {random} at random"


def curve_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the effect against the damage, or the reason why it was not measured."""
    title, choice = "Effect against damage", found.choice
    if isinstance(choice, str):
        return missing_panel(title, choice)
    label = f"Effect of steering along {found.settings.direction.name} against the loss on neutral text"
    return panel(
        title,
        graph("direction-steering", figure=effect_and_damage(choice, colours), label=label, height=400),
        as_table(choice.to_records()),
        note=f"a line per layer, a point per strength, on {choice.n_questions} questions; diamond: the chosen point, "
        "held out",
        more="Dotted line: the largest damage that may be chosen. Diamond: the chosen point on the questions that did "
        "not choose it, with its 95 % interval. Null: random directions of the same length.",
    )


def grid_panel(found: DirectionGeometry, colours: Theme) -> html.Section | None:
    """Return every layer and strength; nothing where none was tried."""
    if isinstance(found.choice, str):
        return None
    height = 120 + 34 * len(found.choice.hook_points)
    figure = layers_and_strengths(found.choice, colours, height=height)
    return panel(
        "Layers and strengths",
        graph("direction-grid", figure=figure, label="Effect by layer and strength", height=height),
        note="effect on the choosing half; grey cells cost too much or stay within the null",
    )


def methods_panel(found: DirectionGeometry) -> html.Section | None:
    """Return the methods side by side; nothing for a direction that was given."""
    if not found.variants:
        return None
    rows = [
        {"method": name, "held out": each.accuracy.accuracy, "shuffled labels": each.accuracy.shuffled,
         "at most": each.accuracy.shuffled_high, "untrained model": each.untrained, "cosine": each.cosine}
        for name, each in found.variants.items()
    ]  # fmt: skip
    return panel(
        "Methods",
        records_table(rows),
        note="share of held-out examples on the right side (0.5 is chance); cosine with the difference in means",
        more="Nulls: shuffled labels, and the untrained model.",
    )


def samples_panel(found: DirectionGeometry) -> html.Section | None:
    """Return continuations with and without steering."""
    choice = found.choice
    if isinstance(choice, str) or choice.judged is None or not choice.judged.samples:
        return None
    columns = ("prompt", "unsteered", "steered", "random direction")
    rows = [html.Tr([html.Th(each, scope="col") for each in columns])]
    for each in choice.judged.samples:
        texts = (each.prompt, each.plain, each.steered, each.random)
        rows.append(html.Tr([html.Td(visible(text, 300), dir="auto") for text in texts]))
    return panel("What it writes", html.Div(html.Table(rows, className="wb-samples"), className="wb-scroll"))


def apply_panel(found: DirectionGeometry) -> html.Section:
    """Return the commands that steer with it and write it to files, and lines of plain transformers."""
    from interp.directions.files import transformers_code
    from interp.interventions.recipe import Recipe
    from interp.models.loading import PACKAGED, PACKAGED_HUB

    name, of = found.name, found.settings
    command = f'workbench steer directions/{name} --prompt "..."'
    lines = [command, f"{command} --write {name}.safetensors", f"{command} --write {name}.gguf"]
    try:
        recipe = Recipe(name=name, steps=(found.intervention(),), model=of.model, weight_hash=of.weight_hash)
        hub = PACKAGED_HUB if of.model == PACKAGED else of.model
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
