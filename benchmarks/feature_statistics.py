"""Speed of the pass that collects the statistics and examples of features, relative to the encoder alone.

The streaming pass over a recording reads shards from disk, checks them for NaN, encodes and counts. It also stores the
strongest and the sampled firings with their windows. The baseline is the encoder's matrix product alone on the same
blocks, in memory in float32. The dictionary is TopK with k 32 and 4,608 latents, on SmolLM2's residual stream after
block 9. Its encoder rows are centred data directions, so that firings are distributed as unevenly as in a trained
dictionary. Rounds alternate; the ratio is their median.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Result, interleaved, main, median_ratio

HOOK_POINT, D_SAE, K, N_TOKENS, REPEATS = "blocks.9.hook_resid_post", 4608, 32, 40_000, 5


def run() -> list[Result]:
    """Measure the tokens per second of the pass, relative to the encoder's product alone."""
    with tempfile.TemporaryDirectory() as scratch:
        recording = _recorded(Path(scratch) / "recordings" / "speed")
        sae = _dictionary(recording)
        ours, alone = interleaved(_statistics_pass(sae, recording), _encoder_product(sae, recording), repeats=REPEATS)
        n = recording.n_real
    return [
        Result(
            question="feature statistics pass, TopK 4,608 latents",
            ratio=median_ratio(alone, ours),
            target=0.5,
            against="encoder matmul alone on the same blocks",
            detail=f"{n / min(ours):,.0f} tokens/s, matmul {n / min(alone):,.0f} (best of {REPEATS})",
        )
    ]


def _recorded(folder: Path) -> Any:
    from interp.models.loading import load_model
    from interp.recording.record import record
    from interp.recording.recorded import RecordConfig
    from interp.recording.store import Recording
    from interp.text.corpora import open_corpus

    documents = list(itertools.islice(open_corpus("docstrings"), 400))
    record(load_model("smollm2-135m"), documents, folder, RecordConfig(tokens=N_TOKENS), hook_points=[HOOK_POINT])
    return Recording(folder)


def _dictionary(recording: Any) -> Any:
    import torch

    from saes.kinds.base import SAEMetadata, Weights
    from saes.kinds.topk import TopKSAE

    mean = recording.stats(HOOK_POINT).mean.float()
    rows = next(iter(recording.shuffled([HOOK_POINT], batch_size=D_SAE, seed=0))).activations[HOOK_POINT]
    W_dec = torch.nn.functional.normalize(rows - mean, dim=1)
    weights = Weights(W_dec.T.contiguous(), torch.zeros(D_SAE), W_dec, mean)
    return TopKSAE(weights, k=K, metadata=SAEMetadata(hook_point=HOOK_POINT))


def _statistics_pass(sae: Any, recording: Any) -> Callable[[], object]:
    from saes.features.firings import Encoded, collect_together

    return lambda: collect_together([Encoded(sae, HOOK_POINT)], recording, window=16, n_top=12, seed=0)[0]


def _encoder_product(sae: Any, recording: Any) -> Callable[[], object]:
    import torch

    from saes.features.firings import BLOCK_ROWS

    batches = recording.sequential([HOOK_POINT], batch_size=BLOCK_ROWS)
    blocks = [batch.activations[HOOK_POINT] for batch in batches]
    room = torch.empty(BLOCK_ROWS, D_SAE)

    def once() -> None:
        for block in blocks:
            torch.mm(block, sae.W_enc, out=room[: len(block)])

    return once


if __name__ == "__main__":
    main(run)
