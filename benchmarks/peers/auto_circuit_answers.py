"""Answers of auto-circuit to the referee's cases on edges and circuits. Runs in an environment of its own:

    pip install auto-circuit==1.0.1 transformer-lens==2.16.1 transformers==4.55.4 pyarrow==19.0.1
    python benchmarks/peers/auto_circuit_answers.py FOLDER

Scores, patches and metric are all its own, and this file reads the cases by hand. `auto-circuit eap` is its gradient of
the masks on edges, `auto-circuit ig` that gradient integrated over the masks. The rule is that of our `eap` and
`eap-ig` (`benchmarks/referee/baselines.py`): the fewest highest-ranked edges that keep 0.8 of the gap.
"""

import json
import math
import sys
from pathlib import Path

import torch
from auto_circuit.data import PromptPairBatch
from auto_circuit.prune import run_circuits
from auto_circuit.prune_algos.mask_gradient import mask_gradient_prune_scores
from auto_circuit.types import PatchType
from auto_circuit.utils.graph_utils import patchable_model
from einops import rearrange
from safetensors.torch import load_file
from transformer_lens import HookedTransformer, HookedTransformerConfig

FAITHFUL, GROWTH = 0.8, 1.15
TOOLS = {"auto-circuit ig": {"integrated_grad_samples": 5}, "auto-circuit eap": {"mask_val": 0.0}}


def read_model(folder: Path) -> HookedTransformer:
    """Return an attention-only model of a case in its TransformerLens."""
    sizes, weights = json.loads((folder / "small.json").read_text()), load_file(folder / "model.safetensors")
    n_heads = sizes["n_heads"]
    config = HookedTransformerConfig(
        **{name: sizes[name] for name in ("n_layers", "d_model", "n_heads", "d_vocab", "n_ctx")},
        d_head=sizes["d_model"] // n_heads, attn_only=True, normalization_type=None, device="cpu",
        use_attn_result=True, use_split_qkv_input=True,
    )  # fmt: skip
    model = HookedTransformer(config)
    own = {"embed.W_E": "tok_embed.weight", "pos_embed.W_pos": "pos.weight"}
    state = {theirs: weights.pop(name) for theirs, name in own.items()}
    state["unembed.W_U"] = weights.pop("head.weight").T
    for layer in range(sizes["n_layers"]):
        at = {
            side: [weights.pop(f"layers.{layer}.attn.{side}.{kind}") for kind in ("weight", "bias")] for side in "qkvo"
        }
        state[f"blocks.{layer}.attn.b_O"] = at["o"][1]
        state[f"blocks.{layer}.attn.W_O"] = rearrange(at.pop("o")[0], "d (n h) -> n h d", n=n_heads)
        for side, (weight, bias) in at.items():
            state[f"blocks.{layer}.attn.W_{side.upper()}"] = rearrange(weight, "(n h) d -> n d h", n=n_heads)
            state[f"blocks.{layer}.attn.b_{side.upper()}"] = rearrange(bias, "(n h) -> n h", n=n_heads)
    assert not weights, f"unread: {list(weights)}"
    model.load_state_dict({name: value.float().contiguous() for name, value in state.items()}, strict=False)
    return model


def text_of(edge) -> str:
    """Return an edge as cases write it."""
    source, target, via = edge.src.name, edge.dest.name, ""
    if target != "Resid End":
        target, _, via = target.rpartition(".")
    names = {"Resid Start": "embed", "Resid End": "logits"}
    source, target = (names.get(name) or "L{}H{}".format(*name[1:].split(".")) for name in (source, target))
    return f"{source} -{via.lower()}-> {target}" if via else f"{source} -> {target}"


def pruned(edges: set[str]) -> set[str]:
    """Return the edges on a path from `embed` to `logits`."""
    ends = {edge: (edge.split(" ")[0], edge.split(" ")[-1]) for edge in edges}
    sources, targets = {s for s, _ in ends.values()} | {"logits"}, {t for _, t in ends.values()} | {"embed"}
    kept = {edge for edge, (source, target) in ends.items() if source in targets and target in sources}
    return kept if kept == edges else pruned(kept)


def found_circuit(model: HookedTransformer, rows: dict, method: dict) -> set[str]:
    """Return the edges of its own circuit."""
    ids = {name: torch.tensor(rows[name]) for name in ("clean", "corrupt", "correct", "wrong")}
    batch = PromptPairBatch(0, 0, ids["clean"], ids["corrupt"], ids["correct"][:, None], ids["wrong"][:, None])
    kind = "logit" if rows["metric"] == "logit-diff" else "prob"
    patchable = patchable_model(model, factorized=True, slice_output="last_seq", separate_qkv=True)
    scores = mask_gradient_prune_scores(patchable, [batch], None, kind, "avg_diff", **method)
    n = len(patchable.edges)
    sizes = [0, *sorted({min(math.ceil(GROWTH**step), n) for step in range(100)})]
    values = {}
    for count, logits in run_circuits(patchable, [batch], sizes, scores, PatchType.TREE_PATCH).items():
        read = logits[0] if kind == "logit" else logits[0].softmax(-1)
        values[count] = float((read.gather(1, batch.answers) - read.gather(1, batch.wrong_answers)).mean())
    gap = values[n] - values[0]
    enough = [count for count in sorted(values) if (values[count] - values[0]) >= FAITHFUL * gap > 0]
    order = sorted(patchable.edges, key=lambda edge: -abs(float(edge.prune_score(scores))))
    return pruned({text_of(edge) for edge in order[: enough[0]]}) if enough else set()


def main(folder: Path) -> None:
    """Write `answers/TOOL.json` for both tools."""
    for tool, method in TOOLS.items():
        answers = {}
        for path in sorted(folder.glob("cases/*/case.json")):
            case = json.loads(path.read_text())
            if case["kind"] not in ("edge", "circuit"):
                continue
            found = found_circuit(read_model(path.parent), json.loads((path.parent / "task.json").read_text()), method)
            claim = case["details"]
            holds = claim["edge"] in found if case["kind"] == "edge" else bool(found) and found <= {*claim["edges"]}
            outcome = "supported" if holds else "not supported"
            answers[case["name"]] = {"outcome": outcome, "why": ", ".join(sorted(found))}
        made = {"tool": tool, "answers": answers}
        (folder / "answers" / f"{tool.replace(' ', '-')}.json").write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
