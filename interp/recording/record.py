"""Record a model's activations on text: any set of hook points in one pass, sharded, resumable to the same bits.

Steps of `record`: check the request (`recording_settings`) and the free disk space, cut the text into shards
(`cut_text`), run the model on each up to the last hook point and write it on another thread
(`compute_missing_shards`), merge the moments (`write_stats`), save the artefact. An interrupted run retains every
finished shard; the same call computes the others and ends with the same bytes. At most three shards are in memory,
whatever the number of tokens.

Several ranks (`interp.ranks`) take the shards in turn, all writing into one folder; the first cuts the text for
all. The bytes are those of one process, and a run may be resumed by another number of ranks.

`text_problems` checks the text of a recording: tokens out of order, twice or missing, or other than its corpus gives.
"""

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from interp.artifacts import Draft, open_artefact, partial_path, save_artefact
from interp.artifacts.artefact import settings_json
from interp.cache import size_text
from interp.engines.bridge import engine_of
from interp.engines.engine import Engine, ReadsRows
from interp.errors import ConfigError, ResourceError, WorkbenchError
from interp.models.hooked import HookedModel
from interp.models.identity import vocabulary_hash
from interp.progress import Progress
from interp.ranks import ALONE, Ranks, open_draft
from interp.recording.recorded import RecordConfig, Recorded, RecordedText, RecordingSettings, ShardEntry
from interp.recording.rows import load_tensors, memory_dtype, stored_type
from interp.recording.store import Recording, TokenShard, text_of
from interp.recording.writer import (
    ComputedShard,
    Moments,
    ShardLog,
    ShardWriter,
    merge_moments,
    moments,
    save_stats,
    shard_name,
    store,
    text_files,
    write_stats,
)
from interp.text.corpora import Corpus, Document, open_corpus
from interp.text.tokens import ShardText, Tokenizer, as_bytes, check_policy, shard_texts, texts_of

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "int8": 1}
_SCALE_BYTES = {"int8": 4}
_TOKEN_BYTES = 3 * 4  # tokens, document, position
_SQUARE = ("hook_pattern", "hook_attn_scores")  # dest x src: not one vector a token
DEFAULT_SHARD_ROWS = 32_768
LIVE_STATS_TOKENS = 65_536


def record(
    model: HookedModel | Engine,
    documents: Corpus | Sequence[Document],
    folder: str | Path,
    config: RecordConfig | None = None,
    *,
    hook_points: Sequence[str],
    overwrite: bool = False,
    progress: Progress | None = None,
    ranks: Ranks = ALONE,
    draft: Callable[[RecordingSettings], Draft] | None = None,
) -> Recorded:
    """Record at least `config.tokens` real tokens (BOS and padding not counted; fewer when the text ends).

    The model computes in its own dtype; `config.dtype` is how values are stored. With `config.live` only the text and
    the moments of its first tokens are written, and activations are computed whenever they are read (`live`).

    Args:
        model: its activations are recorded; or an engine with one in it (`interp.engines`).
        documents: a corpus of `open_corpus`, or documents.
        folder: where the recording goes, such as `workspace.path("recording", "mine")`.
        config: number of tokens, context length, dtype of what is stored (default: `RecordConfig()`).
        hook_points: names of the values to record.
        overwrite: replace a recording of that name.
        progress: called after every batch with `(done, total, info)` in real tokens, and `info["tokens_per_second"]`.
        ranks: several processes that share the work, each called with the same arguments on the same file system; the
            first of them reports progress and finishes.
        draft: returns the work in progress of some settings. With it the caller saves what is returned.
    Returns: what was recorded, without its values; `open_recording(folder)` reads them.
    Raises:
        UnknownNameError: a hook point that the model lacks.
        ConfigError: settings that do not fit the model.
        ResourceError: no room on the disk.
        NonFiniteError: NaN, or an overflow of the stored dtype.
        MismatchError: an unfinished run with other settings or other text is in the way.
        OtherRankError, LostRankError: another rank failed, or is gone.

    >>> pages, config = [Document("A page. " * 99, "a", "mine")], RecordConfig(tokens=200, context_length=16)
    >>> record(model, pages, folder / "mine", config, hook_points=[point]).headline()
    '210 tokens of 1 documents read by small:mlp-2l, at blocks.0.hook_resid_post'
    """
    folder, config = Path(folder), config or RecordConfig()
    with ranks.checked():
        engine = engine_of(model)
        settings = recording_settings(engine, documents, hook_points, config)
        widths = probe_widths(engine, settings.hook_points)
        if ranks.first:
            needed = bytes_needed({} if config.live else widths, settings.expected_rows, settings.dtype)
            check_space(folder, needed, already=folder_bytes(partial_path(folder)))
    work = (draft or partial(_open_draft, folder, config.seed, overwrite, ranks))(settings)
    world = 1 if engine.together else ranks.world
    log, meter = ShardLog(work, ranks), _Meter(settings.n_tokens, progress if ranks.first else None, world)
    compute_missing_shards(engine, cut_text(documents, engine.tokenizer, settings), settings, log, meter)
    log.join()
    speed = meter.speed if engine.together else ranks.total(meter.speed)
    with ranks.checked(patient=True):
        artefact = recorded(settings, log.entries, widths, round(speed, 1), ranks.world)
        if ranks.first:
            if config.live:
                write_first_stats(engine, work.path, log, settings)
            else:
                artefact = replace(artefact, rounding=write_stats(work, log, settings.hook_points))
            if draft is None:
                parents = {f"model:{settings.model}": settings.weight_hash}
                save_artefact(artefact, folder, parents=parents, threads=torch.get_num_threads(), draft=work)
    return artefact if draft is not None else open_artefact(Recorded, folder)


def recording_settings(
    engine: Engine,
    documents: Corpus | Sequence[Document],
    hook_points: Sequence[str],
    config: RecordConfig,
) -> RecordingSettings:
    """Return the settings that determine a recording: those asked for, checked against the model, without defaults."""
    check_policy(engine.tokenizer, config.context_length, config.bos)
    if config.live and engine.together:
        raise ConfigError("a live recording is read by one process; leave --live out, or record it without torchrun")
    if not hook_points:
        raise ConfigError("no hook point was given; name at least one, for example blocks.9.hook_resid_post")
    if config.context_length > engine.n_ctx:
        raise ConfigError(
            f"context_length {config.context_length} is longer than the {engine.n_ctx} tokens that {engine.about} takes"
        )
    contexts = config.shard_contexts or max(1, DEFAULT_SHARD_ROWS // config.context_length)
    corpus, corpus_hash = _corpus_identity(documents)
    return RecordingSettings(
        model=engine.spec,
        weight_hash=engine.weight_hash,
        hook_points=engine.check(hook_points),
        context_length=config.context_length,
        bos=config.bos,
        dtype=stored_type(config.dtype),
        n_tokens=config.tokens,
        text=RecordedText(
            corpus=corpus,
            corpus_hash=corpus_hash,
            tokenizer_hash=engine.tokenizer_hash,
            engine=engine.about,
            compute_dtype=engine.precision,
            attention=engine.attention,
            batch_size=config.batch_size,
            shard_rows=math.ceil(contexts / config.batch_size) * config.batch_size * config.context_length,
            live=config.live,
        ),
    )


def _corpus_identity(documents: Corpus | Sequence[Document]) -> tuple[str, str]:
    if isinstance(documents, Corpus):
        return documents.spec, documents.hash
    digest = hashlib.sha256()
    for document in documents:
        digest.update("\0".join(document).encode() + b"\n")
    return f"{len(documents)} documents", digest.hexdigest()


def _open_draft(folder: Path, seed: int, overwrite: bool, ranks: Ranks, settings: RecordingSettings) -> Draft:
    config = settings_json(settings)
    return open_draft(ranks, folder, kind="recording", config=config, seed=seed, overwrite=overwrite)


def cut_text(documents: Iterable[Document], tokenizer: Tokenizer, settings: RecordingSettings) -> Iterator[ShardText]:
    """Yield the shards of a recording's text, in order."""
    return shard_texts(
        documents,
        tokenizer,
        context_length=settings.context_length,
        bos=settings.bos,
        n_tokens=settings.n_tokens,
        shard_contexts=settings.text_read.shard_rows // settings.context_length,
    )


def compute_missing_shards(
    engine: Engine, texts: Iterator[ShardText], settings: RecordingSettings, log: ShardLog, meter: "_Meter"
) -> None:
    """Compute and write every shard that no earlier run has finished, in rounds over all ranks.

    The first rank cuts the text and sends it to the others. Where ranks run the model together, a round is one shard,
    which all of them compute and the first writes.
    """
    ranks, live, missing, more = log.ranks, settings.text_read.live, _missing(texts, log, meter), True
    n = 1 if engine.together else ranks.world
    batch_size = batch_size_of(engine, settings.text_read)
    with ranks.checked(), engine.reading(settings.hook_points) as reader, ShardWriter(log.draft, log) as writer:
        run = partial(_compute, reader, settings=settings, batch_size=batch_size, meter=meter)
        while more:
            with ranks.checked():
                with ranks.checked(patient=True):  # a resumed run cuts all text again
                    cut = list(islice(missing, n)) if ranks.first else []
                turn = texts_of(ranks.first_bytes(as_bytes(cut))) if ranks.world > 1 else cut
                for rank, text in enumerate(turn):
                    if engine.together:
                        with ranks.in_touch():
                            shard = run(text)
                        if ranks.first:
                            writer.put(shard)
                    elif rank == ranks.rank:
                        writer.put(_text_only(text, meter) if live else run(text))
                    else:
                        meter.elsewhere(text.n_real)
                more = len(turn) == n
            log.tell()


def batch_size_of(engine: Engine, text: RecordedText) -> int:
    return text.shard_rows if engine.whole_shards else text.batch_size


def _missing(texts: Iterator[ShardText], log: ShardLog, meter: "_Meter") -> Iterator[ShardText]:
    """Yield the shards that no earlier run has finished, and check the text of the others."""
    before = {entry["shard"] for entry in log.entries}
    for text in texts:
        if text.number in before:
            log.check_text(text)
            meter.skip(text.n_real)
        else:
            yield text


def _compute(
    reader: ReadsRows, text: ShardText, *, settings: RecordingSettings, batch_size: int, meter: "_Meter"
) -> ComputedShard:
    """Run the model on the contexts of one shard."""
    activations = compute_activations(
        reader,
        text,
        batch_size=batch_size,
        dtype=memory_dtype(settings.dtype),
        on_pass=lambda n_real: meter.add(n_real, text.number),
    )
    return ComputedShard(text, activations)


def _text_only(text: ShardText, meter: "_Meter") -> ComputedShard:
    meter.add(text.n_real, text.number)
    return ComputedShard(text, {})


def compute_activations(
    reader: ReadsRows,
    text: ShardText,
    *,
    batch_size: int,
    dtype: torch.dtype,
    on_pass: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Return activations `[n_rows, d]` by hook point for all contexts of `text`, `batch_size` a pass, in storage dtype.

    `on_pass(n_real)` is called after every pass. Raises `NonFiniteError` (NaN, infinity, or overflow of `dtype`).
    """
    stored: dict[str, Tensor] = {}
    context_length = text.tokens.shape[1]
    for first in range(0, len(text.tokens), batch_size):
        contexts = slice(first, first + batch_size)
        tokens = torch.from_numpy(text.tokens[contexts]).long()
        for name, values in reader(tokens).items():
            if name not in stored:
                stored[name] = torch.empty(text.n_rows, values[0, 0].numel(), dtype=dtype)
            start = first * context_length
            store(values, stored[name][start : start + tokens.numel()], name, text, first)
        if on_pass is not None:
            on_pass(int((text.document[contexts] >= 0).sum()))
    return {name: stored[name] for name in reader.names}


def write_first_stats(engine: Engine, folder: Path, log: ShardLog, settings: RecordingSettings) -> None:
    """Write the moments of the first `LIVE_STATS_TOKENS` real tokens (whole shards), which training starts from."""
    totals: dict[str, Moments] = {}
    n = 0
    with engine.reading(settings.hook_points) as reader:
        for entry in log.entries:
            columns = load_tensors(folder / "tokens" / f"{shard_name(entry['shard'])}.safetensors")
            text = text_of(entry["shard"], TokenShard(**columns), settings.context_length)
            values = compute_activations(
                reader, text, batch_size=batch_size_of(engine, settings.text_read), dtype=memory_dtype(settings.dtype)
            )
            for name, rows in values.items():
                block = moments(rows, text.document.reshape(-1) >= 0)
                totals[name] = merge_moments(totals[name], block) if name in totals else block
            n += entry["real"]
            if n >= LIVE_STATS_TOKENS:
                break
    for name, total in totals.items():
        save_stats(folder, name, total)


def recorded(
    settings: RecordingSettings, entries: list[ShardEntry], widths: dict[str, int], speed: float | None, ranks: int
) -> Recorded:
    """Return the artefact of a recording whose shards are finished, from their log."""
    return Recorded(
        settings=settings,
        n_real=sum(entry["real"] for entry in entries),
        n_documents=sum(entry["documents"] for entry in entries),
        shard_rows=tuple(entry["rows"] for entry in entries),
        widths=widths,
        tokens_per_second=speed,
        ranks=ranks,
    )


class _Meter:
    """Count tokens, those of other ranks too, and report `progress`."""

    def __init__(self, total: int, progress: Progress | None, world: int = 1):
        self._total, self._progress, self._world = total, progress, world
        self._done = self._computed = 0
        self._started = time.perf_counter()

    @property
    def speed(self) -> float:
        """Real tokens per second of this rank; 0 when every shard existed already."""
        return self._computed / max(time.perf_counter() - self._started, 1e-9)

    def skip(self, n: int) -> None:
        self._done += n
        if not self._computed:
            self._started = time.perf_counter()  # shards that existed already say nothing about speed

    def elsewhere(self, n: int) -> None:
        self._done += n

    def add(self, n: int, shard: int) -> None:
        self._done += n
        self._computed += n
        if self._progress is not None:
            info = {"tokens_per_second": self.speed * self._world, "shard": shard}
            self._progress(min(self._done, self._total), self._total, info)


def probe_widths(model: HookedModel | Engine, hook_points: Sequence[str]) -> dict[str, int]:
    """Measure the width at each hook point, from a run on 14 tokens (heads are concatenated).

    Raises `ConfigError` for a hook point without one vector per token.
    """
    for name in hook_points:
        if name.endswith(_SQUARE):
            raise ConfigError(f"{name} has one number per pair of tokens, a recording needs one vector per token")
    tokens = torch.zeros(2, 7, dtype=torch.long)
    with engine_of(model).reading(hook_points) as reader:
        values = reader(tokens)
    for name, value in values.items():
        if value.shape[:2] != tokens.shape or value.ndim < 3 or not value.is_floating_point():
            raise ConfigError(
                f"{name} holds values of shape {tuple(value.shape)} for tokens of shape {tuple(tokens.shape)}; "
                "a recording needs one vector per token"
            )
    return {name: math.prod(values[name].shape[2:]) for name in hook_points}


def bytes_needed(widths: dict[str, int], n_rows: int, dtype: str) -> int:
    """Return the size in bytes of a recording of `n_rows` rows, without small tables."""
    scales = len(widths) * _SCALE_BYTES.get(dtype, 0)
    return n_rows * (sum(widths.values()) * _BYTES[dtype] + scales + _TOKEN_BYTES)


def check_space(folder: Path, needed: int, already: int = 0) -> None:
    """Raise `ResourceError` when the recording exceeds the free disk (minus what exists already)."""
    free = shutil.disk_usage(existing_parent(folder)).free
    if needed - already > free:
        raise ResourceError(
            f"the recording needs {size_text(needed - already)} at {folder}, {size_text(free)} are free; record fewer "
            "tokens or hook points, or in a narrower --dtype, or choose another --workspace"
        )


def existing_parent(path: Path) -> Path:
    """Return the nearest existing folder above `path`."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def folder_bytes(folder: Path) -> int:
    """Return the total size of the files in a folder; 0 when it does not exist."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def order_problems(recording: Recording) -> Iterator[str]:
    """Yield where tokens are not in document order: a shard is repeated or missing."""
    before = torch.tensor([[-1], [0]])
    for shard in range(recording.n_shards):
        columns = recording.token_shard(shard)
        real = columns.document >= 0
        document, position = torch.cat([before, torch.stack([columns.document, columns.position])[:, real].long()], 1)
        goes_on = (document.diff() == 0) & (position.diff() == 1)
        begins = (document.diff() > 0) & (position[1:] == 0)
        if len(wrong := (~(goes_on | begins)).nonzero()):
            yield (
                f"tokens/{shard:05d}.safetensors: {_token(document, position, int(wrong[0]) + 1)} follows "
                f"{_token(document, position, int(wrong[0]))}: text is there twice, or is missing"
            )
        before = torch.stack([document, position])[:, -1:]


def _token(document: Tensor, position: Tensor, at: int) -> str:
    return f"token {int(position[at])} of document {int(document[at])}" if document[at] >= 0 else "the beginning"


def corpus_problems(recording: Recording, corpus: Corpus, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the shards whose text differs from that of their corpus, read again by one process."""
    settings, stored = recording.artefact.settings, recording.manifest.files
    for shard in cut_text(corpus, tokenizer, settings):
        for relative, content in text_files(shard).items():
            if stored.get(relative, {}).get("sha256") != hashlib.sha256(content).hexdigest():
                yield f"{relative}: holds other text than {settings.text_read.corpus} gives"


def source_of_text(recording: Recording) -> tuple[Corpus, Tokenizer] | str:
    """Return the corpus and tokenizer that a recording was made with, or why it cannot be compared with them."""
    from interp.models.loading import chat_template, load_tokenizer

    text, settings = recording.artefact.settings.text, recording.artefact.settings
    if text is None:
        return "planted features have no text"
    if text.corpus.startswith("hub:"):
        return f"{text.corpus} would have to be downloaded"
    try:
        template = chat_template(settings.model)
        corpus = open_corpus(text.corpus, seed=recording.manifest.seed or 0, template=template)
        if corpus.hash != text.corpus_hash:
            return f"{text.corpus} has changed since"
        tokenizer = load_tokenizer(settings.model)
    except WorkbenchError as error:
        return str(error)
    if vocabulary_hash(tokenizer) != text.tokenizer_hash:
        return f"{settings.model} has another tokenizer now"
    return corpus, tokenizer


def text_problems(recording: Recording) -> tuple[list[str], str]:
    """Return what is wrong with the text of a recording, and why it was not compared with its corpus, if so."""
    problems = list(order_problems(recording))
    source = source_of_text(recording)
    if isinstance(source, str):
        return problems[:3], source
    return [*problems, *corpus_problems(recording, *source)][:3], ""
