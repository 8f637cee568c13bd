"""Directions in files: safetensors with their origin, GGUF control vectors, and single vectors of other tools.

    write_directions(recipe, "formal.safetensors", about)     # every operation; refused for other weights when applied
    write_directions(recipe, "formal.gguf")                   # llama.cpp's and repeng's layout: additions only
    recipe = read_directions("formal.gguf")

**GGUF control vectors** hold `direction.N [d]` float32, which llama.cpp adds to the output of block N at every token;
block 0 cannot be written (llama.cpp refuses it). So a step of a recipe has to add to `blocks.N.hook_resid_post`, N from
1. The architecture is `controlvector`, with `controlvector.model_hint` and `controlvector.layer_count`. What llama.cpp
does not know (weights, positions) is stored under keys of our own, and refused or kept when we read the file again.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float64

from interp.artifacts import as_json, read_npy
from interp.artifacts.files import atomic_file
from interp.errors import ConfigError, CorruptError, MismatchError, MissingError
from interp.forms import from_json
from interp.geometry.points import as_numbers
from interp.interventions.intervention import Direction, Intervention
from interp.interventions.recipe import Recipe
from interp.names import parse_hook_point

SUFFIXES = (".safetensors", ".gguf")
FORMAT = "interp-workbench directions 1"
ARCHITECTURE = "controlvector"


def write_directions(
    recipe: Recipe, path: Path | str, origin: Mapping[str, object] | None = None, hint: str = ""
) -> None:
    """Write a recipe whose steps are along directions, as `.safetensors` or `.gguf`.

    Args:
        recipe: its steps, with the weights they were made for.
        path: the file; its suffix says which form.
        origin: what to keep with it: how the direction was made, chosen and judged.
        hint: architecture of the model for llama.cpp, such as `llama`.
    Raises:
        ConfigError: a step that the form cannot hold, or another suffix.

    >>> along = Direction(hook_point="blocks.1.hook_resid_post", vector=sae.W_dec[0].numpy(), origin="latent 0")
    >>> recipe = Recipe(name="along", steps=(Intervention(target=along, amount=2.0),))
    >>> write_directions(recipe, folder / "along.gguf", hint="llama")
    >>> (folder / "along.gguf").exists()
    True
    """
    path = Path(path)
    if any(not isinstance(step.target, Direction) or step.partner or step.along for step in recipe.steps):
        raise ConfigError(f"{path.name} holds steps along directions only; write a recipe (NAME.json) for others")
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"directions are written as {' or '.join(SUFFIXES)}, got {path.name}")
    (_write_gguf if path.suffix == ".gguf" else _write_safetensors)(recipe, path, dict(origin or {}), hint)


def read_directions(path: Path | str) -> Recipe:
    """Return the recipe of a file that `write_directions` wrote, or of a GGUF control vector of another tool.

    Args:
        path: the file. A control vector has no weights to compare with, and adds at every token.
    Returns: a recipe, for `hooks_of` and `intervened`.
    Raises:
        MissingError: no such file.
        CorruptError: a file of another form.

    >>> up = Intervention(target=Direction(hook_point=point, vector=sae.W_dec[0].numpy(), origin="latent 0"), amount=2)
    >>> write_directions(Recipe(name="up", steps=(up,)), folder / "up.safetensors")
    >>> read_directions(folder / "up.safetensors").name
    'up'
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingError(f"no file at {path}")
    return _read_gguf(path) if path.suffix == ".gguf" else _read_safetensors(path)


def read_vector(path: Path | str, hook_point: str = "") -> tuple[Float64[np.ndarray, " d"], str]:
    """Return one vector of a file and its hook point: `.npy`, `.pt` (weights only), `.safetensors` or `.gguf`.

    A file with several needs the `hook_point`, as does one that does not say where it belongs. Raises `MissingError`,
    `CorruptError`, `ConfigError`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise MissingError(f"no file at {path}; numpy.save(path, vector) writes one")
    if path.suffix == ".gguf" or (path.suffix == ".safetensors" and "recipe" in _opened(path)[1]):
        recipe = read_directions(path)
        directions = {
            step.target.hook_point: step.target.vector for step in recipe.steps if isinstance(step.target, Direction)
        }
        if hook_point and hook_point not in directions:
            raise ConfigError(f"{path.name} has directions at {', '.join(directions)}; choose one of them with --at")
        if not hook_point and len(directions) > 1:
            raise ConfigError(f"{path.name} has directions at {', '.join(directions)}; choose one with --at")
        at = hook_point or next(iter(directions))
        return directions[at].astype(np.float64), at
    vector = read_npy(path) if path.suffix in (".npy", ".npz") else _only_tensor(path)
    if not hook_point:
        raise ConfigError(f"{path.name} does not say where its vector belongs; add --at, blocks.7.hook_resid_post say")
    return (vector[0] if vector.ndim == 2 and len(vector) == 1 else vector), hook_point


def transformers_code(recipe: Recipe, file: str, hub_name: str) -> str:
    """Return a few lines of plain transformers that steer a model with the safetensors file of a recipe.

    Raises `ConfigError` for a step that adds nothing to the output of a block.
    """
    lines = [
        "import torch",
        "from safetensors import safe_open",
        "from transformers import AutoModelForCausalLM",
        "",
        f"model = AutoModelForCausalLM.from_pretrained({hub_name!r})",
        f"file = safe_open({file!r}, 'pt')",
        "blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList))",
    ]
    for number, step in enumerate(recipe.steps):
        layer = _added_after(step, "these lines")
        start = 1 if step.positions is None else step.positions[0]
        lines += [
            f"def steer_{number}(block, given, output):",
            "    hidden = output[0] if isinstance(output, tuple) else output",
            f"    start = {start} if hidden.shape[1] > 1 else 0  # one token at a time after the prompt",
            f"    hidden[:, start:] += file.get_tensor('step.{number}').to(hidden)  # already times its amount",
            f"blocks[{layer}].register_forward_hook(steer_{number})",
        ]
    return "\n".join(lines)


def _added_after(step: Intervention, what: str) -> int:
    """Return the block after which a step adds its direction. Raises `ConfigError` for any other step."""
    target = step.target
    point = parse_hook_point(target.hook_point) if isinstance(target, Direction) else None
    if point is None or point.layer is None or point.suffix != "hook_resid_post" or step.action != "add":
        at = target.hook_point if isinstance(target, Direction) else "a component"
        raise ConfigError(
            f"{what} can only add to the output of a block, this step does {step.action} at {at}; write .safetensors"
        )
    return point.layer


def _vector(step: Intervention) -> np.ndarray:
    assert isinstance(step.target, Direction)  # checked by `write_directions`
    return step.target.vector.astype(np.float64)


def _without_vectors(recipe: Recipe) -> dict[str, Any]:
    stored = as_json(recipe)
    for step in stored["steps"]:
        step["target"]["vector"] = []
    return stored


def _write_safetensors(recipe: Recipe, path: Path, origin: Mapping[str, object], hint: str) -> None:
    from safetensors.numpy import save_file

    tensors = {f"direction.{n}": _vector(step) for n, step in enumerate(recipe.steps)}
    tensors |= {
        f"step.{n}": (_vector(step) * step.amount).astype(np.float32)
        for n, step in enumerate(recipe.steps)
        if step.action == "add"
    }
    metadata = {"format": FORMAT, "recipe": json.dumps(_without_vectors(recipe)), "about": json.dumps(origin)}
    with atomic_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def _opened(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise CorruptError(f"{path} cannot be read as safetensors: {error}") from None


def _read_safetensors(path: Path) -> Recipe:
    tensors, metadata = _opened(path)
    if metadata.get("format") != FORMAT:
        raise CorruptError(f"{path} holds no directions of the workbench; import it: workbench direction --vector")
    try:
        value = json.loads(metadata["recipe"])
        for number, step in enumerate(value["steps"]):
            step["target"]["vector"] = tensors[f"direction.{number}"].tolist()
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path}: its recipe was edited or cut short ({error})") from None
    return from_json(Recipe, value, path)


def _only_tensor(path: Path) -> np.ndarray:
    """Return the one tensor of a file of another tool."""
    if path.suffix == ".safetensors":
        value: Any = _opened(path)[0]
    elif path.suffix == ".pt":
        import torch

        try:
            value = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises a dozen unrelated types here
            raise CorruptError(f"{path} cannot be read as tensors only: {str(error).splitlines()[0]}") from None
    else:
        raise ConfigError(f"a vector is read from .npy, .pt, .safetensors or .gguf, got {path.name}")
    while isinstance(value, Mapping) and len(value) == 1:
        value = next(iter(value.values()))
    if not hasattr(value, "shape"):
        raise ConfigError(f"{path.name} holds no single tensor; save one vector [d]")
    return as_numbers(cast("np.ndarray", value), what=path.name)


def _write_gguf(recipe: Recipe, path: Path, origin: Mapping[str, object], hint: str) -> None:
    import gguf

    by_layer: dict[int, np.ndarray] = {}
    for step in recipe.steps:
        layer = _added_after(step, "a GGUF control vector")
        if layer == 0:
            raise ConfigError("llama.cpp refuses a control vector of block 0; steer at block 1 or later")
        if step.positions not in (None, (0, None)):
            raise ConfigError("llama.cpp adds a control vector at every token; write .safetensors for some positions")
        by_layer[layer] = by_layer.get(layer, 0.0) + _vector(step) * step.amount
    rows = {layer: vector.astype(np.float32) for layer, vector in sorted(by_layer.items())}
    for layer, row in rows.items():
        if not row.any():
            raise ConfigError(f"the steps after block {layer} add nothing in float32; give them another amount than 0")
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, ARCHITECTURE)
        writer.add_string(f"{ARCHITECTURE}.model_hint", hint or "unknown")
        writer.add_uint32(f"{ARCHITECTURE}.layer_count", len(rows))
        writer.add_string("workbench.recipe", json.dumps(_without_vectors(recipe)))
        writer.add_string("workbench.about", json.dumps(origin))
        for layer, row in rows.items():
            writer.add_tensor(f"direction.{layer}", row)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _read_gguf(path: Path) -> Recipe:
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        tensors = {tensor.name: np.array(tensor.data, np.float64) for tensor in reader.tensors}
    except (ValueError, OSError, KeyError, IndexError, OverflowError, MemoryError) as error:
        raise CorruptError(f"{path} cannot be read as GGUF: {error}") from None
    if fields.get("general.architecture") != ARCHITECTURE:
        raise CorruptError(f"{path} holds {fields.get('general.architecture')!r}, not a control vector")
    vectors = {int(name.partition(".")[2]): vector for name, vector in tensors.items() if _is_direction(name)}
    vectors = {layer: vector for layer, vector in vectors.items() if vector.any()}  # zeros change nothing
    if not vectors:
        raise CorruptError(f"{path} has no tensor direction.N with a number other than 0, so it steers nothing")
    known = _known(fields.get("workbench.recipe"), path)
    positions = known.steps[0].positions if known else (0, None)
    origin = f"the control vector {path.name}"
    targets = [
        Direction(hook_point=f"blocks.{layer}.hook_resid_post", vector=vectors[layer], origin=origin)
        for layer in sorted(vectors)
    ]
    steps = tuple(Intervention(target=direction, amount=1.0, positions=positions) for direction in targets)
    return replace(known, steps=steps) if known else Recipe(name=path.stem, steps=steps)


def _is_direction(name: str) -> bool:
    start, _, number = name.partition(".")
    return start == "direction" and number.isdecimal()


def _known(text: object, path: Path) -> Recipe | None:
    """Return the recipe that we stored in a file, for its weights and positions; its vectors are elsewhere."""
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
        for step in value["steps"]:
            step["target"]["vector"] = [1.0]
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path}: its recipe was edited or cut short ({error})") from None
    return from_json(Recipe, value, f"{path}, workbench.recipe")


def check_width(recipe: Recipe, d_model: int) -> None:
    """Raise `MismatchError` where a direction in the residual stream is not as wide as the model."""
    for step in recipe.steps:
        target = step.target
        if isinstance(target, Direction) and "resid" in target.hook_point and len(target.vector) != d_model:
            raise MismatchError(
                f"{recipe.name!r} has {len(target.vector)} numbers at {target.hook_point}, the model's residual stream "
                f"{d_model}: it was made for another model"
            )
