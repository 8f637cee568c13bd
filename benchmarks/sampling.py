"""Sampled text: tokens per second against `generate` of transformers, in batches of 64, in float32 and bfloat16.

Both sample with top-p .95 and temperature .8 after one-token prompts. `generate` stops when its longest document ends;
all of its new tokens count, those after the end of a document too, which favours it.
"""

import time
from itertools import repeat
from typing import Any

from benchmarks.report import Result, at_least, main

BATCH, LENGTH = 64, 192


def run() -> list[Result]:
    """Sample from SmolLM2 both ways, twice each, in turns; the better time of each counts."""
    results = []
    for dtype in ("bfloat16", "float32"):
        ours, theirs = _measure(dtype)
        results.append(
            at_least(
                f"sampling in {dtype}: tokens per second over generate",
                ours / theirs,
                2.0 if dtype == "bfloat16" else 1.0,
                "transformers' generate",
                f"{ours:.0f} and {theirs:.0f} tokens/s, batches of {BATCH}, {LENGTH} positions",
            )
        )
    return results


def _measure(dtype: str) -> tuple[float, float]:
    from tools.sampling import load_plain

    plain, tokenizer = load_plain(dtype=dtype, device="cpu")
    start = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    rates = [(_ours(plain, start), _generate(plain, start)) for _ in range(2)]
    return max(rate[0] for rate in rates), max(rate[1] for rate in rates)


def _ours(plain: Any, start: int) -> float:
    from tools.sampling import Opening, SampleConfig, sample_documents

    config = SampleConfig(batch_size=BATCH, length=LENGTH, least=1)
    began, n = time.perf_counter(), 0
    openings = repeat(Opening([start], kept=1), 2 * BATCH)
    for document in sample_documents(plain, openings, config, ends={start}):
        n += len(document.tokens)
    return n / (time.perf_counter() - began)


def _generate(plain: Any, start: int) -> float:
    import torch

    prompt = torch.full((BATCH, 1), start)
    began = time.perf_counter()
    options = {"do_sample": True, "temperature": 0.8, "top_p": 0.95, "top_k": 0, "pad_token_id": start}
    out = plain.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LENGTH - 1, eos_token_id=start, **options
    )
    return BATCH * (out.shape[1] - 1) / (time.perf_counter() - began)


if __name__ == "__main__":
    main(run)
