"""Checkpoints of peers whose code cannot be installed, built from their documented layouts. Run anywhere with torch.

python tests/oracles/documented_layouts.py OUT

The numbers kept beside them come from the formulas below, written after the peers' sources: they show that our reading
of a layout is what we say it is, not that the peer agrees. Each folder's README.md says so.
"""

import json
import sys
from pathlib import Path

import torch
from probe import D_IN, D_SAE, K, keep, probe_inputs, random_arrays
from safetensors.torch import save_file

N_LAYERS = 3
README = """Built by tests/oracles/documented_layouts.py from the layout that {source} writes, not by its own code,
which no package index has. The numbers in probe.safetensors come from that script's formulas.
"""


def main(out: Path) -> None:
    openai_relu(out / "openai_relu")
    openai_topk(out / "openai_topk")
    llama_scope(out / "llama_scope")
    circuit_tracer_skip(out / "circuit_tracer_skip")
    cross_layer(out / "circuit_tracer_clt")


def openai_relu(folder: Path) -> None:
    a, x = random_arrays(40), probe_inputs()
    torch.save(openai_state(a), open_folder(folder, "openai/sparse_autoencoder") / "autoencoder.pt")
    acts = ((x - a["b_dec"]) @ a["W_enc"] + a["b_enc"]).relu()
    keep(folder, x, acts, acts @ a["W_dec"] + a["b_dec"])


def openai_topk(folder: Path) -> None:
    a, x = random_arrays(41), probe_inputs()
    activation = {"activation": "TopK", "activation_state_dict": {"k": K, "postact_fn": "ReLU"}}
    torch.save({**openai_state(a), **activation}, open_folder(folder, "openai/sparse_autoencoder") / "autoencoder.pt")
    mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
    pre = ((x - mean) / (std + 1e-5) - a["b_dec"]) @ a["W_enc"] + a["b_enc"]
    top = pre.topk(K)
    acts = torch.zeros_like(pre).scatter_(1, top.indices, top.values.relu())
    keep(folder, x, acts, (acts @ a["W_dec"] + a["b_dec"]) * std + mean)


def openai_state(a: dict) -> dict:
    return {
        "pre_bias": a["b_dec"],
        "latent_bias": a["b_enc"],
        "stats_last_nonzero": torch.zeros(D_SAE, dtype=torch.long),
        "encoder.weight": a["W_enc"].T.contiguous(),
        "decoder.weight": a["W_dec"].T.contiguous(),
    }


def llama_scope(folder: Path) -> None:
    """JumpReLU on activations times decoder norms, input and target scaled by different averages."""
    a, x, hooks = random_arrays(42), probe_inputs(), ("blocks.3.hook_resid_mid", "blocks.3.hook_mlp_out")
    averages = {hooks[0]: 5.0, hooks[1]: 2.0}
    config = {
        "sae_type": "sae",
        "d_model": D_IN,
        "expansion_factor": D_SAE / D_IN,
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "hook_point_in": hooks[0],
        "hook_point_out": hooks[1],
    }
    write(open_folder(folder, "OpenMOSS/Llamascopium") / "config.json", config)
    tensors = {"W_E": a["W_enc"], "b_E": a["b_enc"], "W_D": a["W_dec"], "b_D": a["b_dec"]}
    tensors["activation_function.log_jumprelu_threshold"] = a["threshold"].log()
    norms = {f"dataset_average_activation_norm.{name}": torch.tensor(value) for name, value in averages.items()}
    save_file({**tensors, **norms}, folder / "sae_weights.safetensors")
    s_in, s_out = (D_IN**0.5 / averages[hook] for hook in hooks)
    norm = a["W_dec"].norm(dim=1)
    scored = (x * s_in @ a["W_enc"] + a["b_enc"]) * norm
    kept = scored * (scored > a["threshold"])
    keep(folder, x, kept / s_in, (kept / norm @ a["W_dec"] + a["b_dec"]) / s_out)


def circuit_tracer_skip(folder: Path) -> None:
    a, x = random_arrays(43, d_out=6), probe_inputs()
    tensors = {"W_enc": a["W_enc"].T.contiguous(), **{name: a[name] for name in ("b_enc", "W_dec", "b_dec", "W_skip")}}
    tensors["activation_function.threshold"] = a["threshold"]
    save_file(tensors, open_folder(folder, "circuit-tracer") / "layer_1.safetensors")
    pre = x @ a["W_enc"] + a["b_enc"]
    acts = pre * (pre > a["threshold"])
    keep(folder, x, acts, acts @ a["W_dec"] + a["b_dec"] + x @ a["W_skip"].T)


def cross_layer(folder: Path) -> None:
    """Three layers; the last one's decoder has one slice."""
    open_folder(folder, "circuit-tracer")
    g, layers = torch.Generator().manual_seed(44), [random_arrays(45 + layer) for layer in range(N_LAYERS)]
    decoders = [torch.randn(D_SAE, N_LAYERS - layer, D_IN, generator=g) for layer in range(N_LAYERS)]
    x = torch.stack([probe_inputs(50 + layer) for layer in range(N_LAYERS)])
    acts, recons = [], [a["b_dec"].expand(x.shape[1], -1).clone() for a in layers]
    for layer, (a, W_dec) in enumerate(zip(layers, decoders, strict=True)):
        encoder = {
            f"W_enc_{layer}": a["W_enc"].T.contiguous(),
            f"b_enc_{layer}": a["b_enc"],
            f"b_dec_{layer}": a["b_dec"],
            f"threshold_{layer}": a["threshold"],
            f"W_skip_{layer}": a["W_skip"],
        }
        save_file(encoder, folder / f"W_enc_{layer}.safetensors")
        save_file({f"W_dec_{layer}": W_dec}, folder / f"W_dec_{layer}.safetensors")
        pre = x[layer] @ a["W_enc"] + a["b_enc"]
        acts.append(pre * (pre > a["threshold"]))
        recons[layer] += x[layer] @ a["W_skip"]
        for target in range(layer, N_LAYERS):
            recons[target] += acts[layer] @ W_dec[:, target - layer]
    (folder / "config.yaml").write_text("feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n")
    keep(folder, x, torch.stack(acts), torch.stack(recons))


def open_folder(folder: Path, source: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(README.format(source=source))
    return folder


def write(path: Path, config: dict) -> None:
    path.write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
