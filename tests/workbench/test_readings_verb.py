"""`workbench readings` from the command line: explanations of a file that repeat the prompt are not shown."""

import json
import random

from interp.lenses.judged_readings import JudgedReadings
from interp.workspace import Workspace


def test_explanations_that_repeat_the_prompt_are_not_shown(
    cli,
    tmp_path,
):
    file, rng = tmp_path / "copy.jsonl", random.Random(0)
    texts = ["".join(rng.sample("abcdefghijklmnop", 10)) for _ in range(32)]
    file.write_text("\n".join(json.dumps({"text": text, "explanation": text}) for text in texts))
    point = "blocks.0.hook_resid_post"
    words = (
        "readings",
        "small:mlp-1l",
        "--explanations",
        file,
        "--hook-points",
        point,
        "--repeats",
        1,
        "--new-tokens",
        1,
    )
    out = cli(tmp_path, *words, "--target-prompts", "a a {}", "--name", "mine")
    assert f"explanations at {point}" in out
    assert "not shown as a reading" in out
    found = Workspace(tmp_path).open(JudgedReadings, "mine")
    row = found.score("explanations", point)
    assert not row.shown
    assert row.above_nulls > 0.02, "they predict the activation, as the prompt does"
    assert list(found.settings.kinds) == ["patchscope 'a a {}'", "logit lens", "explanations"]
    assert found.settings.source == "file:copy.jsonl"
    assert "has one {}" in cli(tmp_path, *words, "--target-prompts", "a", code=2)
    assert "features" in cli(tmp_path, *words, "--features", "none", code=2)
    both = cli(tmp_path, *words, "--text", "docstrings", "--positions", 64, code=2)
    assert "leave out --positions" in both
