"""Small instances of the results of geometry, dictionaries and saved artefacts, for `test_results.py`."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import make_counterparts
import make_routes
import make_saes
import numpy as np
import torch
from planted import HOOK, write_recording
from planted_pair import perfect_dictionaries, planted_pair, planted_task

import interp
import saes

SENTENCES = ("x {word}", "so {word}", "and {word}", "it is {word}")
LAYER = "blocks.0.hook_resid_post"
METHOD = "method distance accuracy shuffled shuffled_high n_train n_heldout seed"
ALONG = "name separation auc p plane_share random_plane_share random_plane_high"


@dataclass(frozen=True)
class Case:
    """One class of results."""

    make: Callable[[], Any]
    columns: str
    """of `to_frame`; `...` at the end: and others"""
    figure: bool = False


@cache
def folder(name: str) -> Path:
    """Return a folder that is removed when the process ends."""
    return Path(_scratch().name) / name


@cache
def _scratch() -> TemporaryDirectory:
    return TemporaryDirectory(prefix="results-")


@cache
def cloud(n: int = 300, d: int = 6) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, d))


@cache
def small():
    return interp.load_model("small:mlp-2l", seed=0)


@cache
def text() -> torch.Tensor:
    return torch.randint(97, 123, (40, 16), generator=torch.Generator().manual_seed(0))


# Words in a model


@cache
def letters():
    from interp.geometry.words import WordList

    successors = ("x {word} ", "then {word} ")
    return [
        WordList(name="capitals", words=tuple(string.ascii_uppercase[:9]), cyclic=False),
        WordList(name="small letters", words=tuple(string.ascii_lowercase[:9]), cyclic=True, successors=successors),
    ]


@cache
def word_lists():
    from interp.geometry.points import ShapesConfig
    from interp.geometry.report import measure_concepts

    return measure_concepts(small(), letters(), ShapesConfig(n_random=1), sentences=SENTENCES)


def concepts():
    return word_lists().lists["small letters"]


@cache
def direction():
    from interp.geometry.words import own_concept

    towards, away = (each.words for each in letters())
    named = interp.direction_of_words(small(), towards, away, LAYER, sentences=SENTENCES)
    digits = own_concept("digits", "0123456789", cyclic=False)
    config = interp.DirectionConfig(n_random=2, n_judging=3)
    return interp.measure_direction(small(), named, [*letters(), digits], config, sentences=SENTENCES)


@cache
def variant():
    from interp.directions._variants import Variant

    accuracy = interp.direction_of_words(small(), "abcd", "EFGH", LAYER, sentences=SENTENCES).accuracy
    return Variant(accuracy=accuracy, untrained=0.5, cosine=1.0)


@cache
def words():
    names = ["man", "woman", "king", "queen", "boy", "girl", "dog", "tree"]
    return interp.WordVectors(names, cloud(len(names)))


def binary():
    """Points with a label along the first coordinate, and which of them are held out."""
    label = np.arange(300) % 2
    points = cloud() + 3 * label[:, None] * np.eye(6)[0]
    return points, label, np.arange(300) % 4 > 1


@cache
def found_directions():
    from interp.geometry.probes import concept_directions

    return concept_directions(*binary())


def dimension():
    return interp.intrinsic_dimension(cloud())


def clouds():
    from interp.geometry.similarity import compare_clouds

    return compare_clouds(cloud()[:50], cloud()[50:100], n_splits=2, n_relabelled=19)


@cache
def compared_spaces():
    return interp.compare_spaces(text(), small(), n_points=300, batch=100, n_shuffles=9)


GEOMETRY = {
    "nearest words": Case(
        lambda: words().nearest("man", k=3), "query word cosine variant random random_high"),
    "analogies": Case(
        lambda: words().relation([("man", "woman"), ("king", "queen"), ("boy", "girl")]),
        "accuracy c_alone shuffled shuffled_high n seed"),
    "intrinsic dimension": Case(dimension, "estimator dimension low high gaussian k n"),
    "estimate of dimension": Case(lambda: dimension().estimates[0], "estimator dimension low high gaussian k n"),
    "spectrum": Case(
        lambda: interp.spectrum(cloud()),
        "n d cosine_raw cosine_centred mean_share participation_ratio note seed components.50 components.90 "
        "components.99 isotropic.participation_ratio ...", figure=True),
    "similarity": Case(
        lambda: interp.cka(cloud(), cloud() ** 2, n_shuffles=19), "measure value null p n n_shuffles seed"),
    "distance of clouds": Case(clouds, "between floor excess p size n_splits seed"),
    "layer similarity": Case(
        lambda: compared_spaces().cka, "first second cka error shuffled", figure=True),
    "space comparison": Case(compared_spaces, "first second cka cka_error cka_null procrustes ..."),
    "space": Case(
        lambda: interp.measure_space(small(), text(), [LAYER], n_points=200),
        "space n d cosine cosine_centred mean_share participation_ratio isotropic ..."),
    "directions of a concept": Case(found_directions, METHOD),
    "direction of a concept": Case(lambda: found_directions()["probe"], METHOD),
    "erasure": Case(
        lambda: interp.erasure(*binary()), "before after before_heldout after_heldout base_rate ..."),
    "word lists": Case(
        word_lists, "list verdict hook_point circular p_circular linear p_linear smallest_p silhouette p_cluster ..."),
    "geometry of a list": Case(
        concepts,
        "layer hook_point chosen circular linear silhouette probe_accuracy probe_low probe_high base_rate control "
        "selectivity"),
    "shape": Case(
        lambda: concepts().shape, "layer hook_point chosen circular linear silhouette", figure=True),
    "plane": Case(lambda: concepts().shape.plane, "share isotropic_share"),
    "cluster test": Case(
        lambda: concepts().shape.cluster, "name silhouette null null_high p layer n n_deals seed"),
    "probe": Case(lambda: concepts().probes[0], "hook_point accuracy low high base_rate control selectivity ..."),
    "strength sweep": Case(
        lambda: concepts().steering,
        "strength effect low high side_effect side_low side_high random random_high random_side_effect", figure=True),
    "rotation sweep": Case(
        lambda: concepts().rotation, "step effect low high random random_high swapped followed", figure=True),
    "geometry of a direction": Case(direction, ALONG, figure=True),
    "accuracy of a direction": Case(lambda: direction().accuracy, METHOD),
    "steering by layer and strength": Case(
        lambda: direction().choice, "hook_point strength effect random random_high damage wrong"),
    "method of a direction": Case(variant, f"{METHOD} untrained cosine"),
    "tokens along a direction": Case(lambda: direction().reading, "token logit random random_high"),
    "words along a direction": Case(lambda: direction().along, ALONG, figure=True),
    "list along a direction": Case(lambda: direction().along.lists[0], "word place low high counted"),
    "probe along a direction": Case(
        lambda: direction().probes[0], "hook_point accuracy low high base_rate control selectivity ..."),
}  # fmt: skip


# Dictionaries


@cache
def synthetic():
    """Return data of known features and a recording of it."""
    from saes.evaluation.synthetic import write_synthetic

    data = saes.SyntheticData(saes.SyntheticConfig(n_features=16, d=8), seed=0)
    return data, write_synthetic(data, folder("synthetic"), n_rows=4000)


@cache
def untrained_pair():
    from saes.evaluation.baselines import untrained_sae
    from saes.evaluation.synthetic import HOOK_POINT

    return {name: untrained_sae(synthetic()[1], HOOK_POINT, d_sae=16, k=2) for name in ("one", "two")}


def evaluated():
    return saes.evaluate_on_recording(untrained_pair()["one"], synthetic()[1])


def evaluated_in_model():
    model, dictionary = planted_pair(), perfect_dictionaries()[0]
    return saes.evaluate_in_model(dictionary, model, planted_task(model, n=12).clean)


def against_nulls():
    from saes.evaluation.nulls import WHOLE, DictionaryAgainstNulls, NullScore, reconstruction_scores
    from saes.training.config import NULLS

    scores = {name: NullScore(heldout=evaluated(), in_model=None) for name in (WHOLE, *NULLS, "pca")}
    return DictionaryAgainstNulls(scores=tuple(reconstruction_scores(scores)))


def probing():
    from saes.evaluation.probing import planted_tasks

    config = saes.ProbingConfig(n_train=300, n_test=300, ks=(1, 2), seeds=(0,))
    return saes.probe(untrained_pair(), synthetic()[1], planted_tasks(synthetic()[1], 2), config=config)


def absorption():
    """Return the absorption of five orthogonal classes whose dictionary is their directions."""
    from saes.evaluation.absorption import ClassedActivations
    from saes.kinds.base import SAEMetadata, Weights
    from saes.kinds.l1 import ReLUSAE

    label = np.arange(1000) % 5
    noise = 0.01 * torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))
    examples = ClassedActivations(
        torch.eye(5)[label] + noise, label, np.arange(1000) // 5, [f"class {i}" for i in range(5)]
    )
    eye, zero = torch.eye(5), torch.zeros(5)
    dictionary = ReLUSAE(Weights(eye, zero - 0.1, eye, zero), metadata=SAEMetadata(hook_point=HOOK))
    return saes.measure_absorption({"true": dictionary}, examples, saes.AbsorptionConfig(seeds=(0,)))["true"]


def detected_concepts():
    """Return concepts that every basis detects."""
    from interp.statistics import Interval
    from saes.evaluation.evaluation import BASES, ConceptScore, ConceptScores, Detector
    from saes.evaluation.scores import read_concepts

    found = Detector(unit=3, sign=1, threshold=0.5, f1=Interval(1.0, 0.9, 1.0), auroc=Interval(1.0, 0.9, 1.0))
    each = {"detectors": dict.fromkeys(BASES, found), "null": Interval(0.2, 0.1, 0.3)}
    scores = tuple(ConceptScore(concept=concept, **each) for concept in read_concepts().concepts)
    return ConceptScores(scores=scores, null=dict.fromkeys(("choose", "judge"), Interval(0.0, 0.0, 0.0)))


def scaling():
    from saes.evaluation.scaling import Law, ScalingRun

    law = Law(alpha=0.2, beta_k=-0.3, beta_n=-0.12, gamma=-0.01)
    runs = [ScalingRun(n=n, k=k, seed=0, loss=law.loss(n, k)) for n in (256, 512, 1024) for k in (16, 32)]
    return saes.fit_scaling(runs, n_bootstrap=2)


def model_difference():
    """Return the comparison of two models by a crosscoder whose latents are drawn at random."""
    from saes.kinds.base import Weights
    from saes.kinds.crosscoder import CrosscoderSAE

    recordings = [
        write_recording(
            folder(name), torch.randn(400, 4, generator=torch.Generator().manual_seed(seed)), torch.ones(400),
            torch.arange(400) // 40, context_length=40, shard_contexts=100, weight_hash=name[0] * 64,
        )
        for seed, name in enumerate(("base", "tuned"))
    ]  # fmt: skip
    drawn = torch.randn(6, 8, generator=torch.Generator().manual_seed(2))
    sites = [
        {"model": r.folder.name, "recording": r.folder.name, "weight_hash": r.weight_hash, "hook_point": HOOK,
         "d": 4}
        for r in recordings
    ]  # fmt: skip
    weights = Weights(drawn.T.contiguous(), torch.zeros(6), drawn, torch.zeros(8))
    crosscoder = CrosscoderSAE(weights, threshold=torch.zeros(6), scales=torch.ones(2), sites=sites)
    return saes.compare_models(crosscoder, recordings, split="all")


def feature_effects():
    model = planted_pair()
    prompts = saes.MeasuredPrompts.of_task(planted_task(model))
    return saes.attribute_features(model, perfect_dictionaries()[:1], prompts)[0]


@cache
def graph():
    config = interp.TraceConfig(effects=4, max_feature_nodes=64, nulls=False)
    return interp.trace(small(), "abca", interp.Neurons(), config)


def intervention():
    system = interp.open_system(small(), interp.to_tokens(small(), "abca"), interp.Neurons())
    best = next(row["node"] for row in graph().to_records() if row["kind"] == "feature")
    return interp.intervene(system, interp.changes_of(graph(), [best]), graph(), n_random=3)


def continued():
    system = interp.open_system(small(), interp.to_tokens(small(), "abca"), interp.Neurons())
    best = next(row["node"] for row in graph().to_records() if row["kind"] == "feature")
    return interp.continuations(system, interp.changes_of(graph(), [best]), n_tokens=2, n_random=1)


def edge_split():
    system = interp.open_system(small(), interp.to_tokens(small(), "abca"), interp.Neurons())
    rows, position = graph().edge_records(), {node.id: node.position for node in graph().nodes}
    crossing = next(row for row in rows if position[row["source"]] != position[row["target"]])
    return interp.split_edge(system, graph(), crossing["source"], crossing["target"])


def reasons():
    system = interp.open_system(small(), interp.to_tokens(small(), "abca"), interp.Neurons())
    return interp.attention_reasons(system, graph(), "L1H0", query=3, key=1)


def loadings():
    system = interp.open_system(small(), interp.to_tokens(small(), "abca"), interp.Neurons())
    return interp.head_loadings(system, graph())


@cache
def groups():
    from interp.tracing.supernodes import Supernode, judge_groups, latents

    names = [node.id for node in latents(graph())][:4]
    made = (Supernode("one", tuple(names[:2])), Supernode("other", tuple(names[2:])))
    rng = np.random.default_rng(0)
    return judge_groups(graph(), made, lambda nodes: rng.standard_normal((len(nodes), 4)), n_random=19)


def variants():
    from interp.tracing.trace import trace_variants

    words = {"a": "x", "b": "y", "c": "z"}
    return trace_variants(small(), "say {}", words, interp.Neurons(), interp.TraceConfig(max_feature_nodes=32))


@cache
def proof():
    from saes.features.case import ProofWords
    from saes.features.proof import Proof, ProofPart, ProofSettings, measure_of

    nulls = (np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    measures = measure_of("ablate", 2.0, "nats", 4, nulls), measure_of("lists", 0.5, "", 7, nulls)
    return Proof(
        settings=ProofSettings(features="toy", feature=3, model="toy"), label="", words=ProofWords((3,), ("three",)),
        hook_point=LAYER, strength=1.0, lens="", alike=tuple(range(9)),
        parts={each.name: ProofPart(measures=(each,)) for each in measures},
    )  # fmt: skip


PROVED = (
    "measure value low high unit n random_mean random_high p_random alike_mean alike_high p_alike "
    "untrained_mean untrained_high p_untrained tested"
)

DICTIONARIES = {
    "evaluation": Case(evaluated, "n_tokens l0 fvu dead_fraction ..."),
    "evaluation in the model": Case(evaluated_in_model, "n_tokens ce_clean ce_spliced ce_zero ce_mean ..."),
    "dictionaries compared": Case(
        lambda: saes.compare(untrained_pair(), synthetic()[1], truth=synthetic()[0]),
        "name architecture d_sae baseline L0 FVU ..."),
    "against nulls": Case(lambda: against_nulls(), "score trained-alike ..."),
    "recovery": Case(
        lambda: saes.measure_recovery(untrained_pair()["one"], synthetic()[0], n_rows=500),
        "n_rows mcc mcc_random ..."),
    "shared latents": Case(
        lambda: saes.match_features(*untrained_pair().values()).shares,
        "shared shared_random mean_cosine mean_cosine_random"),
    "shared features": Case(lambda: saes.match_features(*untrained_pair().values()), "first second cosine"),
    "decoder cosines": Case(
        lambda: saes.decoder_cosines(untrained_pair()["one"].decoder_directions),
        "nearest nearest_random near_copies"),
    "probing": Case(probing, "dictionary k task accuracy low high control selectivity auroc"),
    "absorption": Case(absorption, "name probe_f1 main main_f1 n full fraction"),
    "concepts of a dictionary": Case(detected_concepts, "concept set class feature threshold f1 f1_low f1_high ..."),
    "scaling of dictionaries": Case(scaling, "name n k seed loss law"),
    "model difference": Case(
        model_difference, "feature kind relative_norm cosine n_fired error_ratio recons_ratio confirmed"),
    "effects of features": Case(feature_effects, "prompt position feature activation effect"),
    "attribution graph": Case(
        graph, "node kind layer position index activation influence share kept probability label effects", figure=True
    ),
    "intervention on a graph": Case(intervention, "token before after"),
    "continuations of a graph": Case(continued, "run text"),
    "edge of a graph": Case(edge_split, "head position token effect attention", figure=True),
    "head loadings of a graph": Case(loadings, "head loading"),
    "reasons of a head": Case(reasons, "query_node key_node relative"),
    "groups of a graph, judged": Case(groups, "name latents agreement random random_high p"),
    "template of graphs": Case(variants, "source target mean low high same_sign n"),
    "proof of a feature": Case(proof, PROVED + " p_holm holds", figure=True),
    "measure of a feature": Case(lambda: proof().measures[0], PROVED),
}  # fmt: skip


# Maps, lenses, artefacts


def map_quality():
    from interp.atlas.neighbours import measure_quality

    points = torch.from_numpy(cloud()).float()
    generator = torch.Generator().manual_seed(0)
    return measure_quality(points, cloud()[:, :2].astype(np.float32), metric="euclidean", generator=generator)


def vector_map():
    from interp.atlas.sources import AtlasSource

    at = np.arange(300) % 3
    vectors = torch.from_numpy(cloud() + 12 * np.eye(6)[at]).float()
    labels = [f"{('river', 'engine', 'violin')[i]} {n}" for n, i in enumerate(at)]
    items = {"items": np.arange(300), "values": np.zeros(300), "value_name": "none", "item_kind": "index"}
    return interp.build_atlas(AtlasSource(vectors=vectors, source="file:x", labels=labels, **items))


def recorded():
    documents = [interp.text.corpora.Document("a text of some words " * 20, "a", "")]
    config = interp.RecordConfig(tokens=200)
    return interp.record(small(), documents, folder("recorded"), config, hook_points=["hook_embed"])


def trained_set():
    """Return a set of two layers, hardly scored."""
    from saes.sets.stored import LayerScores, SetScores, StoredSet, TrainedSetSettings

    of = make_saes.settings(64, 8, kind="batchtopk")
    same = {"model": of.model, "weight_hash": of.weight_hash, "recording": of.recording, "recording_hash": "aa"}
    places = {"reads": "mlp.hook_in", "writes": "hook_mlp_out", "layers": (0, 1)}
    layers = tuple(LayerScores(layer=n, fvu=0.3, l0=8.0, dead_fraction=0.0, dense_fraction=0.0) for n in (0, 1))
    return StoredSet(
        settings=TrainedSetSettings(sae=of.sae, train=of.train, skip=False, **same, **places),
        **places,
        cross_layer=False,
        d_sae=64,
        training=make_saes.stored(of, fvu=0.3, l0=8.0).training,
        scores=SetScores(n_tokens=900, layers=layers, loss=None),
        format="",
        checks=(),
    )


@cache
def tuned_lens():
    config = interp.TunedLensConfig(steps=3, positions=16, heldout_positions=32)
    return interp.train_tuned_lens(small(), text(), text()[:8], config)


@cache
def jacobian_lens():
    config = interp.JacobianLensConfig(rounds=2, skip=1, heldout_positions=32)
    return interp.fit_jacobian_lens(small(), text(), text()[:8], config)


@cache
def described():
    """Return a workspace with features and their labels."""
    from make_workspace import build

    return build(folder("described"), n_features=40, n_points=40)


def features():
    from saes.features.schema import Features

    return described().open(Features, "demo")


def labels():
    from saes.features.written_labels import Labels

    return described().open(Labels, "demo-judge")


def neurons():
    from interp.artifacts import Table
    from saes.features.neurons import NeuronExample, NeuronLabels, NeuronRow, NeuronSettings

    about = NeuronSettings(model="m", weight_hash="aa", recording="r", lens=None, window=5, examples=2, prompts=0)
    rows, examples = Table.of(NeuronRow, []), Table.of(NeuronExample, [])
    return NeuronLabels(settings=about, n_layers=2, d_mlp=8, n_tokens=100, n_confirmed=0, rows=rows, examples=examples)


OTHERS = {
    "counterparts": Case(make_counterparts.counterparts, "side feature counterpart correlation ..."),
    "neurons": Case(neurons, "n_layers d_mlp n_tokens n_confirmed"),
    "features": Case(features, "n_features n_tokens n_dead n_dense mean_l0 ..."),
    "labels": Case(labels, "feature label label_source statistics_label"),
    "map quality": Case(map_quality, "trustworthiness continuity recall triplets k sample"),
    "atlas": Case(vector_map, "region level parent label size x y"),
    "recording": Case(recorded, "n_real n_documents tokens_per_second ranks rounding"),
    "dictionary": Case(
        lambda: make_saes.stored(make_saes.settings(64, 8), fvu=0.2, l0=8.0), "d_in d_sae architecture ..."),
    "set of transcoders": Case(trained_set, "layer fvu l0 dead_fraction dense_fraction"),
    "evaluation of a dictionary": Case(lambda: make_saes.evaluation("demo"), "n_tokens l0 fvu ..."),
    "tuned lens": Case(tuned_lens, "hook_point kl_logit kl_tuned"),
    "routes": Case(make_routes.make_routes, "from to effect usual layers carries strength null"),
    "Jacobian lens": Case(
        jacobian_lens, "hook_point agreement gain kl_logit kl_tuned kl_uncentred kl_jacobian kl_mean ...", figure=True
    ),
    "manifest": Case(
        lambda: synthetic()[1].manifest,
        "kind name created seconds seed content_hash ..."),
}  # fmt: skip
