"""The panels of one direction: words along it, its share of their variance, list planes, a probe, a push."""

from typing import Any

from dash import html

from dashboard.components.evidence import as_table, known, number
from dashboard.components.frame import graph, panel
from dashboard.components.guarded import guarded
from dashboard.figures.along import along_figure
from dashboard.figures.in_planes import in_planes_figure
from dashboard.figures.layers import probe_over_layers
from dashboard.figures.spectrum import spectrum_figure
from dashboard.figures.theme import Theme, visible
from dashboard.pages.geometry_parts import evidence_row, missing_panel, p_text, share_text, steering_body
from dashboard.views.direction import DirectionView, direction_layers, words
from interp.workspace import Workspace


def direction_verdict(found: DirectionView, actions: list[Any]) -> html.Section:
    """What came out, and every number that it rests on."""
    rows = [
        ("where from", visible(str(found.about.get("source") or ""), 300)),
        ("tells words apart", _accuracy(found.about.get("found"))),
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
            f"A list counts as set apart up to p {p_text(alpha)}, with the smallest possible {p_text(least)}: so few "
            "random directions set it as far apart.",
            className="wb-why",
        ),
        html.Table(html.Tbody([evidence_row(name, text) for name, text in rows if text]), className="wb-evidence"),
        note=f"a direction at {visible(found.hook_point, 60)}",
        actions=actions,
        className="wb-findings",
    )


def direction_panels(workspace: Workspace, name: str, found: DirectionView, colours: Theme) -> list[Any]:
    """All that is drawn of it."""
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
        f"{share_text(along.get('share'))} of the words' variance lies along it; along a random direction "
        f"{share_text(along.get('random_share'))}, in 99 of 100 at most {share_text(along.get('random_share_high'))}. "
        "The bars are the components that hold most"
    )

    def body() -> list[Any]:
        spectrum = along.get("spectrum") or {}
        rows = [{"component": at, "eigenvalue": value} for at, value in enumerate(spectrum.get("eigenvalues") or [], 1)]
        label = "Spectrum of all words against isotropic points"
        figure = spectrum_figure(spectrum, colours, height=320)
        return [graph("direction-spectrum", figure=figure, label=label, height=320), as_table(rows)]

    return guarded("How much of what differs", body, note=note)


def _planes_panel(found: DirectionView, colours: Theme) -> html.Section:
    note = (
        "a direction alone has no order and is no circle; but it may lie in the plane on which a list is one. In the "
        "accent colour where it does, more than 99 of 100 random directions"
    )

    def body() -> list[Any]:
        table = [
            {"list": each.get("name"), "in its plane": each.get("plane_share"), "random, mean":
             each.get("random_plane_share"), "random, 99 of 100": each.get("random_plane_high")} for each in found.lists
        ]  # fmt: skip
        label = f"Share of the direction {found.name} in the plane of each list"
        figure = in_planes_figure(found.lists, colours, height=320)
        return [graph("direction-planes", figure=figure, label=label, height=320), as_table(table)]

    return guarded("Does it lie in a list's plane?", body, note=note)


def _probe_panel(workspace: Workspace, name: str, found: DirectionView, colours: Theme) -> html.Section:
    title = "On which side is a word?"
    if isinstance(found.probes, str):
        return missing_panel(title, found.probes)
    note = (
        "whether a probe can tell, of words that it has not seen, on which side of the middle they lie along the "
        "direction; the same for random directions, which words of lists that lie together make easy too. Control "
        "labels are drawn at random for each word"
    )

    def body() -> list[Any]:
        rows = direction_layers(workspace, name)
        label = f"Accuracy of a probe for the side of {found.name} over layers, beside its nulls"
        table = [{"at": row["hook_point"], **{key: value for key, value in row.items() if key not in _NOT_SHOWN}}
                 for row in rows]  # fmt: skip
        figure = probe_over_layers(rows, colours, height=380)
        return [graph("direction-probe", figure=figure, label=label, height=380), as_table(table)]

    return guarded(title, body, note=note)


def _steering_panel(found: DirectionView, colours: Theme) -> html.Section:
    title, sweep = "Pushed along it", found.steering
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    tokens = ", ".join(visible(repr(each), 24) for each in found.targets[:12])
    note = (
        f"judged by the tokens {tokens}; without a push they have probability {known(sweep.get('baseline'))}, mean of "
        f"{known(sweep.get('n_prompts'))} prompts. Strength 1 is the mean distance of a word from the middle of all, "
        f"{known(sweep.get('unit'))}. Whiskers: 95 % over prompts and over documents; random directions are as long"
    )
    label = f"Effect of pushing along {found.name} and loss on unrelated text, over strength"
    unit = "distances of a word from the middle"
    return guarded(title, lambda: steering_body(sweep, colours, "direction-steering", label, unit), note=note)


_NOT_SHOWN = ("layer", "hook_point", "chosen")


def _accuracy(found: Any) -> str:
    if not isinstance(found, dict):
        return ""
    return (
        f"{share_text(found.get('accuracy'))} of {known(found.get('n_heldout'))} held-out words; shuffled labels "
        f"{share_text(found.get('shuffled'))}, at most {share_text(found.get('shuffled_high'))}"
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
        f"{known(logits[0])} nats above the mean; random directions {known(reading.get('random'))}, at most "
        f"{known(reading.get('random_high'))}"
    )


def _list(each: dict[str, Any]) -> str:
    if not any(each.get("counted") or ()):
        return ""  # the direction was made of it
    if not isinstance(each.get("separation"), int | float):
        return "too few words that it was not made of"
    return f"{number(each['separation'], signed=True)} deviations from the others, p {p_text(each.get('p'))}" + (
        f"; a word of it lies above one of the others with probability {share_text(each.get('auc'))}"
    )
