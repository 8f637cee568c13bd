"""Answers of TransformerLens' head detector to the referee's cases on heads, as a file that is scored beside ours.

    python -m benchmarks.peers.referee_answers FOLDER

It reads one sequence of random tokens that repeats once, and has three of the five kinds. Supported from 0.4 of the
attention that its pattern can get, the threshold of the ARENA exercises.
"""

import sys
from pathlib import Path

import torch

from benchmarks.referee.cases import Answer, Answers, Case, cases_of
from interp.artifacts import as_json, write_json
from interp.models.small import load_small
from interp.names import parse_head
from interp.seeds import make_generator

ATTENTION = 0.4


def detect(folder: Path, case: Case) -> Answer | None:
    """Answer a claim on a head by TransformerLens' detector; None for kinds that it has no pattern of."""
    from transformer_lens import head_detector

    patterns = {
        "previous_token": head_detector.get_previous_token_head_detection_pattern,
        "duplicate_token": head_detector.get_duplicate_token_head_detection_pattern,
        "induction": head_detector.get_induction_head_detection_pattern,
    }
    if case.kind != "head" or (kind := case.details["head_kind"]) not in patterns:
        return None
    model, at = load_small(folder), parse_head(case.details["head"])
    half = torch.randperm(model.cfg.d_vocab, generator=make_generator(0, case.name))[: (model.cfg.n_ctx - 1) // 2]
    tokens = half.repeat(2)[None]
    model.to_tokens = lambda seq: tokens  # the detector reads text; these models have no tokenizer
    pattern = patterns[kind](tokens)
    score = float(head_detector.detect_head(model, "", pattern)[at.layer, at.head])
    bound = ATTENTION * float(pattern.any(1).double().mean())
    return Answer(outcome="supported" if score >= bound else "not supported", why=f"{score:.2f}, at least {bound:.2f}")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    given = {case.name: detect(where, case) for where, case in cases_of(folder)}
    answers = {name: answer for name, answer in given.items() if answer}
    write_json(folder / "answers" / "detect_head.json", as_json(Answers(tool="detect_head", answers=answers)))
