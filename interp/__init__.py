"""A model you can hook, what it computes, and how.

    from interp import load_model, score_heads

    print(score_heads(load_model("smollm2-135m")))

The names below are public and stable; importing this package loads none of them before it is used.
Everything else may move. Results print as short tables and have `to_frame()`.

Subjects, one folder each:

- `models`     loading, hooks, norms, the residual sum; small, planted and toy models; training them
- `text`       documents, packing, tokens
- `engines`    what runs a model for a recording: TransformerLens' bridge, or vLLM
- `recording`  activations on disk: written, resumed, read in order or shuffled
- `lenses`     logit lens, tuned lens, direct logit attribution
- `interventions` what is changed in a model while it runs, as a value; recipes of it
- `patching`   tasks and their metrics; ablation, activation patching, path patching
- `doctor`     a set-up examined by experiments before its numbers are believed
- `circuits`   head kinds and scores, induction, tasks by name, edge attribution, discovery, evaluation
- `routes`     why a model answers: edges between words of a prompt, cut and swapped
- `directions` a direction made from a description, its layer and strength chosen and judged
- `geometry`   shapes of word lists, dimension, similarity, transport
- `atlas`      maps of vectors, their quality, regions and labels
- `tracing`    attribution graphs: why a model says what it says on one prompt
- `changes`    two checkpoints of one model compared
- `studies`    small models that teach one thing each: its own public names

Foundations, without any analysis:

- `errors`      one tree of exceptions
- `departed`    names that left before 1.0, and what serves instead
- `names`       heads, nodes and hook points, parsed and written
- `workspace`   the folder of folders that scripts, notebooks and the dashboard share
- `artifacts`   one folder per result: manifest, hashes, work in progress
- `registry`    kinds of artefact, each registered by its package, below
- `devices`     device, dtype and memory
- `threads`     CPU threads of torch and numba, blocks of work on them
- `seeds`       one seed, a generator for each stream of randomness
- `cache`       the user's cache folder, locks on folders
- `packages`    versions of packages; public names that load when they are asked for
- `ranks`       several processes
- `progress`    the type of progress callbacks, and reports to the process that started this one
- `statistics`  intervals, tests, correlations
- `claims`      a claim as a file: its number, nulls, variations and the rule of its verdict
- `nulls`       kinds of null, their counts by level, p-values, Holm's correction, words of a verdict
- `acts`        the base of acts: a question to a model, as a value
- `results`     the base of results: table, data frame
- `view`        what a result says of itself, in blocks
- `notes`       stars, names, texts, lists and recipes of a workspace, in one JSON file
- `dictionary`  the protocol of a dictionary of features
- `forms`       JSON checked against a class
- `options`     what the text of an option names
"""

from typing import TYPE_CHECKING

from interp.packages import lazily
from interp.registry import Kind, register

if TYPE_CHECKING:
    from interp.artifacts import Manifest, copy_artefact, open_artefact, save_artefact
    from interp.atlas.build import MapSettings, build_atlas, build_series, extend_atlas
    from interp.atlas.layout import place_points
    from interp.atlas.sources import embedding_source, recording_source
    from interp.changes.report import what_changed
    from interp.changes.transplant import log_prob_of_answers
    from interp.circuits.attack import attack_circuit
    from interp.circuits.attribution import attribute as attribute_edges
    from interp.circuits.attribution import verify_top_k
    from interp.circuits.circuit import Circuit
    from interp.circuits.config import EvaluationConfig, FindConfig, HeadScoresConfig, InductionConfig
    from interp.circuits.edge_effect import measure_edge
    from interp.circuits.find import evaluate as evaluate_circuit
    from interp.circuits.find import find_circuit
    from interp.circuits.graph import Graph
    from interp.circuits.head_kinds import score_heads
    from interp.circuits.head_weights import composition as head_composition
    from interp.circuits.head_weights import copying as head_copying
    from interp.circuits.heads_in_text import HeadsInTextConfig
    from interp.circuits.induction import find_induction_circuit
    from interp.circuits.measure_heads import measure_heads
    from interp.circuits.score_explanation import explain_score
    from interp.circuits.tasks import make_task
    from interp.circuits.text_kinds import TextKind, keys_where
    from interp.directions.config import DirectionConfig
    from interp.directions.examples import read_examples
    from interp.directions.files import read_directions, write_directions
    from interp.directions.making import make_direction
    from interp.directions.meaning import measure_direction
    from interp.directions.named import direction_of_words
    from interp.doctor.certificate import Certificate
    from interp.doctor.examine import examine
    from interp.engines.vllm import start_vllm
    from interp.errors import ArtifactError, UsageError, WorkbenchError
    from interp.geometry.analogies import WordVectors
    from interp.geometry.circles import circle_test
    from interp.geometry.dimension import intrinsic_dimension, spectrum
    from interp.geometry.probes import erasure
    from interp.geometry.report import rotate_words
    from interp.geometry.shapes import find_shapes, fit_plane, shapes_of
    from interp.geometry.similarity import cka, procrustes
    from interp.geometry.space import compare_spaces, measure_space
    from interp.geometry.words import find_concepts, read_words
    from interp.interventions.apply import hooks_of, intervened
    from interp.interventions.intervention import Component, Direction, Intervention, Latent
    from interp.interventions.recipe import Recipe, read_recipe, write_recipe
    from interp.lenses.direct_attribution import direct_logit_attribution
    from interp.lenses.jacobian_fit import fit_jacobian_lens
    from interp.lenses.jacobian_lens import JacobianLens, JacobianLensConfig
    from interp.lenses.lens_training import train_tuned_lens
    from interp.lenses.logit_lens import follow_token, logit_effects, logit_lens
    from interp.lenses.tuned_lens import TunedLens, TunedLensConfig
    from interp.models.adapter import (
        run_with_hooks,
        to_tokens,
        token_strings,
        untrained_model,
    )
    from interp.models.generation import NextToken, Offset, generate, sampled
    from interp.models.identity import model_spec, weight_hash
    from interp.models.loading import load_model
    from interp.models.passes import Capture
    from interp.models.small import SmallConfig, save_small
    from interp.models.training import TrainingConfig, train_small
    from interp.notes import Notes
    from interp.patching.ablation import ablate, ablated
    from interp.patching.activation import activation_patching
    from interp.patching.maps import measure_map
    from interp.patching.patching_map import PatchingConfig
    from interp.patching.paths import path_patch
    from interp.recording.live import open_recording
    from interp.recording.record import RecordConfig, record
    from interp.recording.store import Recording
    from interp.results import Result
    from interp.routes.carried import LostWords
    from interp.routes.cut import Cut, clean_run, cut_effects
    from interp.routes.enough import enough_routes
    from interp.routes.find import find_routes, question_run
    from interp.routes.stations import stations
    from interp.routes.swap import swap_routes
    from interp.routes.when import route_layers
    from interp.statistics import t_interval
    from interp.text.corpora import Document, open_corpus
    from interp.threads import one_thread
    from interp.tracing.background import background_nodes
    from interp.tracing.effects import split_edge
    from interp.tracing.graph import AttributionGraph, TraceConfig
    from interp.tracing.interventions import changes_of, continuations, intervene
    from interp.tracing.loadings import head_loadings
    from interp.tracing.part import graph_effects
    from interp.tracing.reasons import attention_reasons
    from interp.tracing.replacement import Neurons
    from interp.tracing.trace import open_system, trace
    from interp.workspace import Workspace

register(
    Kind("recording", "recordings", "interp.recording.recorded:Recorded"),
    Kind("lens", "lenses", "interp.lenses.tuned_lens:TunedLens"),
    Kind("jacobian_lens", "jacobian-lenses", "interp.lenses.jacobian_lens:JacobianLens"),
    Kind("heads", "heads", "interp.circuits.head_scores:HeadScores"),
    Kind("heads_in_text", "heads-in-text", "interp.circuits.heads_in_text:HeadsInText"),
    Kind("induction_circuit", "induction-circuits", "interp.circuits.induction_circuit:InductionCircuit", "circuit"),
    Kind("edge_circuit", "edge-circuits", "interp.circuits.found_circuit:EdgeCircuit", "circuit"),
    Kind("worst_case", "worst-cases", "interp.circuits.worst_case:WorstCase"),
    Kind("claim", "claims", "interp.claims:Claim"),
    Kind("attribution_graph", "graphs", "interp.tracing.graph:AttributionGraph"),
    Kind("routes", "routes", "interp.routes.routes:Routes"),
    Kind("patching", "patching", "interp.patching.patching_map:PatchingMap"),
    Kind("atlas", "atlases", "interp.atlas.vector_map:VectorMap"),
    Kind("word_geometry", "word-geometry", "interp.geometry.word_geometry:WordGeometry", "geometry"),
    Kind("space", "spaces", "interp.geometry.space:SpaceReport", "geometry"),
    Kind("space_comparison", "space-comparisons", "interp.geometry.space:SpaceComparison", "geometry"),
    Kind("direction", "directions", "interp.directions.study:DirectionGeometry"),
    Kind("monitor", "monitors", "interp.directions.monitor:Monitor"),
    Kind("grokking", "grokking", "interp.studies.grokking_phases:Grokking", "study"),
    Kind("induction_onset", "induction-onsets", "interp.studies.induction_onset:InductionOnset", "study"),
    Kind("model_comparison", "model-comparisons", "interp.changes.comparison:ModelComparison", "changes"),
    Kind("certificate", "certificates", "interp.doctor.certificate:Certificate"),
)

__getattr__, __all__ = lazily(__name__, __file__)  # pyright: ignore[reportUnsupportedDunderAll]
