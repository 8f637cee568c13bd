"""Do our attribution graphs agree with circuit-tracer's? `python tests/oracles/compare_graphs.py FOLDER`

FOLDER is what `circuit_tracer_graphs.py` made. Given its adjacency matrices, influence and scores must agree to 1e-5
and masks exactly. Given its models and transcoders, edges must agree to 1e-4 of the largest. Its graph JSON must be
read, and ours is written beside it.

One difference is by definition. Both leave out BOS, but circuit-tracer lets a skip connection there pass gradient,
where we count that MLP's output as part of the constant source. It changes the direct effects of the BOS token only.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from interp.models.loading import load_model
from interp.tracing._influence import cumulative_share, influence, normalise_rows, prune, score
from interp.tracing._targets import aim_at
from interp.tracing.graph import TraceConfig
from interp.tracing.interchange import export_graph, import_graph, read_graph_json, write_graph_json
from interp.tracing.trace import assemble, open_system
from saes.sets.replacement import SetReplacement
from saes.sets.set import read_set

KINDS = ("feature", "error", "token", "logit")


def off(ours: Any, theirs: Any) -> float:
    """The largest difference, in units of the largest value."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


def check_arithmetic(path: Path) -> str:
    """Influence, shares, edge scores, masks and scores of a given adjacency matrix."""
    peer = {name: value.numpy() for name, value in load_file(path).items()}
    matrix, weights = peer["adjacency"], peer["weights"].astype(np.float64)
    kinds = np.repeat(KINDS, peer["sizes"] - [0, 0, 0, peer["sizes"][:3].sum()])
    node_share, edge_share = peer["thresholds"].tolist()
    total = influence(normalise_rows(matrix), weights)
    pruned = prune(matrix, weights, kinds, node_share=node_share, edge_share=edge_share)
    scores = np.array(score(matrix, weights, kinds))
    shares = normalise_rows(matrix) * (total + weights.astype(total.dtype))[:, None]
    some = total > 0  # nodes without influence tie, and both orders of them are right
    errors = {
        "influence": off(total, peer["influence"]),
        "shares": off(cumulative_share(total)[some], peer["share"][some]),
        "edge scores": off(shares, peer["edge_scores"]),
        "scores": off(scores, peer["scores"]),
    }
    assert max(errors.values()) < 1e-5, (path, errors)
    for name, mask in (("nodes", pruned.nodes), ("edges", pruned.edges)):
        assert (mask == peer[name]).all(), f"{path}: {int((mask != peer[name]).sum())} {name} differ"
    return f"{len(matrix)} nodes, {pruned.nodes.sum()} kept, largest difference {max(errors.values()):.0e}, equal masks"


@torch.no_grad()
def check_edges(folder: Path) -> str:
    """Every direct effect of a random model, traced with the same transcoder files."""
    peer = load_file(folder / "graph.safetensors")
    model = load_model(str(folder / "model"))
    transcoders = SetReplacement(read_set(folder / "transcoders"), "peer", allow_other_weights=True)
    config = TraceConfig(max_logits=5, batch_size=16, effects=0, nulls=False)
    tokens = peer["prompt"][None]
    system = open_system(model, tokens, transcoders, skip_positions=config.skip_positions)
    aim = aim_at(model, system, config, None, None)
    ours = assemble(system, aim, config)
    features = torch.stack([system.layer, system.position, system.latent], 1)[torch.as_tensor(ours.features)]
    width = 10 ** torch.tensor([8, 4, 0])
    order, theirs = (features * width).sum(1).argsort(), (peer["features"] * width).sum(1).argsort()
    assert (features[order] == peer["features"][theirs]).all(), "other latents are active"
    assert [each.token for each in aim.targets] == peer["targets"].tolist(), "other targets"
    n = len(features)
    matrices = []
    for matrix, first in ((torch.as_tensor(ours.matrix), order), (peer["adjacency"], theirs)):
        places = torch.cat([first, torch.arange(n, len(matrix))])
        matrices.append(matrix[places][:, places].numpy())
    differ = off(*matrices)
    bos = n + system.n_errors
    if any(transcoders.skip(layer) is not None for layer in range(system.frozen.shape.n_layers)):
        rest = [np.delete(matrix, bos, axis=1) for matrix in matrices]
        print(f"  {folder.name}: effects of the BOS token differ by {differ:.0e} (skip connection there, see above)")
        differ = off(*rest)
    assert differ < 1e-4, (folder, differ)
    weights = off([each.weight for each in aim.targets], peer["weights"][-len(aim.targets) :])
    assert weights < 1e-4, (folder, weights)
    return f"{n} latents, {len(matrices[0])} nodes, edges differ by at most {differ:.0e} of the largest"


def check_json(folder: Path) -> str:
    """circuit-tracer's graph JSON is read, and nothing of it is lost when we write it again."""
    theirs = read_graph_json(folder / "json" / f"{folder.name}.json")
    graph, edits = import_graph(theirs)
    ours = export_graph(graph, edits)
    write_graph_json(ours, folder / "ours.json")
    assert export_graph(*import_graph(ours)) == ours
    key = {
        "nodes": lambda node: (node["jsNodeId"], node["ctx_idx"]),
        "links": lambda link: sorted(link.items(), key=str),
    }
    names = [{node["node_id"]: node["jsNodeId"] for node in data["nodes"]} for data in (theirs, ours)]
    if len(names[0]) == len(theirs["nodes"]):  # no id is shared, so that ids need not change
        for part, by in key.items():
            assert sorted(ours[part], key=by) == sorted(theirs[part], key=by), f"{folder}: {part} differ"
    return f"{len(graph.nodes)} nodes and {len(graph.edges)} edges of its JSON read and written again"


def main(root: Path) -> None:
    for path in sorted(root.glob("arithmetic_*.safetensors")):
        print(f"{path.stem}: {check_arithmetic(path)}")
    for folder in sorted((root / "graphs").iterdir()):
        print(f"{folder.name}: {check_arithmetic(folder / 'graph.safetensors')}")
        print(f"{folder.name}: {check_edges(folder)}")
        print(f"{folder.name}: {check_json(folder)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
