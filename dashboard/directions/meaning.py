"""Panels of what one direction means: a figure, its null, and the same numbers as a table."""

from dash import html

from dashboard.components.evidence import as_table, number, percent
from dashboard.components.frame import graph, panel
from dashboard.components.measures import eigenvalues, evidence, missing_panel, signed
from dashboard.figures.geometry import along_figure, in_planes_figure, probe_over_layers, spectrum_figure
from dashboard.figures.theme import Theme, visible
from interp.directions.study import DirectionGeometry, TokenReading
from interp.geometry.erasure import Erasure
from interp.geometry.probes import DirectionAccuracy
from interp.geometry.separation import ListAlong


def meaning_panel(found: DirectionGeometry) -> html.Section:
    """Return the tokens that a direction raises, the lists that it separates, and the effect of erasing it."""
    along, reading = found.along, found.reading
    apart = ", ".join(along.set_apart)
    rows = [
        ("after erasure", _erased(found.erased)),
        ("tokens raised", visible(reading, 200) if isinstance(reading, str) else _tokens(reading.raised)),
        ("tokens lowered", visible(reading, 200) if isinstance(reading, str) else _tokens(reading.lowered)),
        ("largest logit", _largest(reading)),
        *((visible(each.name, 30), _list(each)) for each in along.lists),
    ]
    return panel(
        "What it means",
        html.P(
            f"It separates {apart} from the other lists." if apart else "It separates no list of words.",
            className="wb-verdict",
        ),
        html.P(
            f"Separated: p at most {number(along.alpha)} (smallest possible {number(along.smallest_p)}); p: share of "
            "random directions that separate the list at least as far.",
            className="wb-why",
        ),
        evidence(rows),
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
        note="projection of each word's activation, mean over sentences; whiskers: 95 % over sentences",
    )


def variance_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return the variance along the direction next to the spectrum of all words."""
    along = found.along
    figure = spectrum_figure(along.spectrum, colours, height=320)
    return panel(
        "Variance along it",
        graph("direction-spectrum", figure=figure, label="Spectrum of all words against isotropic points", height=320),
        as_table(eigenvalues(along.spectrum)),
        note=f"{percent(along.share)} of the variance of all words; along a random direction "
        f"{percent(along.random_share)}, in 99 of 100 at most {percent(along.random_share_high)}; bars: principal "
        "components",
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
        note="fraction of the direction in the plane of each list; coloured: above 99 of 100 random directions",
        more="0: none, 1: all of it. A direction can be part of a circle or line.",
    )


def side_panel(found: DirectionGeometry, colours: Theme) -> html.Section:
    """Return a probe over layers for the side on which a word lies, or why it is missing."""
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
        note="accuracy on held-out words; nulls: random directions, and random control labels",
        more="The probe predicts on which side of the median a word lies along the direction. Words of one list lie "
        "together along any direction, so random directions are a null.",
    )


def accuracy_words(found: DirectionAccuracy | None) -> str:
    """Return the held-out accuracy of a direction with its null; empty for a direction that was given."""
    if found is None:
        return ""
    return (
        f"{percent(found.accuracy)} of {found.n_heldout} held-out examples; shuffled labels "
        f"{percent(found.shuffled)}, at most {percent(found.shuffled_high)}"
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
        return "too few words besides those that the direction was made from"
    return (
        f"{signed(each.separation)} standard deviations from the others, p {number(each.p)}; a word of it lies above "
        f"one of the others with probability {percent(each.auc)}"
    )
