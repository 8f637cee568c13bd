"""Throughput of recording activations, relative to the bare model.

SmolLM2's residual stream after block 9 is recorded: shards are written, fsynced and checksummed, and moments are
accumulated. The baseline is a plain torch forward hook that stops the pass at the same hook point and does nothing with
the values. Both use the same weights, attention kernel and batches of 16 x 128 tokens, without a key-value cache.
A recording has a fixed cost of about .1 s (manifest, widths, the last shard), little beside a pass of this length.

The same hook is also timed in a process of its own, as a script of the reader's would run it: there the C library has
its usual limits, and gives the memory of every layer back to the system (`interp.devices`).

Rounds alternate; the ratio is between the best rounds of each, which other work on the machine disturbs least.
"""

import contextlib
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.report import Result, at_least, interleaved, main
from interp.models.hooked import HookedModel

LAYER, BATCH, CONTEXT, N_BATCHES, REPEATS = 9, 16, 128, 16, 5


def run() -> list[Result]:
    """Measure the throughput of recording, relative to a plain torch forward hook with early stop."""
    return [*_measure("sdpa"), *_measure("eager")]


def _measure(attention: Any) -> list[Result]:
    from interp.models.loading import load_model

    model = load_model("smollm2-135m", attention=attention)
    documents, contexts = _text(model)
    plain = _plain_pass(attention, contexts)
    with tempfile.TemporaryDirectory() as scratch, _in_another_process(attention, contexts) as script:
        recording = _recording_pass(model, documents, Path(scratch) / "recordings" / "speed")
        ours, bare, alone = (min(seconds) for seconds in interleaved(recording, plain, script, repeats=REPEATS))
    rows = N_BATCHES * BATCH * CONTEXT
    hook = "plain torch forward hook with early stop"
    return [
        at_least(
            f"recording throughput, {attention} attention",
            seconds / ours,
            target,
            against,
            f"{rows / ours:,.0f} rows/s recorded, {rows / seconds:,.0f} bare (best of {REPEATS})",
        )
        for seconds, target, against in ((bare, 0.95, hook), (alone, 1.0, f"{hook}, in a process of its own"))
    ]


@contextlib.contextmanager
def _in_another_process(attention: str, tokens: Any) -> Iterator[Callable[[], None]]:
    """Yield a function that runs the plain pass once in another process and waits for it."""
    parent_end, child_end = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=(child_end, attention, tokens))
    child.start()

    def once() -> None:
        parent_end.send(True)
        parent_end.recv()

    try:
        yield once
    finally:
        parent_end.send(False)
        child.join()


def _serve(pipe: Connection, attention: str, tokens: Any) -> None:
    """Run a plain pass whenever the other end of the pipe asks for one."""
    plain = _plain_pass(attention, tokens)
    while pipe.recv():
        plain()
        pipe.send(True)


def _text(model: HookedModel) -> tuple[list[Any], Any]:
    """Return documents that fill the batches exactly, and the same tokens as `[n_contexts, CONTEXT]`."""
    import itertools

    import torch

    from interp.models.identity import tokenizer_of
    from interp.text.corpora import open_corpus
    from interp.text.tokens import pack

    documents = list(itertools.islice(open_corpus("docstrings"), 200))
    packed = itertools.islice(pack(documents, tokenizer_of(model), CONTEXT), N_BATCHES * BATCH)
    tokens = torch.stack([torch.from_numpy(context.tokens) for context in packed]).long()
    assert len(tokens) == N_BATCHES * BATCH, "more documents are needed"
    return documents, tokens


def _recording_pass(model: HookedModel, documents: list[Any], folder: Path) -> Callable[[], None]:
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig

    def once() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        record(
            model,
            documents,
            folder,
            RecordConfig(
                tokens=N_BATCHES * BATCH * (CONTEXT - 1),
                context_length=CONTEXT,
                batch_size=BATCH,
                shard_contexts=2 * BATCH,
            ),
            hook_points=[f"blocks.{LAYER}.hook_resid_post"],
        )

    return once


def _plain_pass(attention: str, tokens: Any) -> Callable[[], None]:
    import torch
    from transformers import AutoModelForCausalLM

    from interp.models.loading import packaged_folder, quiet_transformers

    class Stop(Exception):
        pass

    def hook(_module: Any, _inputs: Any, _output: Any) -> None:
        raise Stop

    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            packaged_folder("smollm2-135m"), dtype=torch.float32, attn_implementation=attention
        ).eval()
    model.model.layers[LAYER].register_forward_hook(hook)

    def once() -> None:
        with torch.inference_mode():
            for batch in tokens.split(BATCH):
                try:
                    model(batch, use_cache=False)
                except Stop:
                    continue

    return once


if __name__ == "__main__":
    main(run)
