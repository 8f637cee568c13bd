"""Rows a second from vLLM against the bridge, SmolLM2 after block 9 and after the last block.

`python -m benchmarks.peers.vllm_recording [--json]`, after `make engine-vllm`. Both give the same contexts as tensors;
nothing is stored. vLLM computes whole passes, the bridge stops at the hook point. Rounds alternate; the start of
vLLM is not counted.
"""

from benchmarks.report import Result, at_least, interleaved, main

LAYERS, CONTEXTS, LENGTH, REPEATS = (9, 29), 32, 128, 3
ON_A_GPU = 5.0
"""Times as fast as the bridge, where this is measured on a GPU."""


def run() -> list[Result]:
    """Measure rows a second of the two engines."""
    import torch

    from interp.engines.bridge import Bridge
    from interp.engines.vllm import start_vllm
    from interp.models.loading import load_model

    bridge = Bridge(load_model("smollm2-135m", attention="sdpa"))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1000, 40_000, (CONTEXTS, LENGTH), generator=generator)
    results = []
    with start_vllm("smollm2-135m", n_ctx=LENGTH) as vllm:
        for layer in LAYERS:
            name = f"blocks.{layer}.hook_resid_post"
            with bridge.reading([name]) as ours, vllm.reading([name]) as theirs:

                def in_batches(reader=ours) -> None:
                    for batch in tokens.split(16):
                        reader(batch)

                seconds = interleaved(in_batches, lambda reader=theirs: reader(tokens), repeats=REPEATS)
            bridged, fast = map(min, seconds)
            results.append(
                at_least(
                    f"rows from {vllm.about} after block {layer} of 30",
                    bridged / fast,
                    ON_A_GPU if vllm.about.endswith("cuda") else 0.0,
                    "the bridge with fused attention",
                    f"{tokens.numel() / fast:,.0f} and {tokens.numel() / bridged:,.0f} rows a second",
                )
            )
    return results


if __name__ == "__main__":
    main(run)
