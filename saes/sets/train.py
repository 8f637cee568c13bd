"""Train a set: one pass through the model feeds the transcoders of all layers.

    # the text; see interp.recording.live
    record(model, corpus, folder, RecordConfig(live=True), hook_points=mlp_hook_points(model))
    plan = SetTraining(BatchTopKConfig(d_sae=2304), TrainConfig(tokens=3_000_000), skip=True)
    train_set(open_recording(folder), plan, set_folder)

Each layer is an independent run (`saes.training.run`), which takes one step for every batch. Their checkpoints lie in
`runs/` of the unfinished set, so that a run that was killed goes on to the same bits; ranks share the tokens of a
batch. A cross-layer transcoder (`saes.kinds.clt`) is one run. At the end each layer is scored on held-out documents,
and the model with all MLPs replaced. The health lines of layer `N` remain in `runs/layer_N/log.jsonl`, those of a
cross-layer transcoder in `runs/log.jsonl`.

Quality of a set: each layer on held-out rows, and the loss of the model with all its MLPs replaced.

Replaced one after the other, every transcoder sees a residual stream that those before it have changed, so errors add
up as they do in a replacement model. The baselines have the same number of units per token:

    neurons     of every MLP only the `k` neurons of largest `|activation| * |W_out|`, `k` the layer's own L0
    untrained   the set before its first training step
    mean        every MLP output replaced by its mean: the floor
"""

import contextlib
import shutil
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp.artifacts import LOG, Draft, atomic_file, save_artefact
from interp.artifacts.artefact import settings_json
from interp.errors import ConfigError, MissingError
from interp.interventions.edits import at_mask, inserting
from interp.models.adapter import MLP_IN, MLP_OUT, MLP_OUT_BEFORE_NORM, available_hook_points, weight_hash
from interp.models.hooked import HookedModel
from interp.names import parse_hook_point
from interp.progress import Progress
from interp.ranks import open_draft
from interp.recording.store import Recording
from saes.evaluation.in_model import LOGIT_VALUES, Hooks, Losses, check_documents, logits_of, replace_by
from saes.evaluation.scores import InModel
from saes.kernels.spread import UNSHARED, Spread
from saes.kernels.state import RunState
from saes.kernels.step import Buffers
from saes.kinds.base import SAEMetadata
from saes.kinds.clt import CrossLayerTranscoder
from saes.kinds.config import CrossLayerConfig, SAEConfig, TranscoderConfig, setting_names
from saes.kinds.transcoder import Transcoder
from saes.sets.set import (
    CrossLayerSet,
    LayerFirings,
    PerLayerSet,
    SetConfig,
    TranscoderSet,
    read_set,
    write_config,
    write_cross_layer,
    write_layer,
)
from saes.sets.stored import SetScores, SetTraining, StoredSet, TrainedSetSettings, layer_scores
from saes.training.data import Layers, Position, RowSource, Together, TrainingBatch, training_batches
from saes.training.health import Metrics
from saes.training.reconstruction import DocumentsOfRows, ReconstructionSums
from saes.training.run import Job, TrainingProcess, read_together
from saes.training.schedule import TrainingPlan, plan
from saes.training.stored import Reconstruction, TrainingRun
from saes.training.train import advance

Replaced = Literal["set", "untrained", "neurons"]
"""What replaces the MLPs."""
SCORED = 65_536
"""Held-out tokens on which a set is scored, where a recording has more: the model has to read them again."""


@torch.no_grad()
def evaluate_layers(
    sae_set: TranscoderSet,
    recording: Recording,
    *,
    heldout_fraction: float = 0.1,
    batch_size: int = 4096,
    seed: int = 0,
    limit: int = SCORED,
) -> dict[int, Reconstruction]:
    """Measure every layer on the first `limit` held-out rows of a recording or a few more, in one pass over them.

    Raises `ConfigError` when nothing is held out, `UnknownNameError` when a hook point was not recorded.
    """
    sources = [RowSource(recording, sae_set.hook_point(n), target=sae_set.hook_point_out(n)) for n in sae_set.layers]
    sums = {layer: ReconstructionSums(sae_set.d_sae(layer), seed) for layer in sae_set.layers}
    documents = DocumentsOfRows(recording)
    for rows in Together(sources).sequential(batch_size, split="heldout", heldout_fraction=heldout_fraction):
        if not len(rows[0].rows):
            continue
        pass_, document = SetPrediction(sae_set), documents(rows[0].rows)
        for layer, batch in zip(sae_set.layers, rows, strict=True):
            firings, recons = pass_.read(layer, batch.x), pass_.predict(layer)
            active = torch.bincount(firings.positions, minlength=len(batch.x))
            assert batch.target is not None
            sums[layer].add(active, firings.latents, recons, batch.target, document)
        if sums[sae_set.layers[0]].n >= limit:
            break
    if not all(total.n for total in sums.values()):
        raise ConfigError(f"{recording.folder} has no held-out tokens; record more documents")
    return {layer: total.result() for layer, total in sums.items()}


class SetPrediction:
    """One pass of the replacement model: inputs of all layers so far, and the outputs that the set predicts."""

    def __init__(self, sae_set: TranscoderSet):
        self.set = sae_set
        self._inputs: dict[int, Tensor] = {}
        self._firings: dict[int, LayerFirings] = {}

    def read(self, layer: int, x: Tensor) -> LayerFirings:
        """Encode the input `[n, d_in]` of a layer."""
        self._inputs[layer] = x
        self._firings[layer] = self.set.encode(layer, x)
        return self._firings[layer]

    def predict(self, layer: int) -> Tensor:
        """Return the predicted output `[n, d_out]` of a layer; all layers that write to it were read."""
        return self.set.assemble(layer, self._inputs[layer], self._firings)


@torch.no_grad()
def evaluate_in_model(
    sae_set: TranscoderSet,
    model: HookedModel,
    tokens: Int[Tensor, "n pos"],
    *,
    documents: Int[Tensor, "n pos"] | None = None,
    means: Mapping[int, Tensor],
    l0: Mapping[int, float],
    untrained: TranscoderSet | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[Replaced, InModel]:
    """Return the loss of the model with all MLPs replaced by `set`, `neurons` and `untrained`, with that of `mean`.

    `means` are mean outputs `[d_out]` and `l0` active latents per token, both by layer. Positions without text are not
    replaced. `neurons` is missing where the model has no `mlp.hook_post`. Raises `MismatchError` for other weights.
    """
    sae_set.check_model(model, all_layers=False)
    documents = check_documents(tokens, documents)
    size = max(1, LOGIT_VALUES // (tokens.shape[1] * model.cfg.d_vocab))
    sets: dict[Replaced, TranscoderSet] = {"set": sae_set}
    if untrained is not None:
        sets["untrained"] = untrained
    for replacement in sets.values():
        replacement.to(model.cfg.device)
    neurons = all(f"blocks.{n}.mlp.hook_post" in available_hook_points(model) for n in sae_set.layers)
    replaced: list[Replaced] = [*sets, *(["neurons"] if neurons else [])]
    losses = Losses(["clean", "zero", "mean", *replaced], seed)
    done = 0
    for batch, document in zip(tokens.split(size), documents.split(size), strict=True):
        text = document >= 0
        variants: dict[str, Hooks] = {
            "clean": [],
            "zero": [(sae_set.hook_point_out(n), replace_by(torch.zeros_like(means[n]), text)) for n in sae_set.layers],
            "mean": [(sae_set.hook_point_out(n), replace_by(means[n].float(), text)) for n in sae_set.layers],
            **{name: splice_all(replacement, text) for name, replacement in sets.items()},
        }
        if neurons:
            variants["neurons"] = [
                (f"blocks.{n}.mlp.hook_post", _largest(model, n, round(l0[n]), text)) for n in sae_set.layers
            ]
        losses.add(((name, logits_of(model, batch, hooks)) for name, hooks in variants.items()), batch, document)
        done += len(batch)
        if progress:
            progress(done, len(tokens), {})
    return {name: losses.result(name) for name in replaced}


def splice_all(sae_set: TranscoderSet, text: Tensor) -> Hooks:
    """Return hooks that replace the MLP outputs of all layers of a set at the positions `text [batch, pos]`."""
    pass_, hooks = SetPrediction(sae_set), []

    def reads(layer: int) -> Callable[..., None]:
        def hook(value: Tensor, hook: object = None) -> None:
            pass_.read(layer, value.flatten(0, 1))

        return hook

    def writes(layer: int) -> Callable[..., Tensor]:
        return at_mask(inserting(lambda value: pass_.predict(layer).view(*value.shape[:2], -1)), text)

    for layer in sae_set.layers:
        hooks += [(sae_set.hook_point(layer), reads(layer)), (sae_set.hook_point_out(layer), writes(layer))]
    return hooks


def _largest(model: HookedModel, layer: int, k: int, text: Tensor) -> Callable[..., Tensor]:
    """Return a hook that zeroes all but the `k` neurons of a token that write most."""
    norms = model.blocks[layer].mlp.W_out.detach().float().norm(dim=1)

    def largest(value: Tensor) -> Tensor:
        size = value.float().abs() * norms.to(value.device)
        kept = torch.zeros_like(value).scatter_(-1, size.topk(max(1, min(k, size.shape[-1])), dim=-1).indices, 1.0)
        return value * kept

    return at_mask(inserting(largest), text)


RUNS, ALL = "runs", "all_layers"
SAMPLES = 4
"""Batches from which thresholds are estimated at the end; those of all layers are in memory together."""
CONTEXTS = 32
"""Held-out contexts on which the loss with all MLPs replaced is measured."""


def recorded_layers(recording: Recording, reads: str, writes: str) -> list[int]:
    """Return the layers at which a recording has both hook points of a set. Raises `ConfigError` without any."""
    points = [parse_hook_point(name) for name in recording.hook_points]
    both = {side: {p.layer for p in points if p.suffix == side and p.layer is not None} for side in (reads, writes)}
    if not both[reads] & both[writes]:
        raise ConfigError(
            f"{recording.folder} holds no layer's blocks.N.{reads} and blocks.N.{writes}; record MLP inputs and "
            "outputs: workbench record MODEL --live --hook-points mlps"
        )
    return sorted(both[reads] & both[writes])


def default_writes(recording: Recording) -> str:
    """Return the hook point inside a block that a recording's transcoders predict."""
    return MLP_OUT_BEFORE_NORM if any(name.endswith(MLP_OUT_BEFORE_NORM) for name in recording.hook_points) else MLP_OUT


def transcoder_config(config: SAEConfig, target: str, *, skip: bool = False) -> TranscoderConfig:
    """Return a transcoder with the latents of an SAE's config."""
    if isinstance(config, TranscoderConfig):
        return replace(config, target=target)
    named = {name: getattr(config, name) for name in setting_names(TranscoderConfig) if hasattr(config, name)}
    return TranscoderConfig(
        **{"k": min(32, config.d_sae), **named, "target": target, "skip": skip, "selection": config.kind}
    )


def train_set(
    recording: Recording,
    plan: SetTraining,
    folder: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
    spread: Spread = UNSHARED,
    progress: Progress | None = None,
) -> TranscoderSet:
    """Train a set to the end and return it. Raises as `training`.

    `recording` holds the activations, `plan` says what is trained on them, and `spread` shares the work over processes.
    `progress(tokens, total, metrics)` is called at every health line, with the layer among the metrics.
    """
    for layer, metrics in training(recording, plan, folder, overwrite=overwrite, device=device, spread=spread):
        if progress:
            progress(metrics.tokens, plan.train.tokens, {"layer": layer, **asdict(metrics)})
    return read_set(folder)


def training(
    recording: Recording,
    plan: SetTraining,
    folder: Path,
    *,
    overwrite: bool = False,
    device: str | None = None,
    spread: Spread = UNSHARED,
    report: Callable[[str], None] = lambda _: None,
) -> Generator[tuple[int, Metrics], None, None]:
    """Train a set into `folder`, yielding the health lines of every layer; the folder is whole when it ends.

    Those of a `CrossLayerConfig` are of all layers together, yielded as layer -1. `report` gets a line between the last
    step and the scores. Raises as `saes.training.train.train` does.
    """
    folder = Path(folder)
    with spread.ranks.checked():
        config, train = plan.sae, plan.train
        reads, writes = plan.reads or MLP_IN, plan.writes or default_writes(recording)
        recorded = recorded_layers(recording, reads, writes)
        chosen = sorted(set(plan.layers)) or recorded
        if unknown := [layer for layer in chosen if layer not in recorded]:
            raise MissingError(
                f"{recording.folder} has no blocks.{unknown[0]}.{reads} and blocks.{unknown[0]}.{writes}; record them, "
                f"or choose among layers {', '.join(map(str, recorded))}"
            )
        shards = range(recording.n_shards)
        if not any(len(recording.real_rows(n, "heldout", train.heldout_fraction)) for n in shards):
            raise ConfigError(
                f"none of the documents of {recording.folder} is held out, so the set could not be scored at the end; "
                "raise heldout_fraction, or record more documents"
            )
        across = isinstance(config, CrossLayerConfig)
        if across and chosen != list(range(len(chosen))):
            raise ConfigError(
                f"layers of a cross-layer transcoder are counted from 0, got {', '.join(map(str, chosen))}"
            )
    settings = TrainedSetSettings(
        sae=config,
        train=train,
        skip=plan.skip,
        model=recording.model,
        weight_hash=recording.weight_hash,
        recording=recording.folder.name,
        recording_hash=recording.manifest.content_hash,
        reads=reads,
        writes=writes,
        layers=tuple(chosen),
    )
    identity, seed = settings_json(settings), train.seed
    draft = open_draft(spread.ranks, folder, kind=StoredSet.kind, config=identity, seed=seed, overwrite=overwrite)
    set_config = SetConfig(
        reads=reads, writes=writes, layers=tuple(chosen), cross_layer=across, about=SAEMetadata.of(recording)
    )
    maker = _CrossLayer if across else _PerLayer
    made = maker(recording, settings, draft, set_config, device=device, spread=spread)
    with contextlib.closing(made.advance()) as lines:
        for layer, metrics in lines:
            if spread.ranks.first:
                draft.update(**asdict(metrics), layer=layer, total_tokens=train.tokens)
            yield layer, metrics
    if spread.ranks.first:
        report("scores on held-out text, of every layer and of the model with all MLPs replaced")
    made.finish()


class _Training:
    """The parts of training that both kinds of sets share."""

    def __init__(
        self,
        recording: Recording,
        settings: TrainedSetSettings,
        draft: Draft,
        set_config: SetConfig,
        *,
        device: str | None,
        spread: Spread,
    ):
        self.recording, self.settings, self.draft, self.about = recording, settings, draft, set_config
        self.config, self.train, self.skip = settings.sae, settings.train, settings.skip
        self.device, self.spread, self.ranks = device, spread, spread.ranks
        self.open_runs()

    def open_runs(self) -> None:
        """Open the training of every layer, or of all layers together."""
        raise NotImplementedError

    def source(self, layer: int) -> RowSource:
        """Return the sites of one layer."""
        point = f"blocks.{layer}."
        return RowSource(self.recording, point + self.about.reads, target=point + self.about.writes)

    def write(self, sae_set: TranscoderSet, untrained: TranscoderSet, logs: dict[str, str], run: TrainingRun) -> None:
        """Score the set, write its files and finish the artefact; `logs` by their folder in `runs`."""
        scores = evaluate_layers(sae_set, self.recording, heldout_fraction=self.train.heldout_fraction)
        tokens, documents = self.recording.contexts_and_documents(
            split="heldout", limit=CONTEXTS, heldout_fraction=self.train.heldout_fraction
        )
        loss = None
        if len(tokens):
            model = self._model()
            means = {n: self.recording.stats(sae_set.hook_point_out(n)).mean for n in sae_set.layers}
            l0 = {layer: score.l0 for layer, score in scores.items()}
            loss = evaluate_in_model(
                sae_set, model, tokens, documents=documents, means=means, l0=l0, untrained=untrained
            )
        write_config(self.draft.path, self.about)
        if isinstance(sae_set, CrossLayerSet):
            write_cross_layer(self.draft.path, sae_set.clt)
        elif isinstance(sae_set, PerLayerSet):
            for layer in sae_set.layers:
                write_layer(self.draft.path, layer, sae_set.transcoder(layer))
        shutil.rmtree(self.draft.path / RUNS, ignore_errors=True)
        for relative, log in logs.items():
            with atomic_file(self.draft.path / RUNS / relative / LOG) as temporary:
                temporary.write_text(log, encoding="utf-8")
        stored = StoredSet(
            settings=self.settings,
            layers=sae_set.layers,
            cross_layer=sae_set.cross_layer,
            reads=sae_set.reads,
            writes=sae_set.writes,
            d_sae=sae_set.d_sae(sae_set.layers[0]),
            training=run,
            scores=SetScores(n_tokens=scores[sae_set.layers[0]].n_tokens, layers=layer_scores(scores), loss=loss),
            format="",
            checks=(),
        )
        parents = {
            self.recording.key: self.recording.manifest.content_hash,
            f"model:{sae_set.model}": sae_set.weight_hash,
        }
        threads = torch.get_num_threads()
        save_artefact(
            stored, self.draft.folder, parents=parents, seed=self.train.seed, threads=threads, draft=self.draft
        )

    def run_of(self, plan: TrainingPlan, seconds: float) -> TrainingRun:
        """Return length and speed of a training of `seconds`."""
        tokens = plan.n_steps * plan.batch_size
        speed = round(tokens / max(seconds, 1e-9))
        return TrainingRun(
            tokens_seen=tokens,
            tokens_per_second=speed,
            plan=str(plan),
            ranks={"tokens": self.spread.tokens.world, "latents": 1},
        )

    def _model(self) -> HookedModel:
        """Return the recording's model: that of a live recording is loaded already."""
        from interp.models.loading import load_model
        from interp.recording.live import LiveRecording

        if isinstance(self.recording, LiveRecording):
            return self.recording.loaded_model
        model = load_model(self.recording.model, device="cpu")
        if weight_hash(model) != self.recording.weight_hash:
            raise MissingError(
                f"{self.recording.model!r} has other weights than when {self.recording.key} was recorded"
            )
        return model


class _PerLayer(_Training):
    """One run for each layer."""

    def open_runs(self) -> None:
        with self.ranks.checked():
            self.sources = {layer: self.source(layer) for layer in self.about.layers}
            self._first: dict[int, TrainingBatch] = {}
        buffers, folder = Buffers(), self.draft.path / RUNS
        self.runs: dict[int, TrainingProcess] = {}
        for layer, source in self.sources.items():
            config = transcoder_config(self.config, str(source.outputs[0].hook_point), skip=self.skip)
            job = Job(sae=config, train=self.train, folder=folder / f"layer_{layer}")
            self.runs[layer] = TrainingProcess(
                source,
                job,
                device=self.device,
                spread=self.spread,
                first_batch=partial(self.first_batch, layer),
                buffers=buffers,
            )

    def first_batch(self, layer: int) -> TrainingBatch:
        """Return the first batch of a layer; those of all layers are read together, once."""
        if not self._first:
            size = plan(self.train, d_in=self.sources[layer].d_in, d_sae=self.config.d_sae).batch_size
            sources, share = list(self.sources.values()), self.train.heldout_fraction
            batches = training_batches(sources, batch_size=size, heldout_fraction=share, seed=self.train.seed)
            self._first = dict(zip(self.sources, next(batches), strict=True))
        return self._first[layer]

    def advance(self) -> Generator[tuple[int, Metrics], None, None]:
        """Take all steps."""
        self._first.clear()
        layer_of = {id(run): layer for layer, run in self.runs.items()}
        for run, metrics in advance(list(self.runs.values()), self.spread):
            yield layer_of[id(run)], metrics

    def finish(self) -> None:
        """Estimate thresholds and write the set."""
        states = {layer: run.settle() for layer, run in self.runs.items()}
        with self.ranks.checked(patient=True):
            if self.ranks.first:
                samples = self._samples()
                trained = {n: self._transcoder(run, states[n], samples[n]) for n, run in self.runs.items()}
                fresh = {
                    n: self._transcoder(run, run.start(partial(self.first_batch, n)).state, samples[n])
                    for n, run in self.runs.items()
                }
                runs = list(self.runs.values())
                run = self.run_of(runs[0].plan, sum(layer_run.seconds for layer_run in runs))
                self.write(self._set(trained), self._set(fresh), self._logs(), run)

    def _set(self, transcoders: dict[int, Transcoder]) -> PerLayerSet:
        about = self.about
        return PerLayerSet(transcoders, reads=about.reads, writes=about.writes, about=about.about)

    def _samples(self) -> dict[int, list[Tensor]]:
        by_layer: dict[int, list[Tensor]] = {layer: [] for layer in self.runs}
        for batches in islice(read_together(list(self.runs.values()), Position(), whole=True), SAMPLES):
            for samples, batch in zip(by_layer.values(), batches, strict=True):
                samples.append(batch.x)
        return by_layer

    def _transcoder(self, run: TrainingProcess, state: RunState, samples: list[Tensor]) -> Transcoder:
        transcoder = run.trained(state, (x.float() for x in samples))
        assert isinstance(transcoder, Transcoder)
        return transcoder

    def _logs(self) -> dict[str, str]:
        return {run.folder.name: (run.draft.path / LOG).read_text(encoding="utf-8") for run in self.runs.values()}


class _CrossLayer(_Training):
    """One run for all layers."""

    def open_runs(self) -> None:
        with self.ranks.checked():
            source = Layers([self.source(layer) for layer in self.about.layers])
        config = replace(self.config, skip=self.skip)
        assert isinstance(config, CrossLayerConfig)
        job = Job(sae=config, train=self.train, folder=self.draft.path / RUNS / ALL)
        self.run = TrainingProcess(source, job, device=self.device, spread=self.spread)

    def advance(self) -> Generator[tuple[int, Metrics], None, None]:
        """Take all steps."""
        for _, metrics in advance([self.run], self.spread):
            yield -1, metrics

    def finish(self) -> None:
        """Write the set."""
        state = self.run.settle()
        with self.ranks.checked(patient=True):
            if self.ranks.first:
                made = [self._set(run_state) for run_state in (state, self.run.start().state)]
                logs = {"": (self.run.draft.path / LOG).read_text(encoding="utf-8")}
                self.write(made[0], made[1], logs, self.run_of(self.run.plan, self.run.seconds))

    def _set(self, state: RunState) -> CrossLayerSet:
        samples = (batches[0].x for batches in read_together([self.run], Position(), whole=True))
        clt = self.run.trained(state, samples)
        assert isinstance(clt, CrossLayerTranscoder)
        return CrossLayerSet(clt, reads=self.about.reads, writes=self.about.writes, about=self.about.about)
