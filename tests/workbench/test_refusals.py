"""What a verb cannot do ends in one line with the next move, and leaves nothing behind."""

import numpy as np
import pytest

MODEL = "small:mlp-2l"
SIDES = "--towards a b c d --away E F G H"
PAIR = ("patch", "planted:induction", "--clean", "3 5 7 9 1 2 3 5 7", "--corrupt", "3 5 8 9 1 2 3 5 7")
PATCH = (*PAIR, "--answer", "9", "--wrong", "4")
TRACE = ("trace", MODEL, "--prompt", "one two one")
FIND = "circuit find small:attn-only-2l --task"
REFUSED: list[tuple[str | tuple[str, ...], str]] = [
    ("compare models small:mlp-2l small:attn-only-2l --corpus random", "different architectures"),
    (f"{FIND} induction --prompts 8", "no gap beyond chance"),
    (f"{FIND} ioi", "single tokens"),
    (f"{FIND} iol", "did you mean 'ioi'"),
    (f"{FIND} missing.jsonl", "missing.jsonl"),
    ("circuit show nothing", "nothing"),
    ("doctor no-such-model", "unknown model"),
    (f"doctor {MODEL} --dictionary missing", "missing"),
    (f"doctor {MODEL} --dictionary a --set b", "--set"),
    (f"direction {MODEL}", "give one direction"),
    (f"direction {MODEL} --feature demo:1 {SIDES}", "give one direction"),
    (f"direction {MODEL} --pairs none.jsonl --trait sad --instead gay", "give one direction"),
    (f"direction {MODEL} --trait sad", "needs its opposite"),
    (f"direction {MODEL} --texts a.txt", "takes two sources"),
    (f"direction {MODEL} --pairs none.jsonl", "no file at"),
    (f"direction {MODEL} --vector none.npy --at blocks.0.hook_resid_post", "no file at"),
    (f"direction {MODEL} --vector v.npy --at blocks.0.hook_resid_post --lists letters digits", "7 numbers"),
    (f"direction {MODEL} --feature demo", "NAME:NUMBER"),
    (f"direction {MODEL} --feature demo:1", "demo"),
    (f"direction {MODEL} {SIDES} --at blocks.9.hook_resid_post", "blocks.9.hook_resid_post"),
    (f"direction {MODEL} {SIDES} --n-random 0", "at least 1"),
    (f"direction {MODEL} {SIDES} --strengths -1", "above 0"),
    (f"direction {MODEL} {SIDES} --method mean", "method of a direction"),
    (f"direction {MODEL} --towards a b c d --away E F G", "4 of each side"),
    (f"geometry shapes {MODEL} --lists weekday", "weekdays"),
    (f"geometry shapes {MODEL} --own-words A B", "three are the least"),
    (f"geometry space {MODEL} --hook-points blocks.7.hook_resid_post", "blocks.7"),
    (f"geometry space {MODEL} --hook-points hook_embed --points 2", "points must be at least 4, got 2"),
    (f"geometry compare {MODEL} planted:induction", "different tokenizers"),
    (f"geometry compare {MODEL} --points 64 --batch 64", "two are needed"),
    (f"lens {MODEL} --export x.pt", "--kind jacobian"),
    ("patch planted:induction", "lacks --clean, --corrupt, --answer"),
    (PAIR, "lacks --answer"),
    ((*PATCH, "--task", "ioi"), "not both"),
    ((*PATCH, "--nulls", "none"), "quick"),
    ((*PATCH, "--what", "mlp_out"), "no MLPs"),
    ((*PAIR, "--answer", "9 4"), "2 tokens"),
    ((*PAIR[:3], "1 2 3", "--corrupt", "1 2", "--answer", "9"), "reword one of the two"),
    ((*PAIR[:3], "hello", "--corrupt", "1 2", "--answer", "9"), "no tokenizer"),
    ("patch planted:induction --task inductoin", "'induction'"),
    ("patch planted:induction --task gone.jsonl", "no file of prompts"),
    ((*TRACE, "--target", "two"), "is 3"),
    ((*TRACE, "--contrast", "9", "--max-logits", "3"), "leave out --max-logits 3"),
    ((*TRACE, "--set", "none"), "none"),
    ((*TRACE, "--edge-share", "0"), "edge_share"),
    ((*TRACE, "--target", "feature:0:1:99999"), "not active"),
    ((*TRACE, "--template", "a=b"), "where the words go"),
    ((*TRACE[:3], "say {}", "--template", "a"), "WORD=TARGET"),
    ((*TRACE[:3], "say {}", "--template", "a=b"), "at least 3 words"),
    ((*TRACE[:3], ""), "empty"),
    ("trace small:attn-only-1l --prompt one", "no MLPs"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED)
def test_what_a_verb_cannot_do_is_one_line_and_leaves_nothing(cli, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    np.save("v.npy", np.ones(7))
    assert says in cli(tmp_path, *(words.split() if isinstance(words, str) else words), code=2)
    assert not [*tmp_path.rglob("manifest.json"), *tmp_path.rglob("*.partial")]
