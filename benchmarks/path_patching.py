"""Cost of path patching, in plain forward passes.

The path from one head of SmolLM2 to the key inputs of all later layers is patched. The baseline is two plain forward
passes (clean and corrupt) on the same batch. The head's difference is added to the residual stream that each reader
sees. A patch is therefore one clean pass, the corrupt pass up to the head, and one patched pass from the first reader
on. Heads of an early, a middle and a late layer are measured. Rounds alternate; the ratio is the median over rounds.
"""

from collections.abc import Callable
from typing import Any

from benchmarks.report import Result, interleaved, main, median_ratio
from interp.models.hooked import HookedModel

BATCH, LENGTH, REPEATS, SENDERS = 4, 64, 3, ("L2H0", "L14H0", "L26H0")


def run() -> list[Result]:
    """Measure path patching of one head into the keys of all later layers, relative to two plain forward passes."""
    import torch

    from interp.models.loading import load_model

    model = load_model("smollm2-135m", attention="eager")
    generator = torch.Generator().manual_seed(0)
    clean, corrupt = (torch.randint(1000, 40000, (BATCH, LENGTH), generator=generator) for _ in range(2))

    @torch.no_grad()
    def plain() -> None:
        for tokens in (clean, corrupt):
            model(tokens, use_cache=False)

    names = [(sender, between) for sender in SENDERS for between in ("receivers", "recomputed")]
    patches = [_patch(model, clean, corrupt, sender, between) for sender, between in names]
    times = interleaved(plain, *patches, repeats=REPEATS)
    return [
        Result(
            question=f"{sender} into all later keys, {between}",
            ratio=median_ratio(seconds, times[0]),
            target=1.5,
            against="two plain forward passes",
            lower_is_better=True,
            detail=f"{BATCH} prompts of {LENGTH} tokens, {min(seconds):.2f} s against {min(times[0]):.2f} s",
        )
        for (sender, between), seconds in zip(names, times[1:], strict=True)
    ]


def _patch(model: HookedModel, clean: Any, corrupt: Any, sender: str, between: Any) -> Callable[[], Any]:
    from interp.patching.paths import into_all, path_patch

    receivers = into_all(model, "k", after=sender)
    return lambda: path_patch(
        model, clean, corrupt, lambda logits: logits[:, -1, 0], sender=sender, receivers=receivers, between=between
    )


if __name__ == "__main__":
    main(run)
