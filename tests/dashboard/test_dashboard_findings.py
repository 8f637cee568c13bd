"""Findings on the overview: planted ones with their nulls, in order of strength, and none where nothing is learned."""

import dataclasses
import shutil
from pathlib import Path

import make_saes
import numpy as np
import pytest
from make_circuits import induction_circuit
from make_features import write_features
from make_geometry import geometry
from make_graph import SCORES, write_graph
from make_routes import write_routes
from make_saes import concept
from page_text import text_of

from dashboard.components.pages import page_of
from dashboard.data.workspace import stamp
from dashboard.overview._ask import asking
from dashboard.overview.page import MOST, Finding, findings, findings_panel
from interp.artifacts import Table, save_artefact
from interp.circuits.circuit import Circuit, Edge
from interp.circuits.head_scores import HeadScore, HeadScores, HeadSettings
from interp.geometry.sweeps import RotationSweep
from interp.geometry.word_geometry import WordGeometry
from interp.patching.patching_map import AblationEffect
from interp.statistics import Interval
from interp.tracing._influence import GraphScores
from interp.view import Dots
from interp.workspace import Workspace
from saes.evaluation.evaluation import ConceptScore, ConceptScores
from workbench.demo import DATA

MODEL = "model-x"


def row(name: str, feature: int, f1: float, low: float, *, null=0.25, p=None, **baselines: float) -> ConceptScore:
    others = {"neuron": 0.4, "component": 0.35, "coordinate": 0.3, "untrained": 0.3} | baselines
    shuffled = Interval(null / 2, 0.0, null)
    return concept(name, feature, Interval(f1, low, 1.0), null=shuffled, **others, steering=0.4, steering_p=p)


def evaluated(
    workspace: Workspace, rows: list[ConceptScore], *, better: int = 6, judge: Interval[float] | None = None
) -> None:
    """Write `rows`, and as many others as `better` in which the dictionary beats the untrained one, below the mark.

    `judge`: the share of them with shuffled labels; without it no share of the concepts was measured.
    """
    rows = rows + [row(f"low-{i}", 1, 0.6, 0.5) for i in range(better)]
    found = ConceptScores(scores=tuple(rows), null={"judge": judge} if judge else {}, features="table-x")
    make_saes.evaluated(workspace, "dictionary-x", name="e", concepts=found)


def described(workspace: Workspace) -> None:
    tokens = [f"t{i} " for i in range(60)]
    examples = [
        {"feature": 7, "activation": 5.0, "peak": 30, "tokens": tokens, "activations": [0.0] * 30 + [5.0] + [0.0] * 29},
        {"feature": 7, "activation": 9.0, "peak": 1, "tokens": [" in", " May"], "activations": [0.0, 9.0]},
    ]
    rows = [{"feature": 7, "label_kind": "word"}, {"feature": 8}]
    write_features(workspace, "table-x", rows, examples, dictionary="sae:dictionary-x")


def graph(
    workspace: Workspace, name: str, correlation: float, low: float, *, direct: float = 0.1, untrained: float = 0.2
) -> None:
    nodes = tuple(f"feature:0:1:{i}" for i in range(48))
    numbers = np.arange(48.0)
    effects = dataclasses.replace(
        SCORES["effects"], spearman=Interval(correlation, low, 1.0), direct_spearman=Interval(direct, 0.0, 0.9),
        nodes=nodes, predicted=numbers, measured=numbers,
    )  # fmt: skip
    scores = {"scores": GraphScores(0.5, 0.9), "untrained": GraphScores(untrained, 0.5), "effects": effects}
    write_graph(workspace, name, scores=scores)


def heads(workspace: Workspace, rows: list[tuple[float, bool]]) -> None:
    settings = HeadSettings(
        model=MODEL, weight_hash="aa", prompts=4, seeds=(0,), lags=(8, 16), context_length=32, bos=None
    )
    scores = [
        HeadScore(layer=0, head=i, kind=kind, score=score, low=score - 0.05, high=score + 0.05, null=0.02,
                  null_high=0.04, above_null=found)
        for kind in ("previous_token", "duplicate_token", "induction")
        for i, (score, found) in enumerate(rows)
    ]  # fmt: skip
    found = HeadScores(settings=settings, scores=Table.of(HeadScore, scores), per_prompt=None)
    save_artefact(found, workspace.path("heads", "h"))


def circuit(workspace: Workspace, *, found: bool, effect: float = -0.6, null: float = 0.1) -> None:
    made = induction_circuit(MODEL, 2, 2, ["a"])
    evidence = dataclasses.replace(
        made.circuit.edges[0].evidence, effect=effect, low=effect - 0.1, high=effect + 0.1, null_high=null
    )
    edges = (Edge("L0H0", "L1H1", "k", evidence=evidence),)
    groups = [("induction heads", 3.5, 4), ("random heads 1", 0.1, 4), ("random heads 2", 0.3, 4)]
    losses = {"kind": "mean", "loss_first_half": 0.0, "low": 0.0, "high": 1.0}
    rows = [AblationEffect(group=group, loss_second_half=loss, n_heads=n, **losses) for group, loss, n in groups]
    made = dataclasses.replace(
        made,
        circuit=Circuit.of(MODEL, "aa", edges),
        verdict=dataclasses.replace(made.verdict, holds=found),
        ablations=Table.of(AblationEffect, rows),
    )
    save_artefact(made, workspace.path("induction_circuit", "i"))


def of(root: Path, *fill) -> list[Finding]:
    workspace = Workspace(root, create=True)
    for each in fill:
        each(workspace)
    return list(findings(workspace, stamp(workspace)))


def test_a_concept_has_its_score_null_best_neuron_and_strongest_example(tmp_path):
    rows = [row("months", 7, 0.98, 0.9, p=0.01), row("colours", 3, 0.8, 0.75, neuron=0.7)]
    (best,) = of(tmp_path, described, lambda w: evaluated(w, rows))
    assert (best.title, page_of(best.href)) == ("A feature for months", "/sae?name=dictionary-x#concepts")
    assert "F1 0.98" in best.sentence
    assert "best neuron gets 0.40" in best.more
    assert "shuffled labels at most 0.25" in best.more
    assert "p 0.01" in best.more
    assert best.strength == pytest.approx(1 - 0.4 / 0.98)
    assert best.example == {"tokens": [" in", " May"], "activations": [0.0, 9.0], "peak": 1}
    unlabelled = [row("dates", 8, 0.99, 0.95, p=0.01), *rows]
    shown = of(tmp_path / "labels", described, lambda w: evaluated(w, unlabelled))
    assert [each.title for each in shown] == [best.title], "no label holds for feature 8"
    assert of(tmp_path / "few", described, lambda w: evaluated(w, rows, better=0)) == [], "two concepts may be chance"


@pytest.mark.parametrize(
    "weak",
    [
        row("below the mark", 1, 0.65, 0.6),
        row("no interval", 1, 0.9, float("nan")),
        row("the neuron does as well", 1, 0.9, 0.85, neuron=0.88),
        row("an untrained latent does as well", 1, 0.9, 0.85, untrained=0.86),
        row("so do shuffled labels", 1, 0.9, 0.7, null=0.75),
        concept("no baselines", 1, Interval(0.9, 0.8, 1.0), null=Interval(0.1, 0.0, 0.25)),
    ],
)
def test_a_concept_without_more_than_every_baseline_is_no_finding(tmp_path, weak):
    assert of(tmp_path, described, lambda w: evaluated(w, [weak])) == []


def test_the_strongest_of_each_kind_come_first_and_three_at_most(tmp_path):
    rows = [row(f"c{i}", 7, 0.9 + i / 100, 0.85) for i in range(6)]
    strong, weak = (lambda w: graph(w, "strong", 0.9, 0.5), lambda w: graph(w, "weak", 0.8, 0.5))
    fill = (described, lambda w: evaluated(w, rows), strong, weak, lambda w: circuit(w, found=True))
    found = of(tmp_path, *fill, lambda w: heads(w, [(0.9, True), (0.01, False)]))
    assert len(found) == MOST
    assert [each.kind for each in found] == ["graph", "circuit", "head"]
    without = of(tmp_path / "without", *fill)
    assert [each.kind for each in without] == ["graph", "circuit", "concept"]
    assert without[2].title == "A feature for c5"
    assert page_of(without[0].href) == "/graph/strong"
    assert len(without[0].dots.x) == len(without[0].dots.y) == 48
    picture = without[1].dots
    assert (without[1].value, without[1].null) == (max(picture.x), picture.x[-1]), "the numbers of the card are drawn"
    assert picture.null * 2 == len(picture.x) == len(picture.y) == len(picture.texts)
    assert page_of(without[1].href) == "/circuit/induction-circuits/i?at=L0H0-k-L1H1"
    assert "random heads by at most 0.3" in without[1].more


def test_pictures_of_different_looks_come_first_then_kinds_by_what_they_tell(tmp_path, monkeypatch):
    def finding(kind: str, strength: float, **picture: object) -> Finding:
        return Finding(
            kind=kind, title=kind, sentence="", value=1.0, null=1 - strength, about="", proof="", href="/", **picture
        )  # fmt: skip

    plane, axes = (Dots(x=(0.0,), y=(0.0,), across=across) for across in ("", "layer"))
    every = [
        finding("map", 0.9, dots=plane), finding("dictionary", 1.0, dots=axes), finding("graph", 0.5, dots=axes),
        finding("onset", 0.9, dots=axes), finding("head", 0.2, grid=((0.5,),)), finding("map", 0.95, dots=plane),
    ]  # fmt: skip
    monkeypatch.setattr("dashboard.overview.page._found", lambda workspace: iter(every))
    chosen = findings(Workspace(tmp_path, create=True), "different looks")
    kinds = [(each.kind, round(each.strength, 2)) for each in chosen]
    assert kinds == [("graph", 0.5), ("head", 0.2), ("map", 0.95)]
    every[:] = [each for each in every if each.kind != "head"]
    chosen = findings(Workspace(tmp_path), "two looks")
    assert [each.kind for each in chosen] == ["graph", "map", "dictionary"], "then the strongest of the others"


def test_a_labelled_feature_is_shown_with_its_words_and_its_example(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    (found,) = [each for each in findings(Workspace(DATA), "shipped") if each.kind == "feature"]
    assert found.example["activations"][found.example["peak"]] > 0
    assert found.title.startswith("A feature for ")
    assert found.value > found.null
    described(workspace)
    assert findings(workspace, "no score") == ()


def test_a_ring_that_the_model_uses_is_a_finding_and_one_that_it_does_not_use_is_none(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    geometry(workspace, "words")
    words = workspace.open(WordGeometry, "words")
    name, ring = next((name, each) for name, each in words.lists.items() if each.shape.verdict == "circle")
    assert isinstance(ring.rotation, RotationSweep)
    used = dataclasses.replace(ring.rotation, overall=Interval(0.9, 0.7, 1.1), random_high=0.2)
    (found,) = _ring(words, name, used, workspace)
    assert (found.value, found.null) == (0.9, 0.2)
    assert page_of(found.href).endswith(f"&list={name}#rotation"), "its proof is scrolled to"
    assert found.dots.texts == ring.shape.words
    idle = dataclasses.replace(ring.rotation, overall=Interval(0.9, 0.1, 1.1), random_high=0.2)
    assert _ring(words, name, idle, workspace) == []


def _ring(words: WordGeometry, name: str, rotation: RotationSweep, workspace: Workspace) -> list[Finding]:
    lists = {name: dataclasses.replace(words.lists[name], rotation=rotation)}
    folder = workspace.path("word_geometry", f"low-{rotation.overall.low}")
    return save_artefact(WordGeometry(settings=words.settings, lists=lists), folder).findings()


def test_a_dictionary_that_detects_more_concepts_than_every_baseline_is_a_finding(tmp_path):
    rows = [row(f"c{i}", 7, 0.9, 0.5, neuron=0.8 if i < 5 else 0.1, null=0.6) for i in range(20)]
    (found,) = of(tmp_path, lambda w: evaluated(w, rows, better=0, judge=Interval(0.05, 0.0, 0.1)))
    assert (found.kind, found.value, found.null, page_of(found.href)) == (
        "dictionary",
        1.0,
        0.25,
        "/sae?name=dictionary-x#concepts",
    )
    assert "100% of 20 held-out concepts" in found.sentence
    assert found.dots.y == (0.9,) * 20
    assert found.dots.x == (0.8,) * 5 + (0.35,) * 15
    assert "25% have a neuron, 0% a latent of an untrained dictionary" in found.sentence


def test_untrained_models_and_dictionaries_give_no_finding(tmp_path):
    """The dictionary and its untrained baseline have scores of one distribution, as two untrained ones do."""
    rng = np.random.default_rng(0)
    for number in range(5):
        scores = np.clip(rng.normal(0.5, 0.15, (60, 5)), 0.01, 1)
        rows = [row(f"c{i}", 7, f1, max(f1 - 0.15, 0.0), neuron=a, untrained=b, null=max(c, d))
                for i, (f1, a, b, c, d) in enumerate(scores.tolist())]  # fmt: skip
        shuffled = Interval(0.0, 0.0, 0.0)
        found = of(
            tmp_path / str(number), described, lambda w: evaluated(w, rows, better=0, judge=shuffled),  # noqa: B023
            lambda w: graph(w, "untrained", 0.62, 0.5, untrained=0.6),
            lambda w: graph(w, "direct", 0.7, 0.5, direct=0.8),
            lambda w: graph(w, "not-confirmed", 0.9, 0.2), lambda w: heads(w, [(0.06, False), (0.3, False)]),
            lambda w: circuit(w, found=False),
        )  # fmt: skip
        assert found == []
    assert of(tmp_path / "not-beyond", lambda w: circuit(w, found=True, effect=-0.15, null=0.1)) == []


def test_a_damaged_artefact_hides_its_own_kind_only(tmp_path):
    def broken(workspace: Workspace) -> None:
        graph(workspace, "g", 0.9, 0.5)
        (workspace.path("attribution_graph", "g") / "effects.json").write_text("{")

    found = of(tmp_path, broken, lambda w: heads(w, [(0.9, True)]))
    assert [each.kind for each in found] == ["head"]


def test_the_overview_shows_them_and_follows_the_workspace(server, workspace, small, monkeypatch):
    monkeypatch.setattr("dashboard.overview.page.MOST", 9)
    before = findings(small, stamp(small))
    graph(small, "new", 0.95, 0.9)
    after = findings(small, stamp(small))
    assert {page_of(each.href) for each in after} - {page_of(each.href) for each in before} == {"/graph/new"}
    shown = text_of(findings_panel(after))
    assert "Found here" in shown
    assert all(page_of(each.href) in shown and each.proof in shown for each in after)
    assert findings_panel(()) is None


def test_the_overview_draws_the_routes_named_capital_else_the_newest_and_names_the_others(tmp_path):
    workspace = Workspace(tmp_path, create=True)
    assert "data-routes-source" not in text_of(asking(workspace))
    for name in ("capital", "romeo"):
        write_routes(workspace, name)
    shown = text_of(asking(workspace))
    assert '"data-routes-source": "/api/artefact?key=routes/capital"' in shown
    assert "Answered already" in shown
    assert "/prompt?routes=romeo" in shown
    shutil.rmtree(workspace.path("routes", "capital"))
    shown = text_of(asking(workspace))
    assert '"data-routes-source": "/api/artefact?key=routes/romeo"' in shown
    assert "Answered already" not in shown
