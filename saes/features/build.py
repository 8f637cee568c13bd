"""The features artefact: statistics, labels and example texts of every latent of a dictionary over a recording.

1. One streaming pass collects statistics, the strongest firings and a sample of firings (`saes/features/_firings.py`),
   and an index of the tokens and words on which features fire (`saes/features/_token_index.py`), for search.
2. The decoder alone gives promoted and suppressed tokens, and nearest neighbours by cosine similarity. Tokens are only
   given for a dictionary that writes to the residual stream, where its directions can be read as next-token logits.
3. Labels follow by rule from tokens, classes of words, surroundings, and the words that a feature makes the model say,
   each scored on held-out firings (`saes/features/_labels.py`).
4. Example firings are chosen, with the text around them.
5. Two tables are written, then the relations of every feature with their nulls (`saes/features/_relations.py`).

The pass is short, so an interrupted run starts again. Until the last step there is only a `.partial` folder.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from interp.artifacts import Draft, Table, save_artefact
from interp.artifacts.artefact import settings_json
from interp.artifacts.tables import schema_of
from interp.atlas.neighbours import Neighbours, nearest_neighbours
from interp.dictionary import Dictionary
from interp.errors import MismatchError
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.logit_lens import Effects, logit_effects
from interp.lenses.vocabulary import vocabulary_of
from interp.models.adapter import weight_hash
from interp.models.hooked import HookedModel
from interp.names import canonical_hook_point
from interp.progress import Progress
from interp.recording.store import NO_TOKEN, Recording, document_names, read_passages
from interp.seeds import derive_seed
from saes.features._firings import Encoded, FeatureStatistics, collect_together
from saes.features._labels import Label, label_features
from saes.features._relations import measure_relations
from saes.features._token_index import FOLDER, TokenIndex, spell
from saes.features.meaning import said_tokens
from saes.features.schema import (
    GROUPS,
    N_EFFECTS,
    N_NEIGHBOURS,
    ExampleRow,
    FeatureRow,
    Features,
    FeaturesConfig,
    FeaturesSettings,
)
from saes.features.sources import writes_to_residual
from saes.features.titles import belonging_together, titled
from saes.training.config import DENSE


class ChosenFirings(NamedTuple):
    """Chosen firings, sorted by feature, group and rank; all arrays have the length `n`."""

    feature: np.ndarray
    group: np.ndarray
    """Index in `GROUPS`."""
    rank: np.ndarray
    """Rank by activation within the feature's group, from 0."""
    activation: np.ndarray
    row: np.ndarray
    """Row of the recording."""
    windows: np.ndarray
    """Activations on the rows around, `[n, 2 * window + 1]` float32."""


EVIDENCE = 48
"""Strongest firings collected for labels, even where fewer are stored as examples."""
N_SAID = 100
"""Tokens that a direction makes the model say, among which labels look for those on which it fires."""


def choose_examples(statistics: FeatureStatistics, *, n_top: int, n_per_quantile: int) -> ChosenFirings:
    """Choose the `n_top` strongest firings, and `n_per_quantile` from each quarter of a feature's sampled firings.

    Quarters are taken by rank within the sample. They are exact for a feature that fired no more often than the sample
    size, and an estimate otherwise: with 64 samples their borders are right to about 6 percentage points.
    """
    top, sample = statistics.top, statistics.sample
    feature, slot = np.nonzero(top.keys >= 0)
    group = np.zeros(len(feature), np.int64)
    parts = [(feature, slot, group, top)]
    feature, slot = np.nonzero(sample.keys >= 0)
    values, keys = sample.values[feature, slot], sample.keys[feature, slot]
    order = np.lexsort((sample.rows[feature, slot], -values, feature))
    rank, size = _rank_in_run(feature[order])
    quarter = np.empty(len(order), np.int64)
    quarter[order] = 1 + 4 * rank // size
    order = np.lexsort((-keys, quarter, feature))
    rank, _ = _rank_in_run(feature[order] * len(GROUPS) + quarter[order])
    chosen = order[rank < n_per_quantile]
    parts.append((feature[chosen], slot[chosen], quarter[chosen], sample))
    examples = _sorted_examples(parts)
    stored = (examples.group > 0) | (examples.rank < n_top)
    return ChosenFirings(*(column[stored] for column in examples))


def _sorted_examples(parts) -> ChosenFirings:
    feature, group = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    value, row, windows = (
        np.concatenate([getattr(slots, name)[f, s] for f, s, _, slots in parts])
        for name in ("values", "rows", "windows")
    )
    order = np.lexsort((row, -value, group, feature))
    rank, _ = _rank_in_run(feature[order] * len(GROUPS) + group[order])
    return ChosenFirings(feature[order], group[order], rank, value[order], row[order], windows[order])


def _rank_in_run(sorted_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for every entry of a sorted array its index among the equal ones, from 0, and their number."""
    _, first, counts = np.unique(sorted_ids, return_index=True, return_counts=True)
    return np.arange(len(sorted_ids)) - np.repeat(first, counts), np.repeat(counts, counts)


def examples_table(
    recording: Recording, examples: ChosenFirings, vocabulary: list[str], *, window: int
) -> Table[ExampleRow]:
    """Return the examples with their text. Token text is stored unescaped, even if it looks like HTML."""
    import pyarrow as pa

    passages = read_passages(recording, examples.row, before=window, after=window)
    present = passages.token_ids != NO_TOKEN
    offsets = pa.array(np.concatenate([[0], np.cumsum(present.sum(1))]), pa.int32())
    flat = pa.array(passages.token_ids[present], pa.int32())
    ids, labels = document_names(recording)
    columns = {
        "feature": examples.feature,
        "group": pa.array(np.array(GROUPS, dtype=object)[examples.group], pa.string()),
        "group_order": examples.group,
        "rank": examples.rank,
        "activation": examples.activation,
        "row": examples.row,
        "document": passages.document,
        "position": passages.position,
        "document_id": pa.array(ids, pa.string()).take(pa.array(passages.document)),
        "document_label": pa.array(labels, pa.string()).take(pa.array(passages.document)),
        "tokens": pa.ListArray.from_arrays(offsets, pa.array(vocabulary, pa.string()).take(flat)),
        "token_ids": pa.ListArray.from_arrays(offsets, flat),
        "activations": pa.ListArray.from_arrays(offsets, pa.array(examples.windows[present], pa.float32())),
        "peak": present[:, :window].sum(1),
    }
    return Table.of_columns(ExampleRow, pa.table(columns, schema=schema_of(ExampleRow)))


@dataclass(frozen=True, kw_only=True)
class Described:
    """A dictionary whose features are to be described, and the artefact that they become."""

    dictionary: Dictionary
    name: str
    """`sae:NAME`, `neurons:HOOK_POINT` or `transcoders:SET:LAYER`"""
    folder: Path
    hook_point: str | None = None
    """the hook point that it reads. Default: its own"""
    parents: dict[str, str] = field(default_factory=dict)
    """parents other than the recording and the model, such as the SAE's `{"saes/NAME": hash}`"""
    relations: bool = True
    """also measure companions, neurons, logits and their nulls, in a second, shorter pass"""
    overwrite: bool = False
    """replace an artefact that is in the folder"""


def build_features(
    wanted: Described,
    recording: Recording,
    model: HookedModel,
    config: FeaturesConfig | None = None,
    *,
    lens: JacobianLens | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Features:
    """Describe the features of one dictionary; `build_together` describes several in one pass.

    Args:
        wanted: the dictionary, an SAE or neurons (`neurons_of`), with its name and the folder of the artefact.
        recording: the text and activations that describe it.
        model: the model of both.
        config: tokens of an example, numbers of examples, and the index of words for the search.
        lens: the Jacobian lens through which directions say words.
        seed: of the firings that are sampled.
    Returns: the tables of features.
    Raises:
        MismatchError: dictionary, recording and model do not belong together.
        NonFiniteError: NaN in the activations.

    >>> wanted = Described(dictionary=sae, name="sae", folder=folder / "features", relations=False)
    >>> build_features(wanted, recording, model).headline()
    '64 of 64 features of a dictionary are active at least once in 2,015 tokens'
    """
    [features] = build_together([wanted], recording, model, config, lens=lens, seed=seed, progress=progress)
    return features


def build_together(
    wanted: Sequence[Described],
    recording: Recording,
    model: HookedModel,
    config: FeaturesConfig | None = None,
    *,
    lens: JacobianLens | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Features]:
    """Describe and store the features of each dictionary, and an index of the text, in one pass.

    With a Jacobian lens, labels use the words that a feature makes the model say.
    """
    from interp.models.adapter import token_strings

    config = config or FeaturesConfig()
    spelling = spell(token_strings(model, torch.arange(model.cfg.d_vocab)))
    settings, drafts, encoded = [], [], []
    for source in wanted:
        hook_point = recording.check_hook_point(source.hook_point or source.dictionary.hook_point)
        check_parents(source.dictionary, recording, model, hook_point)
        identity = _settings(source, recording, hook_point, config)
        draft = Draft.open(
            source.folder, kind="features", config=settings_json(identity), seed=seed, overwrite=source.overwrite
        )
        drafts.append(draft)
        settings.append(identity)
        runs = draft.path / "index-runs"
        indexer = TokenIndex(source.dictionary.d_sae, runs, kept=config.index_units) if config.index else None
        words = (indexer, spelling) if indexer else None
        encoded.append(Encoded(source.dictionary, hook_point, words))
    started = time.perf_counter()
    every = collect_together(
        encoded,
        recording,
        window=config.window,
        n_top=max(config.examples, EVIDENCE),
        seed=derive_seed(seed, "sample"),
        progress=_visible(drafts[0], progress),
    )
    speed = every[0].n_tokens / max(time.perf_counter() - started, 1e-9)
    artefacts = []
    for source, identity, draft, part, statistics in zip(wanted, settings, drafts, encoded, every, strict=True):
        if part.words is not None:
            part.words[0].write(draft.path / FOLDER, spelling)
        chosen = choose_examples(statistics, n_top=config.examples, n_per_quantile=config.samples)
        counts, edges = statistics.histogram()
        table, texts = _tables(statistics, chosen, source.dictionary, recording, model, counts, lens)
        related, scales = None, None
        if source.relations:
            draw_seed = derive_seed(seed, "relations")
            related, scales = measure_relations(source.dictionary, recording, model, part.hook_point, seed=draw_seed)
        features = Features(
            settings=identity,
            n_features=source.dictionary.d_sae,
            n_tokens=statistics.n_tokens,
            n_dead=int((statistics.totals.n_fired == 0).sum()),
            n_dense=int((statistics.density > DENSE).sum()),
            mean_l0=float(statistics.density.sum()),
            tokens_per_second=round(speed, 1),
            histogram_edges=edges.tolist(),
            features=table,
            examples=texts,
            relations=related,
            scales=scales,
        )
        origin = {recording.key: recording.manifest.content_hash, f"model:{recording.model}": recording.weight_hash}
        if lens is not None:
            origin[lens.about.key] = lens.about.content_hash
        parents, threads = origin | source.parents, torch.get_num_threads()
        artefacts.append(save_artefact(features, source.folder, draft=draft, parents=parents, threads=threads))
    return artefacts


def _settings(wanted: Described, recording: Recording, hook_point: str, config: FeaturesConfig) -> FeaturesSettings:
    return FeaturesSettings(
        dictionary=wanted.name,
        sign=int(getattr(wanted.dictionary, "sign", 1)),
        recording=recording.folder.name,
        hook_point=hook_point,
        model=recording.model,
        labels=None,
        window=config.window,
        n_top=config.examples,
        n_per_quantile=config.samples,
    )


def check_parents(dictionary: Dictionary, recording: Recording, model: HookedModel, hook_point: str) -> None:
    """Raise `MismatchError` unless the dictionary reads this hook point and its directions fit the model."""
    if weight_hash(model) != recording.weight_hash:
        raise MismatchError(
            f"{recording.folder} was recorded from other weights than the model given; load {recording.model!r}"
        )
    if canonical_hook_point(dictionary.hook_point) != hook_point:
        raise MismatchError(
            f"the dictionary reads {dictionary.hook_point}, not {hook_point}; choose a recording of that hook point"
        )
    d_out = dictionary.decoder_directions.shape[1]
    if writes_to_residual(dictionary) and d_out != model.cfg.d_model:
        raise MismatchError(
            f"the dictionary writes vectors of {d_out}, the model's residual stream has {model.cfg.d_model}; "
            "choose the model it was trained on"
        )


def _tables(
    statistics: FeatureStatistics,
    examples: ChosenFirings,
    dictionary: Dictionary,
    recording: Recording,
    model: HookedModel,
    histogram: np.ndarray,
    lens: JacobianLens | None,
) -> tuple[Table[FeatureRow], Table[ExampleRow]]:
    """Return the features and their examples; `histogram [d_sae, n_bins]` counts activations."""
    from interp.models.adapter import token_strings

    directions = dictionary.decoder_directions.detach().float().cpu()
    vocabulary = token_strings(model, torch.arange(model.cfg.d_vocab))
    writes = writes_to_residual(dictionary)
    effects = logit_effects(model, directions, N_EFFECTS) if writes else None
    saying = said_tokens(dictionary, lens, model, N_SAID) if writes and lens is not None else None
    lens_ids = saying[0] if saying is not None else None
    neighbours = nearest_neighbours(directions, N_NEIGHBOURS)
    promoted = effects.promoted_ids.numpy() if effects is not None else None
    labels = label_features(
        statistics, recording, vocabulary, promoted if lens_ids is None else lens_ids[:, :N_EFFECTS], lens_ids
    )
    if saying is not None:
        labels = titled(labels, belonging_together(*saying, vocabulary_of(model)))
    table = features_table(statistics, directions, labels, effects, neighbours, vocabulary, histogram)
    return table, examples_table(recording, examples, vocabulary, window=statistics.window)


def features_table(
    statistics: FeatureStatistics,
    directions: torch.Tensor,
    labels: list[Label],
    effects: Effects | None,
    neighbours: Neighbours,
    vocabulary: list[str],
    histogram: np.ndarray,
) -> Table[FeatureRow]:
    """Return the features, a row each; `effects` is None where directions have no effect on logits."""
    import pyarrow as pa

    n = statistics.d_sae
    columns: dict[str, object] = {
        "feature": np.arange(n),
        "density": statistics.density,
        "n_fired": statistics.totals.n_fired,
        "mean_activation": statistics.mean_activation,
        "max_activation": statistics.totals.maximum,
        "decoder_norm": directions.norm(dim=1).numpy(),
        "label": [str(label) for label in labels],
        "label_source": [label.source for label in labels],
        "label_kind": [label.kind for label in labels],
        "label_names": [list(label.names) for label in labels],
        "label_share": [label.share for label in labels],
        "label_score": [label.score for label in labels],
        "label_null": [label.null for label in labels],
        "label_null_high": [label.null_high for label in labels],
        "label_heldout": [label.n_heldout for label in labels],
        "other_labels": [list(map(str, label.others)) for label in labels],
        "other_sources": [[alternative.source for alternative in label.others] for label in labels],
        "other_scores": [[alternative.score for alternative in label.others] for label in labels],
        "neighbours": neighbours.indices.tolist(),
        "neighbour_cosines": (1 - neighbours.distances).tolist(),
        "histogram": histogram.tolist(),
    }
    for side in ("promoted", "suppressed"):
        ids = getattr(effects, f"{side}_ids").tolist() if effects else [[]] * n
        columns[f"{side}_tokens"] = [[vocabulary[i] for i in row] for row in ids]
        columns[f"{side}_logits"] = getattr(effects, f"{side}_logits").tolist() if effects else [[]] * n
    return Table.of_columns(FeatureRow, pa.table(columns, schema=schema_of(FeatureRow)))


def _visible(draft: Draft, progress: Progress | None) -> Progress:
    """Return a callback that reports to the caller, and to other processes about every second."""
    last = [time.monotonic()]

    def report(done: int, total: int, info: dict) -> None:
        if time.monotonic() - last[0] > 1 or done == total:
            last[0] = time.monotonic()
            draft.update(done=done, total=total, **info)
        if progress is not None:
            progress(done, total, info)

    return report
