"""Describe MLP neurons of all layers or some: labels, words that they raise, examples, and their background in graphs.

    labels = describe_neurons(model, recording, lens=lens)

One pass of the model over the text of a recording keeps the strongest firing of every neuron, in either direction, in
each of the contexts where it is strongest. They are labelled like the latents of a dictionary
(`saes/features/_labels.py`), with neurons of other layers as the null. One thing differs: a neuron is never exactly 0,
so its density says nothing, and no label is "dense".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from interp.artifacts import Table
from interp.artifacts.tables import schema_of
from interp.errors import ConfigError
from interp.lenses.jacobian_lens import JacobianLens
from interp.lenses.logit_lens import logit_effects
from interp.models.hooked import HookedModel
from interp.progress import Progress
from interp.recording.live import LiveRecording
from interp.recording.store import Recording
from interp.tracing.background import measure_background
from interp.tracing.replacement import Neurons
from saes.features._firings import FeatureStatistics
from saes.features._labels import Label, label_features
from saes.features.build import EVIDENCE, N_SAID, choose_examples, examples_table
from saes.features.meaning import said_by_directions
from saes.features.neurons import NeuronExample, NeuronLabels, NeuronRow, NeuronsConfig, NeuronSettings
from saes.features.schema import N_EFFECTS
from saes.features.sources import NeuronBasis, neurons_of

SIGNS = (1, -1)
SAYS = 3
"""tokens stored of those that a neuron makes the model say"""
TOGETHER = 6
"""layers whose neurons are labelled together"""
BLOCK_ROWS = 2048
PROMPT = 10
"""tokens of a prompt over which the background is measured"""


class Strongest:
    """The strongest firing of every neuron in each of the `n` contexts where it fires most strongly."""

    def __init__(self, d: int, n: int, window: int, context_length: int):
        self.window, self.context_length = window, context_length
        self.values = torch.full((d, n), -1.0)
        self.rows = torch.zeros(d, n, dtype=torch.long)
        self.windows = torch.zeros(d, n, 2 * window + 1)
        self.n_fired = torch.zeros(d, dtype=torch.long)

    def add(self, x: Float[Tensor, "contexts length d"], first_row: int) -> None:
        """Add the activations of whole contexts, whose first row is `first_row`; below 0 counts as inactive."""
        values, at = x.max(1)
        rows = first_row + torch.arange(len(x))[:, None] * self.context_length + at
        around = at[:, None] + torch.arange(2 * self.window + 1)[:, None]
        windows = pad(x.clamp_min(0), (0, 0, self.window, self.window)).gather(1, around)
        self.n_fired += (values > 0).sum(0)
        joined = torch.cat([self.values, values.T], 1)
        self.values, best = joined.topk(self.values.shape[1], dim=1)
        self.rows = torch.cat([self.rows, rows.T], 1).gather(1, best)
        wide = best[:, :, None].expand(-1, -1, windows.shape[1])
        self.windows = torch.cat([self.windows, windows.permute(2, 0, 1)], 1).gather(1, wide)

    def statistics(self, n_tokens: int) -> FeatureStatistics:
        """Return the firings as labels and examples read them; a firing is counted once a context."""
        out = FeatureStatistics(
            len(self.values),
            context_length=self.context_length,
            window=self.window,
            n_top=self.values.shape[1],
            n_sample=1,
            seed=0,
        )
        keys = torch.where(self.values > 0, self.values, -1.0).double().numpy()
        out.top = out.top._replace(
            keys=keys, rows=self.rows.numpy(), values=self.values.clamp_min(0).numpy(), windows=self.windows.numpy()
        )
        out.totals.n_fired[:] = self.n_fired.numpy()
        out.totals.maximum[:] = self.values[:, 0].clamp_min(0).numpy()
        out.n_tokens = n_tokens
        return out


class SignedNeurons(NamedTuple):
    """Neurons of one layer in one direction, with their strongest firings."""

    layer: int
    basis: NeuronBasis
    statistics: FeatureStatistics


def strongest_firings(
    text: LiveRecording,
    points: Sequence[str],
    d_mlp: int,
    window: int,
    progress: Progress | None,
    most: int | None = None,
) -> tuple[list[Strongest], int]:
    """Return the strongest firings of neurons, above and below 0 (`SIGNS`), and the number of tokens that were read.

    The list has `len(SIGNS)` entries for each hook point of `points`. Reading stops after `most` tokens.
    """
    length = text.context_length
    strongest = [Strongest(d_mlp, EVIDENCE, window, length) for _ in points for _ in SIGNS]
    step, n_tokens = max(1, BLOCK_ROWS // length) * length, 0
    most = text.n_rows if most is None else min(most, text.n_rows)
    for shard in range(text.n_shards):
        real = text.token_shard(shard).document >= 0
        for start in range(0, len(real), step):
            if n_tokens >= most:
                return strongest, n_tokens
            local = torch.arange(start, min(start + step, len(real)))
            values = text.read_local(list(points), shard, local)
            absent = ~real[local].view(-1, length, 1)
            first_row = int(text.shard_starts[shard]) + start
            for i, point in enumerate(points):
                x = values[point].float().view(-1, length, d_mlp)
                for j, sign in enumerate(SIGNS):
                    strongest[len(SIGNS) * i + j].add((x * sign).masked_fill(absent, -1.0), first_row)
            n_tokens += int(real[local].sum())
            if progress is not None:
                progress(min(first_row + len(local), most), most, {"tokens": n_tokens})
    return strongest, n_tokens


def describe_neurons(
    model: HookedModel,
    recording: Recording,
    config: NeuronsConfig | None = None,
    *,
    lens: JacobianLens | None = None,
    reader: HookedModel | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> NeuronLabels:
    """Describe the MLP neurons of a model on the text of a recording of it, whatever hook points that has.

    `lens` is the Jacobian lens through which a neuron says words. `reader` is the same model in another precision, to
    read the text faster. `report` gets a line when the pass over the text is done.

    Raises `MismatchError` for a recording of other weights, `ConfigError` for a model whose neurons cannot be read, or
    a layer that it lacks.
    """
    from interp.models.adapter import token_strings, weight_hash

    config, n_layers = config or NeuronsConfig(), model.cfg.n_layers
    chosen = sorted({*config.layers} or range(n_layers))
    if not 0 <= chosen[0] <= chosen[-1] < n_layers:
        raise ConfigError(f"the layers of this model are 0 to {n_layers - 1}, got {', '.join(map(str, chosen))}")
    points = [f"blocks.{layer}.mlp.hook_post" for layer in chosen]
    if config.examples > EVIDENCE:
        raise ConfigError(f"1 to {EVIDENCE} examples can be stored, got {config.examples}")
    bases = [
        (layer, neurons_of(model, at, sign=sign)) for layer, at in zip(chosen, points, strict=True) for sign in SIGNS
    ]
    d_mlp = bases[0][1].d_sae
    text = LiveRecording(recording.folder, model=reader or model, widths=dict.fromkeys(points, d_mlp))
    firings, n_tokens = strongest_firings(text, points, d_mlp, config.window, progress, config.tokens)
    report(f"labels of {len(bases) * d_mlp:,} directions, and the background of graphs over {config.prompts} prompts")
    usual = measure_background(model, first_passages(text, model, config.prompts), Neurons()) if config.prompts else {}
    parts = [
        SignedNeurons(layer, basis, strongest.statistics(n_tokens))
        for (layer, basis), strongest in zip(bases, firings, strict=True)
    ]
    vocabulary = token_strings(model, torch.arange(model.cfg.d_vocab))
    rows, examples, confirmed = [], [], 0
    for start in range(0, len(parts), 2 * TOGETHER):
        group = parts[start : start + 2 * TOGETHER]
        readouts = [None] * len(group) if lens is None else _readouts(group, lens, model)
        labels = _labels(group, text, model, vocabulary, readouts)
        confirmed += sum(label.score is not None for label in labels)
        for i, part in enumerate(group):
            rows.append(_rows(part, labels[i * d_mlp : (i + 1) * d_mlp], _says(readouts[i], vocabulary, d_mlp), usual))
            examples.append(_examples(part, text, vocabulary, config.examples))
    return NeuronLabels(
        settings=NeuronSettings(
            model=recording.model,
            weight_hash=weight_hash(model),
            recording=recording.folder.name,
            lens=None if lens is None else lens.about.name,
            window=config.window,
            examples=config.examples,
            prompts=config.prompts,
        ),
        n_layers=n_layers,
        d_mlp=d_mlp,
        n_tokens=n_tokens,
        n_confirmed=confirmed,
        rows=_table(NeuronRow, rows),
        examples=_table(NeuronExample, examples),
    )


def first_passages(recording: Recording, model: HookedModel, n: int) -> list[Tensor]:
    """Return the first `PROMPT` tokens of `n` documents, those that come first, each as a prompt `[1, pos]`."""
    from interp.models.adapter import to_tokens, token_strings

    prompts: list[Tensor] = []
    for shard in range(recording.n_shards):
        tokens, document, _ = recording.token_shard(shard)
        for number in document[document >= 0].unique().tolist():
            if len(prompts) == n:
                return prompts
            passage = tokens[document == number][:PROMPT]
            if len(passage) == PROMPT:
                prompts.append(to_tokens(model, "".join(token_strings(model, passage))))
    return prompts


def _readouts(
    group: Sequence[SignedNeurons], lens: JacobianLens, model: HookedModel
) -> list[dict[str, np.ndarray] | None]:
    """Return the words that each part raises; the negative direction of a neuron raises those that it lowers."""
    readouts: list[dict[str, np.ndarray] | None] = []
    for part in group[:: len(SIGNS)]:
        readout = said_by_directions(part.basis, lens, model, N_SAID)
        negative = {"raised": readout["lowered"], "raised_strength": -readout["lowered_strength"]}
        readouts += [readout, readout | negative]
    return readouts


def _labels(
    group: Sequence[SignedNeurons],
    recording: Recording,
    model: HookedModel,
    vocabulary: list[str],
    readouts: Sequence[dict[str, np.ndarray] | None],
) -> list[Label]:
    """Return the labels of some layers' neurons, each the null of the others."""
    words = None if None in readouts else np.concatenate([entry["raised"] for entry in readouts if entry is not None])
    if words is None:
        effects = [logit_effects(model, part.basis.decoder_directions, N_EFFECTS) for part in group[:: len(SIGNS)]]
        promoted = np.concatenate(
            [ids.numpy() for effect in effects for ids in (effect.promoted_ids, effect.suppressed_ids)]
        )
    else:
        promoted = words[:, :N_EFFECTS]
    joined = FeatureStatistics.joined([part.statistics for part in group])
    return label_features(joined, recording, vocabulary, promoted, words, dense=False)


def _says(readout: dict[str, np.ndarray] | None, vocabulary: list[str], d_mlp: int) -> list[list[str]]:
    """Return the tokens that each neuron raises most, where fewer than 5 % of random directions raise one as much."""
    if readout is None:
        return [[] for _ in range(d_mlp)]
    beyond = readout["raised_strength"][:, 0] > np.quantile(readout["null_high"], 0.95)
    return [
        [vocabulary[token] for token in tokens] if above else []
        for tokens, above in zip(readout["raised"][:, :SAYS].tolist(), beyond.tolist(), strict=True)
    ]


def _rows(
    part: SignedNeurons, labels: Sequence[Label], says: Sequence[list[str]], usual: dict[tuple[int, int, int], float]
) -> dict[str, object]:
    """Return the columns of the rows of one layer's neurons in one direction."""
    n, sign = part.basis.d_sae, part.basis.sign
    return {
        "layer": np.full(n, part.layer),
        "neuron": np.arange(n),
        "sign": np.full(n, sign),
        "maximum": part.statistics.totals.maximum,
        "label": [str(label) for label in labels],
        "confirmed": [label.score is not None for label in labels],
        "score": [label.score for label in labels],
        "null_high": [label.null_high for label in labels],
        "background": [usual.get((part.layer, number, sign), 0.0) for number in range(n)],
        "says": says,
    }


def _examples(part: SignedNeurons, recording: Recording, vocabulary: list[str], n: int) -> dict[str, object]:
    """Return the columns of the examples of one layer's neurons in one direction."""
    chosen = choose_examples(part.statistics, n_top=n, n_per_quantile=0)
    table = examples_table(recording, chosen, vocabulary, window=part.statistics.window)
    columns = table.query("select feature, tokens, activation, activations, peak from t order by feature, rank")
    peaks, texts = columns["activation"].to_pylist(), columns["activations"].to_pylist()
    return {
        "layer": np.full(len(columns), part.layer),
        "neuron": columns["feature"].to_numpy(),
        "sign": np.full(len(columns), part.basis.sign),
        "tokens": columns["tokens"].to_pylist(),
        "activation": peaks,
        "percent": [[round(100 * act / peak) for act in text] for text, peak in zip(texts, peaks, strict=True)],
        "peak": columns["peak"].to_numpy(),
    }


Row = TypeVar("Row", NeuronRow, NeuronExample)


def _table(row: type[Row], parts: Sequence[dict[str, object]]) -> Table[Row]:
    """Return the table of columns that come in parts."""
    import pyarrow as pa

    schema = schema_of(row)
    return Table.of_columns(row, pa.concat_tables([pa.table(part, schema=schema) for part in parts]))
