"""The panels of one direction: a figure, its null, and the same numbers as a table."""

from typing import Any

from dash import html

from dashboard.components.evidence import as_table, number, percent
from dashboard.components.frame import graph, panel
from dashboard.figures.geometry import along_figure, in_planes_figure, probe_over_layers, spectrum_figure
from dashboard.figures.theme import Theme, visible
from dashboard.geometry.panels import eigenvalues, evidence, missing_panel, signed, steering_body
from interp.geometry.direction import DirectionGeometry, TokenReading
from interp.geometry.erasure import Erasure
from interp.geometry.probes import DirectionAccuracy
from interp.geometry.separation import ListAlong

_STEERED = {
    True: "Steering along it raises its tokens, more than along any random direction.",
    False: "Steering along it raises its tokens no more than along a random direction.",
    None: "Steering along it was not measured.",
}


def direction_verdict(found: DirectionGeometry, actions: list[Any]) -> html.Section:
    """Return the verdict on a direction, and every number behind it."""
    origin, along, reading = found.settings.direction, found.along, found.reading
    apart = ", ".join(along.set_apart)
    words = f"It separates {apart} from the other lists." if apart else "It separates no list of words."
    rows = [
        ("source", visible(origin.source, 300)),
        ("classifies words", _accuracy(found.accuracy)),
        ("after erasure", _erased(found.erased)),
        ("tokens raised", visible(reading, 200) if isinstance(reading, str) else _tokens(reading.raised)),
        ("tokens lowered", visible(reading, 200) if isinstance(reading, str) else _tokens(reading.lowered)),
        ("largest logit", _largest(reading)),
        *((visible(each.name, 30), _list(each)) for each in along.lists),
    ]
    return panel(
        html.Span(visible(origin.name, 80), dir="auto"),
        html.P(f"{words} {_STEERED[found.moves_output]}", className="wb-verdict"),
        html.P(
            f"A list counts as separated up to p {number(along.alpha)} (the smallest possible is "
            f"{number(along.smallest_p)}): the fraction of random directions that separate it as far.",
            className="wb-why",
        ),
        evidence(rows),
        note=f"a direction at {visible(origin.hook_point, 60)}",
        actions=actions,
        className="wb-findings",
    )


def along_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the words of every list along the direction."""
    figure = along_figure(found.along, colours)
    label = f"Words of every list along the direction {found.settings.direction.name}"
    rows = [{"list": each.name, **row} for each in found.along.lists for row in each.to_records()]
    return panel(
        "Words along it",
        graph("direction-along", figure=figure, label=label, height=int(figure.layout.height)),
        as_table(rows),
        note="the mean over sentences of each word's activation, projected on the direction; whiskers: 95 % over "
        "sentences",
    )


def variance_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the variance along the direction next to the spectrum of all words."""
    along = found.along
    figure = spectrum_figure(along.spectrum, colours, height=320)
    return panel(
        "Variance along it",
        graph("direction-spectrum", figure=figure, label="Spectrum of all words against isotropic points", height=320),
        as_table(eigenvalues(along.spectrum)),
        note=f"{percent(along.share)} of the variance of all words lies along it; along a random direction "
        f"{percent(along.random_share)}, in 99 of 100 at most {percent(along.random_share_high)}. The bars are the "
        "largest principal components",
    )


def planes_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the share of the direction in the plane of each list."""
    table = [
        {"list": each.name, "in its plane": each.plane_share, "random, mean": each.random_plane_share,
         "random, 99 of 100": each.random_plane_high} for each in found.along.lists
    ]  # fmt: skip
    label = f"Share of the direction {found.settings.direction.name} in the plane of each list"
    figure = in_planes_figure(found.along.lists, colours, height=320)
    return panel(
        "Overlap with the planes of lists",
        graph("direction-planes", figure=figure, label=label, height=320),
        as_table(table),
        note="fraction of the direction that lies in the plane of each list, 0 to 1: a direction can be part of a "
        "circle or line; coloured where it exceeds 99 of 100 random directions",
    )


def side_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return a probe over layers for the side on which a word lies, or why there is none."""
    title = "Linear probe for the side of a word"
    if isinstance(found.probes, str):
        return missing_panel(title, found.probes)
    columns = ("accuracy", "low", "high", "base_rate", "control", "selectivity", "random")
    rows = [(each.probe.hook_point, each.to_records()[0]) for each in found.probes]
    label = f"Accuracy of a probe for the side of {found.settings.direction.name} over layers, with its nulls"
    figure = probe_over_layers(found.probes, found.settings.direction.hook_point, colours, height=380)
    return panel(
        title,
        graph("direction-probe", figure=figure, label=label, height=380),
        as_table([{"at": at, **{column: row[column] for column in columns}} for at, row in rows]),
        note="accuracy on held-out words: on which side of the median does a word lie along the direction? Random "
        "directions are a null, since words of one list lie together along any direction; control labels are random",
    )


def push_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the effect of steering along the direction, or the reason why it was not measured."""
    title, sweep = "Steering along the direction", found.steering
    if isinstance(sweep, str):
        return missing_panel(title, sweep)
    tokens = ", ".join(visible(repr(each), 24) for each in found.targets[:12])
    label = f"Effect of steering along {found.settings.direction.name} and loss on unrelated text, over strength"
    return panel(
        title,
        *steering_body(sweep, colours, "direction-steering", label, "distances of a word from the mean"),
        note=f"measured on the tokens {tokens}; without steering they have probability {number(sweep.baseline)}, mean "
        f"of {sweep.n_prompts} prompts. Strength 1 is the mean distance of a word from the mean of all, "
        f"{number(sweep.unit)}. Whiskers: 95 % over prompts and documents; random directions have the same length",
    )


def _accuracy(found: DirectionAccuracy | None) -> str:
    if found is None:
        return ""
    return (
        f"{percent(found.accuracy)} of {found.n_heldout} held-out words; shuffled labels {percent(found.shuffled)}, at "
        f"most {percent(found.shuffled_high)}"
    )


def _erased(found: Erasure | str) -> str:
    if isinstance(found, str):
        return ""
    return (
        f"a linear probe falls from {percent(found.before_heldout)} to {percent(found.after_heldout)} of held-out "
        f"words (base rate {percent(found.base_rate_heldout)}; random directions erased {percent(found.random)}); the "
        f"activations change by {percent(found.change)}"
    )


def _tokens(tokens: tuple[str, ...]) -> str:
    return " · ".join(visible(token, 24) for token in tokens[:8])


def _largest(reading: TokenReading | str) -> str:
    if isinstance(reading, str):
        return ""
    through = f", through the Jacobian lens {reading.lens.partition('/')[2]}" if reading.lens else ", by direct effect"
    return (
        f"{number(reading.raised_logits[0])} above the mean logit; random directions {number(reading.random)}, at most "
        f"{number(reading.random_high)}{through}"
    )


def _list(each: ListAlong) -> str:
    if not any(each.counted):
        return ""  # the direction was made from it
    if each.separation is None or each.p is None or each.auc is None:
        return "too few words beyond those that the direction was made from"
    return (
        f"{signed(each.separation)} standard deviations from the others, p {number(each.p)}; a word of it lies above "
        f"one of the others with probability {percent(each.auc)}"
    )
