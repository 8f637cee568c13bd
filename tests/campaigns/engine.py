"""Does the doctor pass the real vLLM, and name mistakes that are planted in its workers?

    make engine-vllm
    python -m tests.campaigns.engine [--model smollm2-135m] [--only NAME ...] [--report]

Every mistake is a recorder of `fixtures/vllm_recorders/faulty.py`, which runs in the engine in place of the sound one.
The same mistakes are tested on a stand-in for vLLM in `tests/interp/test_engines.py`.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

from interp.doctor.engine import LONGEST, contexts_of, examine_engine
from interp.engines.vllm import RECORDER, start_vllm
from tests.campaigns import report

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "engines.md"
RECORDERS = Path(__file__).parents[1] / "fixtures" / "vllm_recorders"


class Mistake(NamedTuple):
    """A recorder with a mistake, the engine's options that bring it out, and the doctor's words for it."""

    what: str
    words: str
    options: dict[str, object]
    ranks: int = 1


MISTAKES = {
    "LayerOff": Mistake("layers are counted from one", "a layer off by one", {}),
    "ResidualLeftOut": Mistake("the fused residual is not added", "the fused residual is left out", {}),
    "AfterTheNorm": Mistake("rows are taken after the next norm", "were taken after the norm", {}),
    "InOrderOfArrival": Mistake("requests are matched by their order", "in another order than they went", {}),
    "FirstPieces": Mistake(
        "of a chunked prompt the first piece is kept", "computed in chunks", {"enable_chunked_prefill": True}
    ),
    "LastPieces": Mistake(
        "cached prefixes are not noticed", "cached prefixes were not computed", {"enable_prefix_caching": True}
    ),
    "OneRanksPart": Mistake("one process' part is kept", "the part of process 1 of", {}, ranks=3),
}
N_OF_A_MISTAKE = 16
"""Contexts in which a mistake has to be found; the sound engine is asked for all."""
REAL = {"FirstPieces": {"max_num_batched_tokens": 24, "max_num_seqs": 4}, "LastPieces": {"block_size": 32}}
"""Options that only the real engine needs."""


def run(model: str, name: str | None) -> str:
    """Return a line of the report for the sound recorder (None) or one with a mistake."""
    mistake = MISTAKES[name] if name else None
    started = time.monotonic()
    with start_vllm(
        model,
        ranks=mistake.ranks if mistake else 1,
        n_ctx=512,
        options={**(mistake.options if mistake else {}), **REAL.get(name or "", {})},
        recorder=f"faulty.{name}" if name else RECORDER,
        recorder_folder=RECORDERS,
    ) as engine:
        ready = time.monotonic()
        few = contexts_of(engine.tokenizer, N_OF_A_MISTAKE, LONGEST, seed=0) if mistake else None
        found = examine_engine(engine, contexts=few)
    failed = found.with_verdict("failed")
    said = next((check.came for check in failed if mistake and mistake.words in check.came), "")
    told = said.rpartition("; ")[2] if said else "; ".join(check.came for check in failed) or found.headline()
    right = bool(said) if mistake else not found.failed
    seconds = f"{ready - started:.0f} + {time.monotonic() - ready:.0f} s"
    what = mistake.what if mistake else f"none ({engine.about})"
    return f"| {what} | {'yes' if right else 'NO'} | {told} | {seconds} |"


def main() -> None:
    """Run the sound engine, then every mistake."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--only", nargs="+", choices=["sound", *MISTAKES])
    parser.add_argument("--report", action="store_true", help=f"write the table into {PAGE.name}")
    given = parser.parse_args()
    names = given.only or ["sound", *MISTAKES]
    lines = [
        "| mistake in the worker | right | what the doctor said | start + examination |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    print("\n".join(lines), flush=True)
    for name in names:
        lines.append(run(given.model, None if name == "sound" else name))
        print(lines[-1], flush=True)
    if given.report:
        report.put("engine", lines, PAGE)


if __name__ == "__main__":
    main()
