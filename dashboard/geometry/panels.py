"""The panels of one list of words, and those of one direction: a figure, its null, and the same numbers as a table."""

from typing import Any

from dash import html

from dashboard.components.evidence import as_table, known, number, percent
from dashboard.components.frame import graph, guarded, panel
from dashboard.figures.geometry import (
    along_figure,
    in_planes_figure,
    order_over_layers,
    plane_figure,
    probe_over_layers,
    rotation_figure,
    spectrum_figure,
    steering_figure,
)
from dashboard.figures.theme import Theme, visible
from dashboard.geometry.data import VERDICTS, DirectionView, WordList, direction_layers, layers, points, words
from interp.workspace import Workspace


def verdict_panel(found: WordList, actions: list[Any]) -> html.Section:
    """Return the verdict, its reason, and every number behind it."""
    order = found.order
    rows = [
        ("as a circle", f"RSA {p_text(order.get('circular'))}, p {p_text(order.get('p_circular'))}"),
        ("as a line", f"RSA {p_text(order.get('linear'))}, p {p_text(order.get('p_linear'))}"),
        ("significance", _counts(order)),
        ("closed or open", _closing(order)),
        ("first to last", _gap(order)),
        ("a cluster", _cluster(found.shape.get("cluster"))),
        ("on the plane", _plane(found.shape["plane"])),
    ]
    note = found.shape.get("note")
    rows += [("tokens", known(note))] if note else []
    return panel(
        html.Span(visible(found.name, 80), dir="auto"),
        html.P(VERDICTS.get(found.verdict, visible(found.verdict)), className="wb-verdict"),
        html.P(["Why: ", visible(str(found.shape["reason"]), 400), "."], className="wb-why"),
        html.Ul([html.Li(visible(word, 60), dir="auto") for word in found.words], className="wb-words",
                title="the words, in the order of the list"),
        html.Table(html.Tbody([evidence_row(name, words) for name, words in rows if words]), className="wb-evidence"),
        note=f"tested at {visible(found.hook_point, 60)}, the layer selected on the other half of the sentences",
        actions=actions,
        className="wb-findings",
    )  # fmt: skip


def plane_panel(workspace: Workspace, name: str, found: WordList, colours: Theme) -> html.Section:
    """The words on their plane."""

    def body() -> list[Any]:
        rows = points(workspace, name, found.name)
        figure = plane_figure(rows, colours, joined=found.joined)
        label = f"The words of {found.name} on their plane, by both halves of the sentences"
        return [graph("geometry-plane", figure=figure, label=label, height=420), as_table(rows)]

    joined = {"closed": "joined in order, last to first too", "open": "joined in order",
              "unsure": "joined in order, and dotted from the last to the first",
              "": "not joined, as no order was found"}[found.joined]  # fmt: skip
    note = f"the first two principal components, found without the order of the list. The words are {joined}"
    return guarded("On its plane", body, note=note)


def spectrum_panel(found: WordList, colours: Theme) -> html.Section:
    """Return the spectrum of the words: the number of dimensions that they span."""
    spectrum = found.shape["spectrum"]
    isotropic = spectrum.get("isotropic") or {}
    note = (
        f"participation ratio (effective dimension) {known(spectrum.get('participation_ratio'))}; of as many isotropic "
        f"points in as many dimensions {known(isotropic.get('participation_ratio'))}. Mean cosine similarity of two "
        f"words {known(spectrum.get('cosine_raw'))}, after centring {known(spectrum.get('cosine_centred'))}. "
        f"{spectrum.get('note') or ''}"
    )

    def body() -> list[Any]:
        values = spectrum.get("eigenvalues") or []
        rows = [{"component": at, "eigenvalue": value} for at, value in enumerate(values, 1)]
        dims = spectrum.get("dims") or {}
        null = isotropic.get("dims") or {}
        needed = [{"share of the variance": f"{share} %", "components": count, "isotropic points": null.get(share)}
                  for share, count in dims.items()]  # fmt: skip
        label = f"Spectrum of the words of {found.name} against isotropic points"
        shown = graph(
            "geometry-spectrum", figure=spectrum_figure(spectrum, colours, height=384), label=label, height=384
        )
        return [shown, as_table(needed, "Components needed, as a table"), as_table(rows, "Eigenvalues as a table")]

    return guarded("Number of dimensions", body, note=note)


def order_panel(workspace: Workspace, name: str, found: WordList, colours: Theme) -> html.Section:
    """Circular against linear RSA over layers."""
    order = found.order
    note = (
        "RSA: rank correlation of distances in the model with those on a circle, or a line. The layer is selected on "
        "one half of the sentences, and the other half is drawn. Permutation test over orderings of the list, each at "
        f"its best layer: circle p {p_text(order.get('p_circular'))}, line p {p_text(order.get('p_linear'))}, smallest "
        f"possible {p_text(order.get('smallest_p'))}"
    )

    def body() -> list[Any]:
        rows = layers(workspace, name, found.name)
        label = f"Circular and linear RSA of {found.name} over layers"
        table = [
            {"at": row["hook_point"], **{column: row[column] for column in ("circular", "linear", "silhouette")},
             "chosen": "chosen" if row["chosen"] else ""} for row in rows
        ]  # fmt: skip
        return [
            graph("geometry-order", figure=order_over_layers(rows, colours), label=label, height=300),
            as_table(table),
        ]

    return guarded("Circle or line?", body, note=note)


def probe_panel(workspace: Workspace, name: str, found: WordList, colours: Theme) -> html.Section:
    """A linear probe over layers, or why there is none."""
    title = "Linear probe for words of the list"
    if isinstance(found.probes, str):
        return missing_panel(title, found.probes)
    tested = next((probe.get("n_test") for probe in found.probes), None)
    note = (
        f"accuracy on {known(tested)} held-out words, of this list and of the others, with its two nulls. Base rate: "
        "always the more frequent class. Control labels: drawn at random for each word"
    )

    def body() -> list[Any]:
        rows = layers(workspace, name, found.name)
        table = [
            {"at": row["hook_point"], **{part: row[f"probe_{part}"] for part in ("accuracy", "low", "high")},
             **{column: row[column] for column in ("base_rate", "control", "selectivity")}} for row in rows
        ]  # fmt: skip
        label = f"Accuracy of a probe for {found.name} over layers, with base rate and control labels"
        return [
            graph("geometry-probe", figure=probe_over_layers(rows, colours), label=label, height=300),
            as_table(table),
        ]

    return guarded(title, body, note=note)


def steering_panel(found: WordList, colours: Theme) -> html.Section:
    """Return the effect of steering towards the list, or the reason why it was not measured."""
    title, sweep = "Steering towards the list", found.steering
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    note = (
        f"at {visible(str(sweep.get('hook_point')), 60)}, along the difference in means; strength 1 is the distance "
        f"between the means, {known(sweep.get('unit'))}. Without steering its words have probability "
        f"{known(sweep.get('baseline'))}, mean of {known(sweep.get('n_prompts'))} prompts. "
        "Whiskers: 95 % intervals over prompts and over documents; random directions have the same length"
    )

    label = f"Effect of steering towards {found.name} and loss on unrelated text, over strength"
    unit = "distances between the means"
    return guarded(title, lambda: steering_body(sweep, colours, "geometry-steering", label, unit), note=note)


def steering_body(sweep: dict[str, Any], colours: Theme, id: str, label: str, unit: str) -> list[Any]:
    """Return the verdict on a steering sweep, its figure and its numbers; `unit` is the meaning of strength 1."""
    figure = steering_figure(sweep, colours, unit=unit)
    return [html.P(_judged(sweep)), graph(id, figure=figure, label=label, height=380), as_table(_steering_rows(sweep))]


def _judged(sweep: dict[str, Any]) -> str:
    """Return the effect of the chosen strength on the prompts that did not choose it, in a sentence."""
    strengths, chosen = sweep.get("strengths"), sweep["chosen"]
    if not (isinstance(chosen, int) and isinstance(strengths, list) and 0 <= chosen < len(strengths)):
        return "No strength above 0 was chosen: each costs more than .1 nats of loss, or prompts were too few."
    harm, effect = sweep.get("judged_side_effect"), sweep.get("judged_effect")
    random = [value for value in sweep.get("judged_random") or [] if isinstance(value, int | float)]
    return (
        f"Strength {known(strengths[chosen])} was chosen on half of the prompts and documents: the largest effect that "
        f"costs at most .1 nats of loss. On the other half ({known(sweep.get('n_judging'))} prompts) it moves the "
        f"targets by {_signed(effect)} nats ({_signed(sweep.get('judged_low'))} to "
        f"{_signed(sweep.get('judged_high'))}) and costs {_signed(harm)} "
        f"({_signed(sweep.get('judged_side_low'))} to {_signed(sweep.get('judged_side_high'))}); random directions "
        f"move them by at most {_signed(max(random, default=None))}."
    )


def rotation_panel(found: WordList, colours: Theme) -> html.Section:
    """Return the effect of rotating words on their plane, or the reason why it was not measured."""
    title, sweep = "Rotation on the plane", found.rotation
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    verb = "moves" if found.found.get("moves_output") else "does not move"
    steps = found.found.get("steps_followed")
    along = (
        f"; the answer follows at {steps[0]} of {steps[1]} steps" if isinstance(steps, list) and len(steps) == 2 else ""
    )
    note = (
        f"at {visible(str(sweep.get('hook_point')), 60)}. Rotation {verb} the answer: {_signed(sweep.get('overall'))} "
        f"nats ({_signed(sweep.get('overall_low'))} to {_signed(sweep.get('overall_high'))}), random directions at "
        f"most {_signed(sweep.get('random_high'))}{along}. Without rotation {share_text(sweep.get('baseline'))} of "
        f"{known(sweep.get('n_prompts'))} prompts are answered correctly, by chance {_chance(sweep.get('n_items'))}"
    )

    def body() -> list[Any]:
        figure = rotation_figure(sweep, colours)
        label = f"Change of the answer when words of {found.name} are rotated"
        return [graph("geometry-rotation", figure=figure, label=label, height=380), as_table(_rotation_rows(sweep))]

    return guarded(title, body, note=note)


def missing_panel(title: str, why: str) -> html.Section:
    """Return the panel of a part that was not measured, with the reason."""
    return panel(title, html.P(["Not measured: ", visible(why, 400), "."], className="wb-why"))


def _counts(order: dict[str, Any]) -> str:
    how = "counted" if order.get("exact") else "drawn"
    return (
        f"up to p {p_text(order.get('alpha'))}; the smallest possible is {p_text(order.get('smallest_p'))} "
        f"({known(order.get('n_orderings'))} orderings {how})"
    )


def _closing(order: dict[str, Any]) -> str:
    return (
        f"of simulated horseshoes {share_text(order.get('p_open'))} look as closed, of simulated circles "
        f"{share_text(order.get('p_closed'))} as open"
    )


def _gap(order: dict[str, Any]) -> str:
    n = order.get("n")
    line = f", {n - 1} on a line" if isinstance(n, int) else ""
    return f"{known(order.get('gap'))} steps apart (1 on a circle{line})"


def _cluster(found: dict[str, Any] | None) -> str:
    if not isinstance(found, dict):
        return "there is no other list to separate it from"
    return (
        f"silhouette {known(found.get('silhouette'))}, p {p_text(found.get('p'))}; words assigned to lists at random "
        f"{known(found.get('null'))}, at most {known(found.get('null_high'))}"
    )


def _plane(found: dict[str, Any]) -> str:
    null = share_text(found.get("isotropic_share"))
    return f"{share_text(found.get('share'))} of the variance; the best plane of isotropic points holds {null}"


def _steering_rows(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for at, strength in enumerate(sweep.get("strengths") or []):
        row: dict[str, Any] = {"strength": strength}
        for name, ends in (("effect", ("low", "high")), ("side_effect", ("side_low", "side_high"))):
            row |= {each: _at(sweep.get(each), at) for each in (name, *ends)}
            draws = [value for draw in sweep.get(f"random_{name}") or [] if (value := _at(draw, at)) is not None]
            row[f"random {name.replace('_', ' ')}"] = f"{known(min(draws))} to {known(max(draws))}" if draws else None
        rows.append(row)
    return rows


def _rotation_rows(sweep: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for at, step in enumerate(sweep.get("steps") or []):
        draws = [value for draw in sweep.get("random") or [] if (value := _at(draw, at)) is not None]
        row = {"rotated by": step, "moved": _at(sweep.get("moved"), at), "low": _at(sweep.get("low"), at)}
        row |= {"high": _at(sweep.get("high"), at), "random, most": max(draws) if draws else None}
        rows.append(row | {name: _at(sweep.get(name), at) for name in ("swapped", "followed")})
    return rows


def _at(values: Any, index: int) -> Any:
    return values[index] if isinstance(values, list) and index < len(values) else None


def evidence_row(name: str, words: str) -> html.Tr:
    """Return one row of the evidence: a name and a number in words."""
    return html.Tr([html.Th(name, scope="row"), html.Td(words, dir="auto")])


def p_text(value: Any) -> str:
    """Return a p-value, or a correlation, as text, or that it is not known."""
    return number(value) if isinstance(value, int | float) else "not known"


def _signed(value: Any) -> str:
    return number(value, signed=True) if isinstance(value, int | float) else "not known"


def share_text(value: Any) -> str:
    """Return a fraction as a percentage, or that it is not known."""
    return percent(value) if isinstance(value, int | float) else "an unknown share"


def _chance(n: Any) -> str:
    return percent(1 / n) if isinstance(n, int) and n else "an unknown share"


def direction_verdict(found: DirectionView, actions: list[Any]) -> html.Section:
    """Return the verdict on a direction, and every number behind it."""
    rows = [
        ("source", visible(str(found.about.get("source") or ""), 300)),
        ("classifies words", _accuracy(found.about.get("found"))),
        ("after erasure", _erased(found.erased)),
        ("tokens raised", _tokens(found.reading, "raised")),
        ("tokens lowered", _tokens(found.reading, "lowered")),
        ("largest logit", _largest(found.reading)),
        *((visible(str(each.get("name")), 30), _list(each)) for each in found.lists),
    ]
    alpha, least = found.along.get("alpha"), found.along.get("smallest_p")
    return panel(
        html.Span(visible(found.name, 80), dir="auto"),
        html.P(found.verdict(), className="wb-verdict"),
        html.P(
            f"A list counts as separated up to p {p_text(alpha)} (the smallest possible is {p_text(least)}): the "
            "fraction of random directions that separate it as far.",
            className="wb-why",
        ),
        html.Table(html.Tbody([evidence_row(name, text) for name, text in rows if text]), className="wb-evidence"),
        note=f"a direction at {visible(found.hook_point, 60)}",
        actions=actions,
        className="wb-findings",
    )


def direction_panels(workspace: Workspace, name: str, found: DirectionView, colours: Theme) -> list[Any]:
    """Return the panels of a direction."""
    return [
        html.Div(_along_panel(workspace, name, found, colours), className="wb-two wb-one"),
        html.Div([_spectrum_panel(found, colours), _planes_panel(found, colours)], className="wb-two wb-even"),
        html.Div(
            [_probe_panel(workspace, name, found, colours), _steering_panel(found, colours)], className="wb-two wb-even"
        ),
    ]


def _along_panel(workspace: Workspace, name: str, found: DirectionView, colours: Theme) -> html.Section:
    def body() -> list[Any]:
        rows = words(workspace, name)
        figure = along_figure(rows, colours, apart=found.set_apart)
        label = f"Words of every list along the direction {found.name}"
        return [graph("direction-along", figure=figure, label=label, height=int(figure.layout.height)), as_table(rows)]  # pyright: ignore[reportAttributeAccessIssue]

    note = (
        "the mean over sentences of each word's activation, projected on the direction; whiskers: 95 % over sentences"
    )
    return guarded("Words along it", body, note=note)


def _spectrum_panel(found: DirectionView, colours: Theme) -> html.Section:
    along = found.along
    note = (
        f"{share_text(along.get('share'))} of the variance of all words lies along it; along a random direction "
        f"{share_text(along.get('random_share'))}, in 99 of 100 at most {share_text(along.get('random_share_high'))}. "
        "The bars are the largest principal components"
    )

    def body() -> list[Any]:
        spectrum = along.get("spectrum") or {}
        rows = [{"component": at, "eigenvalue": value} for at, value in enumerate(spectrum.get("eigenvalues") or [], 1)]
        label = "Spectrum of all words against isotropic points"
        figure = spectrum_figure(spectrum, colours, height=320)
        return [graph("direction-spectrum", figure=figure, label=label, height=320), as_table(rows)]

    return guarded("Variance along it", body, note=note)


def _planes_panel(found: DirectionView, colours: Theme) -> html.Section:
    note = (
        "fraction of the direction that lies in the plane of each list, 0 to 1: a direction can be part of a circle or "
        "line; coloured where it exceeds 99 of 100 random directions"
    )

    def body() -> list[Any]:
        table = [
            {"list": each.get("name"), "in its plane": each.get("plane_share"), "random, mean":
             each.get("random_plane_share"), "random, 99 of 100": each.get("random_plane_high")} for each in found.lists
        ]  # fmt: skip
        label = f"Share of the direction {found.name} in the plane of each list"
        figure = in_planes_figure(found.lists, colours, height=320)
        return [graph("direction-planes", figure=figure, label=label, height=320), as_table(table)]

    return guarded("Overlap with the planes of lists", body, note=note)


def _probe_panel(workspace: Workspace, name: str, found: DirectionView, colours: Theme) -> html.Section:
    title = "Linear probe for the side of a word"
    if isinstance(found.probes, str):
        return missing_panel(title, found.probes)
    note = (
        "accuracy on held-out words: on which side of the median does a word lie along the direction? Random "
        "directions are a null, since words of one list lie together along any direction; control labels are random"
    )

    def body() -> list[Any]:
        rows = direction_layers(workspace, name)
        label = f"Accuracy of a probe for the side of {found.name} over layers, with its nulls"
        table = [{"at": row["hook_point"], **{key: value for key, value in row.items() if key not in _NOT_SHOWN}}
                 for row in rows]  # fmt: skip
        figure = probe_over_layers(rows, colours, height=380)
        return [graph("direction-probe", figure=figure, label=label, height=380), as_table(table)]

    return guarded(title, body, note=note)


def _steering_panel(found: DirectionView, colours: Theme) -> html.Section:
    title, sweep = "Steering along the direction", found.steering
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    tokens = ", ".join(visible(repr(each), 24) for each in found.targets[:12])
    note = (
        f"measured on the tokens {tokens}; without steering they have probability {known(sweep.get('baseline'))}, mean "
        f"of {known(sweep.get('n_prompts'))} prompts. Strength 1 is the mean distance of a word from the mean of all, "
        f"{known(sweep.get('unit'))}. Whiskers: 95 % over prompts and documents; random directions have the same length"
    )
    label = f"Effect of steering along {found.name} and loss on unrelated text, over strength"
    unit = "distances of a word from the mean"
    return guarded(title, lambda: steering_body(sweep, colours, "direction-steering", label, unit), note=note)


_NOT_SHOWN = ("layer", "hook_point", "chosen")


def _accuracy(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    return (
        f"{share_text(found.get('accuracy'))} of {known(found.get('n_heldout'))} held-out words; shuffled labels "
        f"{share_text(found.get('shuffled'))}, at most {share_text(found.get('shuffled_high'))}"
    )


def _erased(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    return (
        f"a linear probe falls from {share_text(found.get('before_heldout'))} to "
        f"{share_text(found.get('after_heldout'))} of held-out words (base rate "
        f"{share_text(found.get('base_rate_heldout'))}; random directions erased {share_text(found.get('random'))}); "
        f"the activations change by {share_text(found.get('change'))}"
    )


def _tokens(reading: dict[str, Any] | str, side: str) -> str:
    if isinstance(reading, str):
        return visible(reading, 200)
    return " · ".join(visible(str(token), 24) for token in (reading.get(side) or [])[:8])


def _largest(reading: dict[str, Any] | str) -> str:
    if isinstance(reading, str):
        return ""
    logits = reading.get("raised_logits") or [None]
    return (
        f"{known(logits[0])} above the mean logit; random directions {known(reading.get('random'))}, at most "
        f"{known(reading.get('random_high'))}"
    )


def _list(each: dict[str, Any]) -> str:
    if not any(each.get("counted") or ()):
        return ""  # the direction was made from it
    if not isinstance(each.get("separation"), int | float):
        return "too few words beyond those that the direction was made from"
    return (
        f"{number(each['separation'], signed=True)} standard deviations from the others, p {p_text(each.get('p'))}"
        + (f"; a word of it lies above one of the others with probability {share_text(each.get('auc'))}")
    )
