"""Results print as short tables, show themselves in notebooks, become data frames, and have figures."""

import dataclasses
import importlib
import inspect
import math
import pkgutil
from dataclasses import fields
from functools import cache
from typing import Any

import make_monitor
import numpy as np
import pytest
import torch
from result_cases import DICTIONARIES, GEOMETRY, OTHERS, Case, cloud

import interp
import interp.studies as studies
import saes
from dashboard.figures import plot
from interp.artifacts import KINDS, Artefact, Table, as_json, open_artefact, save_artefact, verify
from interp.circuits.measure_heads import measure_heads
from interp.circuits.text_kinds import TEXT_KINDS
from interp.circuits.worst_case import AttackConfig
from interp.errors import ConfigError, CorruptError
from interp.names import HeadName
from interp.nulls import NullComparison
from interp.results import Result, table_lines
from interp.tracing.returning import Returning
from interp.workspace import Workspace
from saes.acts.features import SteeringVerdict
from saes.acts.heads import AblatedHead
from saes.features.search import FeatureHits, Hit
from tests.interp.circuit_tasks import planted_circuit
from workbench.demo import DATA


@cache
def model():
    return interp.load_model("planted:induction")


@cache
def task():
    return interp.make_task("induction", model(), n_prompts=8)


@cache
def evidence():
    return interp.find_induction_circuit(model(), interp.InductionConfig(seeds=(0, 1), prompts_per_seed=4))


@cache
def ablations():
    return interp.ablate(model(), task().clean, ["L0H0", "L1H0"])


@cache
def compositions():
    return interp.head_composition(model())


@cache
def scores():
    return interp.attribute_edges(model(), task())


@cache
def ranking():
    config = interp.EvaluationConfig(n_random=3, untrained=False)
    return interp.evaluate_circuit(model(), task(), scores(), config=config)


@cache
def found():
    evaluation = interp.EvaluationConfig(n_random=3, n_minimality=2, untrained=False)
    return interp.find_circuit(model(), task(), interp.FindConfig(verify=4, evaluation=evaluation))


@cache
def changed():
    base, tuned, on = (interp.load_model("small:mlp-1l", seed=0) for _ in range(3))
    with torch.no_grad():
        for other, size in ((tuned, 3.0), (on, 1e-3)):
            weight = next(p for name, p in other.named_parameters() if "mlp" in name and p.ndim == 2)
            weight += size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(1, 200, (8, 16), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        favoured = tuned(tokens)[:, -1].argmax(-1)
    behaviour = interp.log_prob_of_answers(tokens, favoured)
    return interp.what_changed(base, tuned, {"text": tokens}, continuations=[on] * 3, behaviour=behaviour, n_random=3)


CASES = {
    "found features": Case(
        lambda: FeatureHits(query="x", hits=(Hit(features="demo", feature=1, by="tokens", score=0.5, null=0.01),)),
        "label features feature match by convincing score null p density own matches"),
    "head scores": Case(
        lambda: interp.score_heads(
            model(), interp.HeadScoresConfig(n_prompts=4, context_length=15, min_lag=5, max_lag=7, seeds=(0, 1))
        ),
        "head layer kind score low high null null_high above_null",
        figure=True),
    "heads in a text": Case(
        lambda: measure_heads(
            model(), torch.arange(96).view(8, 12) % 8, torch.arange(96).view(8, 12) // 12,
            kinds={"copy_suppression": TEXT_KINDS["copy_suppression"]},
        ),
        "head entropy distance outside strongest copies copies_null kinds copy_suppression", figure=True),
    "induction evidence": Case(evidence, "head strict stripe sender by_keys by_queries p_holm induction", figure=True),
    "circuit": Case(lambda: evidence().circuit, "source target via position score", figure=True),
    "ablations": Case(ablations, "group kind loss_first_half loss_second_half low high n_heads", figure=True),
    "composition": Case(
        lambda: compositions()["k"], "source target via score null_mean null_high is_argmax", figure=True),
    "copying": Case(lambda: interp.head_copying(model(), [HeadName(1, 0)]), "head eigenvalue top1"),
    "found circuit": Case(found, "source target via position score", figure=True),
    "edge scores": Case(scores, "source target via position score"),
    "ranking": Case(ranking, "fraction n_edges faithfulness low high random"),
    "curve": Case(lambda: ranking().curve, "fraction n_edges faithfulness low high random", figure=True),
    "verified": Case(lambda: interp.verify_top_k(scores(), model(), task(), 4), "edge estimated exact"),
    "edge effect": Case(
        lambda: interp.measure_edge(model(), task(), found().circuit.edges[0], draws=2),
        "source target via share low high null p matters"),
    "circuit evaluation": Case(
        lambda: interp.evaluate_circuit(
            model(), task(), found().circuit,
            config=interp.EvaluationConfig(n_random=3, n_minimality=2, n_knockouts=2, untrained=False)),
        "full empty faithfulness ..."),
    "returning latents": Case(
        lambda: Returning(("feature:0:1:3",), np.ones((1, 2)), np.ones((1, 1))),
        "latent same other"),
    "logit lens": Case(
        lambda: interp.logit_lens(model(), task().clean[:1]),
        "layer position token reading probability entropy kl", figure=True),
    "token trajectory": Case(
        lambda: interp.follow_token(model(), task().clean[:1], 3), "layer position rank probability"),
    "direct attribution": Case(
        lambda: interp.direct_logit_attribution(model(), task().clean[:2], 3), "part value low high share",
        figure=True),
    "activation patching": Case(
        lambda: interp.activation_patching(model(), task(), what="z"), "layer head position token effect ...",
        figure=True),
    "path patching": Case(
        lambda: interp.path_patch(
            model(), task().clean, task().corrupt, lambda logits: logits[:, -1, 0], sender="L0H0",
            receivers=[("L1H0", "k")]),
        "prompt effect base"),
    "score explanation": Case(
        lambda: interp.explain_score(model(), task().clean[:1], "L1H0", query=10, key=5),
        "query_part key_part value relative", figure=True),
    "certificate": Case(
        lambda: interp.examine(model(), quick=True), "part name verdict did expected came means"),
    "circle test": Case(lambda: interp.circle_test(cloud(40), n_draws=99), "shape reason circular linear ..."),
    "what changed": Case(changed, "question text name place value low high null bound found words", figure=True),
    "grokking": Case(
        lambda: studies.describe_grokking(
            list(studies.train_modular(GROK)), GROK), "epoch seed train_loss test_loss ...", figure=True),
    "induction run": Case(
        lambda: studies.follow_induction("toy:induction-1l", steps=80, every=10),
        "step loss_first ...", figure=True),
    "onset of induction": Case(lambda: onset(), "spec seed onset together"),
    "patching map": Case(
        lambda: interp.measure_map(model(), task(), interp.PatchingConfig(what="z", draws=1)),
        "layer head effect stderr ...", figure=True),
    "monitor": Case(make_monitor.monitor, "name split auroc caught ...", figure=True),
    "worst case": Case(lambda: attacked(), "ablation wording what n_removed left low high lost", figure=True),
    "claim": Case(lambda: claimed(), "changed value low high null outcome seconds", figure=True),
    "ablated head": Case(lambda: AblatedHead("L0H1", beside_random(0.3), [0.4, 0.2], ["red", "blue"]), "head"),
    "verdict of steering": Case(
        lambda: SteeringVerdict(3, 0.5, 2.0, ["red"], beside_random(0.5), beside_random(0.7)),
        "feature strength amount",
    ),
    **GEOMETRY,
    **DICTIONARIES,
    **OTHERS,
}  # fmt: skip


def beside_random(value):
    return NullComparison(value, {"random heads": [0.1] * 19})


def attacked():
    few = AttackConfig(prompts=2, ablations=("resample",), exchanges=1, n_random=1, fractions=(0.5, 1.0))
    return interp.attack_circuit(model(), *task().split(2), planted_circuit(), few)


def claimed():
    from interp.claims import Claim, ClaimSettings, StatedNumber, VariationResult

    row = VariationResult(changed="seed 1", value=0.9, low=0.8, high=1.0, null=0.2, outcome="supported", seconds=1.0)
    file = ClaimSettings(sentence="It copies", subject="circuit", analysis="prove", settings={}, number="steer",
                     formula="rise", unit="nats", nulls=("5 random heads",), inputs={}, variations=({},))  # fmt: skip
    other = dataclasses.replace(row, changed="seed 2", null=math.nan, outcome="undecided", low=None, high=None)
    stated = StatedNumber(sentence="It copies", subject="circuit", formula="rise", unit="nats", value=0.9, low=0.8,
                          high=1.0, null=0.2, nulls=("5 random heads",), outcome="supported")  # fmt: skip
    return Claim(settings=file, stated=stated, variations=(row, other), changed_inputs=(), machine={"threads": "1"})


def onset():
    from interp.studies.induction_onset import InductionOnset, OnsetSettings

    run = instance("induction run")
    settings = OnsetSettings(specs=(run.spec,), seeds=(run.seed,), steps=80, every=10)
    return InductionOnset(settings=settings, runs=(run,))


GROK = studies.ModularConfig(p=11, epochs=40, log_every=10, seeds=(0, 1))


@cache
def instance(name: str) -> Any:
    return CASES[name].make()


def check(result: Any, columns: str) -> None:
    lines = str(result).splitlines()
    assert 0 < len(lines) <= 25, str(result)
    if type(result).__str__ is Result.__str__:  # others write whole sentences
        assert max(map(len, lines)) <= 120, str(result)
    assert repr(result) == str(result)
    html = result._repr_html_()
    assert html.startswith(("<p>", "<pre>"))
    assert len(html) < 20_000
    frame, expected = result.to_frame(), columns.split()
    assert len(frame) > 0
    if expected[-1] == "...":
        assert list(frame.columns)[: len(expected) - 1] == expected[:-1]
    else:
        assert list(frame.columns) == expected


@pytest.mark.parametrize("name", CASES)
def test_a_result_is_a_short_table_and_a_frame_with_its_columns(name):
    check(instance(name), CASES[name].columns)


def classes_of_results(base: type = Result) -> set[type]:
    """Return the concrete classes of results in the product, with all its modules imported."""
    found = set()
    for each in base.__subclasses__():
        own = each.__module__.split(".")[0] in ("interp", "saes")
        base_of_kinds = issubclass(each, Artefact) and not getattr(each, "kind", "")
        concrete = own and not base_of_kinds and not inspect.isabstract(each)
        found |= classes_of_results(each) | ({each} if concrete else set())
    return found


def test_a_result_says_itself_in_its_view_alone():
    readers = {"headline", "facts", "details", "shown"}
    said_twice = {each.__name__: own for each in classes_of_results() if (own := readers & vars(each).keys())}
    assert said_twice == {}, "yield it in `view()`"


def test_every_class_of_results_has_a_case():
    for package in (interp, saes):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    covered = {type(instance(name)) for name in CASES}
    missing = {f"{each.__module__}.{each.__name__}" for each in classes_of_results() - covered}
    assert missing == set(), "give it a small instance and its columns in CASES"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.figure])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_plot_draws_a_result(name, theme):
    figure = plot(instance(name), theme=theme)
    assert figure.data


def test_plot_of_a_value_without_a_figure_names_what_has_one():
    with pytest.raises(ConfigError, match=r"Copying has no figure.*Ablations.*Circuit.*HeadScores"):
        plot(instance("copying"))
    with pytest.raises(ConfigError, match="int has no figure"):
        plot(3)


def test_plot_takes_several_results_where_these_are_drawn_together():
    assert plot([ablations()]).data
    assert plot(compositions(), via="k").data


def test_plot_shows_the_kind_that_is_asked_for_and_refuses_others():
    scores = instance("head scores")
    shown = {kind: plot(scores, kind=kind).data[0].z for kind in ("induction", "previous_token")}
    assert np.allclose(shown["induction"], scores.score["induction"], atol=1e-6)
    assert np.allclose(shown["previous_token"], scores.score["previous_token"], atol=1e-6)
    with pytest.raises(ConfigError, match=r"induktion.*previous_token"):
        plot(scores, kind="induktion")


def test_a_table_says_what_it_leaves_out():
    lines = table_lines([{f"column{i}": i * row for i in range(40)} for row in range(30)])
    assert max(map(len, lines)) <= 120
    assert "18 more rows" in lines[-1]
    assert "column39" in lines[-1] or lines[-1].endswith("...")


def test_a_model_carries_the_spec_it_was_loaded_by():
    assert interp.model_spec(model()) == "planted:induction"
    assert evidence().circuit.model == "planted:induction"
    assert found().circuit.model == "planted:induction"
    assert interp.model_spec(interp.load_model("small:mlp-1l")) == "small:mlp-1l"


def same(one: Any, other: Any) -> bool:
    """Compare what two artefacts hold: tables by their columns, arrays by their numbers, the rest as it is stored."""
    if isinstance(one, Table):
        return one.arrow().to_pandas().equals(other.arrow().to_pandas())  # where NaN is NaN
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    return as_json(one) == as_json(other)


@cache
def artefacts() -> dict[str, Artefact]:
    return {name: value for name in CASES if isinstance(value := instance(name), Artefact)}


def test_every_kind_of_artefact_is_read_back_as_it_was_made(tmp_path):
    assert {type(value) for value in artefacts().values()} == {kind.load() for kind in KINDS.values()}
    for name, value in artefacts().items():
        save_artefact(value, tmp_path / name, seed=0)
        found = open_artefact(type(value), tmp_path / name)
        assert verify(found.folder) == [], name
        for each in fields(value):
            if each.name != "about":
                assert same(getattr(value, each.name), getattr(found, each.name)), (name, each.name)
        for say in ("headline", "facts", "details", "to_records"):
            assert as_json(getattr(found, say)()) == as_json(getattr(value, say)()), (name, say)


def test_every_kind_of_artefact_says_itself_in_at_most_20_words():
    shipped = [value for kind in KINDS.values() for value in Workspace(DATA).values(kind.load())]
    assert len(shipped) > 10
    for value in [*artefacts().values(), *shipped]:
        assert 3 <= len(value.headline().split()) <= 20, (value.kind, value.headline())


def test_a_damaged_table_of_any_kind_is_named_in_one_line(tmp_path, damage_file):
    seen = 0
    for name, value in artefacts().items():
        folder = save_artefact(value, tmp_path / name).folder
        for each in fields(value):
            if isinstance(getattr(value, each.name), Table):
                damage_file(folder / f"{each.name}.parquet")
                with pytest.raises(CorruptError, match=rf"cannot read .*{each.name}\.parquet: .*`workbench verify`"):
                    getattr(open_artefact(type(value), folder), each.name).arrow()
                seen += 1
    assert seen > 20
