"""The process that runs vLLM, under the Python of that engine: commands come as lines of JSON, and so do replies.

It imports nothing of ours. vLLM prints what it likes to the error stream, which the caller keeps as a log; replies go
to the output stream that this process was started with. No activation goes through it: the worker writes files.
"""

import importlib
import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Load the model of the first line, then run the command of every other line until the input ends."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(**values: Any) -> None:
        print(json.dumps(values), file=replies, flush=True)

    engine = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if engine is None:
                engine, about = load(**command)
                reply(**about)
            else:
                reply(**run(engine, **command))
        except Exception as error:  # the engine raises what it likes; the caller has the log for the rest
            reply(error=f"{type(error).__name__}: {error}")


def load(
    folder: str, dtype: str, ranks: int, n_ctx: int, recorder: str, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """Return the engine with a model, and its version."""
    vllm: Any = importlib.import_module("vllm")
    # Each of these moves, splits or leaves out rows: graphs, cached prefixes, prompts in chunks.
    whole = {"enforce_eager": True, "enable_prefix_caching": False, "enable_chunked_prefill": False}
    usual = {"max_num_batched_tokens": max(n_ctx, 4096), "disable_log_stats": True, **whole, **options}
    engine = vllm.LLM(
        model=folder, dtype=dtype, tensor_parallel_size=ranks, max_model_len=n_ctx, skip_tokenizer_init=True, seed=0,
        worker_extension_cls=recorder, **usual,
    )  # fmt: skip
    return engine, {"version": vllm.__version__, "device": vllm.platforms.current_platform.device_type}


def run(
    engine: Any,
    *,
    sites: list[Any] | None = None,
    vectors: list[Any] | None = None,
    contexts: list[Any] | None = None,
    path: str = "",
) -> dict:
    """Hook `sites` and add `vectors` in the model, or write the rows of `contexts` into a file."""
    vllm: Any = importlib.import_module("vllm")
    if sites is not None:
        unknown = engine.collective_rpc("add_vectors", args=(vectors,))[0]  # first, so that rows are read after them
        return {"missing": unknown + engine.collective_rpc("record_modules", args=(sites,))[0]["missing"]}
    assert contexts is not None
    started = time.perf_counter()
    engine.collective_rpc("record_contexts", args=(contexts,))
    prompts = [{"prompt_token_ids": context} for context in contexts]
    engine.generate(prompts, vllm.SamplingParams(max_tokens=1, detokenize=False, temperature=0), use_tqdm=False)
    outcome = engine.collective_rpc("record_finish", args=(path,))[0]
    return {**outcome, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    main()
