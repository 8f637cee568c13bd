"""Releases that SAELens has loaders for, in their documented layouts, with SAELens' numbers. Run where sae-lens is.

python tests/oracles/saelens_releases.py OUT

The files are built here, since the releases are gigabytes; the loaders are SAELens' own, pointed at the files
instead of the hub. So what is compared is our reading of each layout with SAELens' reading.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from probe import D_IN, D_SAE, K, keep, probe_inputs, random_arrays
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.registry import get_sae_class
from safetensors.torch import save_file

GEMMA = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
SIZES = {"d_in": D_IN, "d_sae": D_SAE, "d_out": D_IN}


def main(out: Path) -> None:
    loaders.QWEN_SCOPE_MODEL_INFO["tiny"] = ("Qwen/tiny", D_IN)
    for make in (gemma_scope, gemma_scope_embedding, gemma_scope_transcoder, gemma_scope_2, gemma_scope_2_transcoder):
        make(out)
    for make in (llama_scope, qwen_scope, circuit_tracer, saelens_flat_relu, saelens_flat_topk):
        make(out)


def gemma_scope(out: Path) -> None:
    name = "layer_20/width_24/average_l0_4"
    folder = numpy_arrays(out / "gemma_scope" / name, 30)
    compare(folder, out / "gemma_scope", loaders.gemma_2_sae_huggingface_loader, "google/gemma-scope-2b-pt-res", name)


def gemma_scope_embedding(out: Path) -> None:
    name = "embedding/width_24/average_l0_4"
    root = out / "gemma_scope_embedding"
    compare(
        numpy_arrays(root / name, 31),
        root,
        loaders.gemma_2_sae_huggingface_loader,
        "google/gemma-scope-2b-pt-res",
        name,
    )


def gemma_scope_transcoder(out: Path) -> None:
    name = "layer_20/width_24k/average_l0_4"
    root = out / "gemma_scope_transcoder"
    folder = numpy_arrays(root / name, 32)
    compare(folder, root, loaders.gemma_2_transcoder_huggingface_loader, "google/gemma-scope-2b-pt-transcoders", name)


def gemma_scope_2(out: Path) -> None:
    gemma_3(out / "gemma_scope_2", "resid_post/layer_9_width_24_l0_small", 33, skip=False)


def gemma_scope_2_transcoder(out: Path) -> None:
    gemma_3(out / "gemma_scope_2_transcoder", "transcoder/layer_9_width_24_l0_small_affine", 34, skip=True)


def gemma_3(root: Path, name: str, seed: int, *, skip: bool) -> None:
    arrays, folder = random_arrays(seed), root / name
    folder.mkdir(parents=True)
    tensors = {key.lower() if key.startswith("W") else key: arrays[key] for key in GEMMA}
    place = "model.layers.9.mlp" if skip else "model.layers.9.output"
    config = {
        "architecture": "jump_relu",
        "model_name": "google/gemma-3-270m",
        "hf_hook_point_in": "model.layers.9.pre_feedforward_layernorm.output" if skip else place,
        "hf_hook_point_out": place,
        "affine_connection": skip,
    }
    if skip:
        tensors["affine_skip_connection"] = arrays["W_skip"].T.contiguous()
    save_file(tensors, folder / "params.safetensors")
    write(folder / "config.json", config)
    compare(folder, root, loaders.gemma_3_sae_huggingface_loader, "google/gemma-scope-2-270m-pt", name)


def llama_scope(out: Path) -> None:
    """The older release: SAELens hands the input scale to its caller, who folds it."""
    arrays, root = random_arrays(35), out / "llama_scope_older"
    (root / "checkpoints").mkdir(parents=True)
    norm = 5.0
    linear = {
        "encoder.weight": arrays["W_enc"].T,
        "encoder.bias": arrays["b_enc"],
        "decoder.weight": arrays["W_dec"].T,
        "decoder.bias": arrays["b_dec"],
    }
    save_file({key: value.contiguous() for key, value in linear.items()}, root / "checkpoints" / "final.safetensors")
    config = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "jump_relu_threshold": 0.6,
        "hook_point_in": "blocks.3.hook_resid_post",
        "hook_point_out": "blocks.3.hook_resid_post",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
    }
    write(root / "hyperparams.json", config)
    overrides = {"dtype": "float32"}
    scale = D_IN**0.5 / norm
    compare(
        root, out, loaders.llama_scope_sae_huggingface_loader, "fnlp/tiny", root.name, overrides=overrides, scale=scale
    )


def qwen_scope(out: Path) -> None:
    arrays, folder = random_arrays(36), out / "qwen_scope" / f"SAE-Res-tiny-W24K-L0_{K}"
    folder.mkdir(parents=True)
    state = {"W_enc": arrays["W_enc"].T, "W_dec": arrays["W_dec"].T, "b_enc": arrays["b_enc"], "b_dec": arrays["b_dec"]}
    torch.save({key: value.contiguous() for key, value in state.items()}, folder / "layer3.sae.pt")
    overrides = {"d_sae": D_SAE}
    name = "layer3.sae.pt"
    compare(folder, folder, loaders.qwen_scope_sae_huggingface_loader, f"Qwen/{folder.name}", name, overrides=overrides)


def circuit_tracer(out: Path) -> None:
    """Per-layer ReLU transcoders as circuit-tracer keeps them; SAELens reads those without a skip."""
    arrays, folder = random_arrays(37), out / "circuit_tracer"
    folder.mkdir(parents=True)
    tensors = {"W_enc": arrays["W_enc"].T.contiguous(), **{key: arrays[key] for key in ("b_enc", "W_dec", "b_dec")}}
    save_file(tensors, folder / "layer_2.safetensors")
    hooks = "feature_input_hook: mlp.hook_in\nfeature_output_hook: hook_mlp_out\n"
    (folder / "config.yaml").write_text("model_name: tiny\n" + hooks)
    wandb = f"d_model: {{value: {D_IN}}}\nd_feature: {{value: {D_SAE}}}\nbatch_size: {{value: 16}}\n"
    (folder / "wandb-config.yaml").write_text(wandb)
    compare(folder, folder, loaders.mwhanna_transcoder_huggingface_loader, "mwhanna/tiny", "layer_2.safetensors")


def saelens_flat_relu(out: Path) -> None:
    flat(
        out / "saelens_flat_relu",
        38,
        {"activation_fn_str": "relu", "normalize_activations": False, "architecture": "standard"},
    )


def saelens_flat_topk(out: Path) -> None:
    settings = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}, "apply_b_dec_to_input": False}
    flat(out / "saelens_flat_topk", 39, {**settings, "normalize_activations": "layer_norm"})


def flat(folder: Path, seed: int, settings: dict) -> None:
    arrays = random_arrays(seed)
    folder.mkdir(parents=True)
    save_file({key: arrays[key] for key in ("W_enc", "b_enc", "W_dec", "b_dec")}, folder / "sae_weights.safetensors")
    base = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "model_name": "gpt2-small", "context_size": 64}
    write(folder / "cfg.json", {**base, "hook_point": "blocks.2.hook_resid_pre", "lr": 4e-4, **settings})
    from sae_lens import SAE

    sae, x = SAE.load_from_disk(folder, device="cpu"), probe_inputs()
    with torch.no_grad():
        acts = sae.encode(x)
        keep(folder, x, acts, sae.decode(acts))


def numpy_arrays(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    arrays = random_arrays(seed)
    np.savez(folder / "params.npz", **{name: arrays[name].numpy() for name in GEMMA})
    return folder


def compare(
    folder: Path,
    root: Path,
    loader: Callable,
    repo: str,
    name: str,
    *,
    overrides: dict | None = None,
    scale: float | None = None,
) -> None:
    """SAELens' numbers for the files below `root`, kept in `folder`."""

    def local(repo_id: str, filename: str, subfolder: str | None = None, **_) -> str:
        path = root / (subfolder or "") / filename
        if not path.exists():
            raise loaders.EntryNotFoundError(str(path))
        return str(path)

    loaders.hf_hub_download = local
    loaders.get_safetensors_tensor_shapes = lambda repo_id, filename: shapes(root / filename)
    config, state, _ = loader(repo, name, device="cpu", cfg_overrides={**SIZES, **(overrides or {})})
    config = loaders.handle_config_defaulting({**config, "device": "cpu"})
    sae_class, config_class = get_sae_class(config["architecture"])
    sae = sae_class(config_class.from_dict(config))
    sae.load_state_dict(state, assign=True)
    if scale is not None:
        sae.fold_activation_norm_scaling_factor(scale)
    x = probe_inputs()
    with torch.no_grad():
        acts = sae.encode(x)
        recons = sae(x)
    keep(folder, x, acts if scale is None else acts / scale, recons)


def shapes(path: Path) -> dict:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)


def write(path: Path, config: dict) -> None:
    path.write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
