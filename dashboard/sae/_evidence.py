"""Evidence for a dictionary: its scores beside null dictionaries, and the everyday concepts that it detects."""

from collections.abc import Sequence
from typing import Any

from dash import html

from dashboard.components.evidence import records_table
from dashboard.components.frame import attrs, explain, notice, panel, quiet_link, verdict
from dashboard.components.pages import feature_href
from dashboard.figures.theme import number
from dashboard.sae import data as view
from interp.artifacts import Manifest
from interp.errors import WorkbenchError
from interp.workspace import Workspace
from saes.evaluation.evaluation import ConceptScore, ConceptScores
from saes.evaluation.scores import GOOD_F1, Set

_SETS: dict[Set, str] = {"judge": "held out", "choose": "used for choosing"}
_CONCEPTS = (
    f"Detected: F1 of at least {GOOD_F1}. "
    "Half of the words choose the feature; the other half judge it, among four times as many words of other concepts "
    '(always "yes" has F1 0.33). Baselines and shuffled labels are scored in the same way; the tooltip has the AUROC. '
    "Steering: rise of the log-probability of the concept's words above that by random features, in nats; bold where "
    "p is at most 0.05. Search: the rank of the feature in a search for the concept's name or words."
)


def concept_panel(workspace: Workspace, chosen: view.Entry, made: list[Manifest]) -> html.Section | None:
    """Return the table of everyday concepts: the best feature of each, beside baselines and the null."""
    for evaluation in view.evaluations(workspace, chosen.name):
        try:
            if (scores := evaluation.concept_scores) is not None:
                return _concept_table(scores, evaluation.name, made)
        except WorkbenchError as error:
            return panel("Everyday concepts", notice(explain(error), tone="error"))
    return None


_NULLS = (
    "A dictionary of this kind and size was trained whole (trained-alike), and again with a decoder or an encoder that "
    "stays as drawn at random, and on rows whose coordinates come from different tokens. A score counts where the 95 % "
    "interval of the whole one lies on the better side of every null and baseline."
)


def null_panel(workspace: Workspace, chosen: view.Entry) -> html.Section | None:
    """Return every score of a dictionary trained alike, beside those of null dictionaries."""
    for evaluation in view.evaluations(workspace, chosen.name):
        try:
            compared = evaluation.against_nulls()
        except WorkbenchError as error:
            return panel("Beside null dictionaries", notice(explain(error), tone="error"))
        if compared is not None:
            words = f"{compared.headline()}; each null was trained on {evaluation.settings.null_tokens:,} tokens."
            return panel(
                "Beside null dictionaries",
                verdict(words, html.P(_NULLS)),
                records_table(compared.to_records()),
                note=f"from the evaluation {evaluation.name}",
                className="wb-row",
                id="nulls",
            )
    return None


def _concept_table(scores: ConceptScores, artefact: str, made: list[Manifest]) -> html.Section:
    tables, shares = scores.features or next((m.name for m in made if m.kind == "features"), ""), scores.shares()
    sentences = [
        f"Features detect {part['dictionary']:.0%} of {len(scores.of_set(name))} concepts {words}; those of an "
        f"untrained dictionary {part['untrained']:.0%}, with shuffled labels {part['null']:.0%}."
        for name, words in _SETS.items()
        if (part := {key: share.estimate for key, share in shares.get(name, {}).items()})
    ]
    titles = ["concept", "feature", "F1", "95 %", "AUROC", *scores.rivals, "shuffled", "steering", "search"]
    head = html.Thead(html.Tr([html.Th(title, scope="col") for title in titles]))
    table = html.Table([head, html.Tbody([_concept(score, scores.rivals, tables) for score in scores.ranked()])],
                       className="wb-evidence wb-records")  # fmt: skip
    return panel(
        "Everyday concepts",
        verdict(sentences[0], *map(html.P, sentences[1:]), html.P(_CONCEPTS)) if sentences else None,
        html.Div(table, className="wb-scroll wb-concepts", tabIndex="0", **attrs({"aria-label": "Concepts"})),
        note=f"F1 of the best feature of each concept, from the evaluation {artefact}",
        className="wb-row",
        id="concepts",
    )


def _concept(score: ConceptScore, bases: Sequence[str], tables: str) -> html.Tr:
    concept, best, null, gain = score.concept, score.own, score.null, _two(score.steering)
    rivals = [(basis, score.detectors.get(basis)) for basis in bases]
    f1 = _two(best.f1.estimate)
    others = [
        html.Td(_two(at.f1.estimate), title=f"{basis} {at.unit}, AUROC {_two(at.auroc.estimate)}") if at else html.Td()
        for basis, at in rivals
    ]
    return html.Tr([
        html.Th(concept.name, scope="row", title=f"set: {concept.set}; class of words: {concept.kind}"),
        html.Td(quiet_link(str(best.unit), feature_href(tables, best.unit)) if tables else str(best.unit)),
        html.Td(html.Strong(f1) if best.f1.estimate >= GOOD_F1 else f1),
        html.Td(f"{_two(best.f1.low)} to {_two(best.f1.high)}"),
        html.Td(_two(best.auroc.estimate)),
        *others,
        html.Td(_two(null.estimate), title=f"95 %: {_two(null.low)} to {_two(null.high)}"),
        html.Td(html.Strong(gain) if score.steers else gain),
        html.Td(str(score.search_rank or "")),
    ])  # fmt: skip


def _two(value: Any) -> str:
    return "" if (scalar := number(value)) is None else f"{scalar:.2f}"
