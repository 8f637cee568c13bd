"""Read a dictionary of any known format: `load_dictionary(path)` recognises the files, converts and checks them.

Formats are tried in the order of `FORMATS`, the more specific ones first. Each format's module documents its layout and
its conversion. A format is recognised by file names and config keys alone.

A numeric self-check compares every converted SAE with the arithmetic of its source format:

1. probe inputs from a fixed seed: sums of a few encoder directions plus noise around `b_dec`, scaled so that about an
   eighth of the latents (at most 32) are active, which exercises every part of the arithmetic;
2. the source format's own forward pass, written out in float64 on its own arrays (`Conversion.forward`), is compared
   with our `encode`, `encode_sparse` and forward pass in float64;
3. inputs and the source's reconstructions are saved in `selfcheck.safetensors` next to the weights, and compared again
   whenever the folder is loaded or verified.

A misread layout (a transposed matrix, a bias wrongly subtracted, a missing scale) changes every row. Rounding can move
a single pre-activation over its threshold and change one row a lot, so a check passes when at most a quarter of the
rows differ by more than `TOLERANCE`. It holds the weights twice in float64 (16,384 x 2,304: 2.1 GB in all, 5 s).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from interp.artifacts import atomic_file
from interp.dictionary import SparseActs
from interp.errors import CorruptError, MissingError, UnknownNameError
from interp.seeds import make_generator
from saes.kinds.base import SAE, OneLayerSAE
from saes.weights import _dictionary_learning, _gemma_scope, _llama_scope, _openai, _saelens, _sparsify, circuit_tracer
from saes.weights.imported import TOLERANCE, SelfCheck
from saes.weights.importing import checkpoint_path
from saes.weights.layout import Axes, Conversion, Format, check_arrays, read_safetensors

FILE = "selfcheck.safetensors"
ROWS = 8
SEED = 0
ROWS_MAY_FLIP = 0.25
"""Share of rows that may differ by more, where a pre-activation lies within rounding of its threshold."""


@dataclass(frozen=True)
class Probe:
    """Inputs and the reconstructions that the source format gives for them, float32."""

    x: Tensor
    """`[ROWS, d_in]`"""
    recons: Tensor
    """`[ROWS, d_out]`"""


@torch.no_grad()
def self_check(conversion: Conversion) -> tuple[SelfCheck, Probe]:
    """Compare a conversion with its source on probe inputs.

    Raises `CorruptError` when the two disagree (a layout that was misread), or when no probe activates any feature.
    """
    sae = conversion.sae
    x, acts, recons = probe(conversion)
    sae.double()
    try:
        ours = sae.encode(x)
        encode = row_errors(ours, acts)
        sparse = row_errors(_dense(sae.encode_sparse(x), sae.d_sae), acts)
        decode = row_errors(sae(x), recons)
    finally:
        sae.float()
    check = SelfCheck(
        rows=len(x),
        active=float((acts > 0).sum(1).double().mean()),
        encode_error=float(encode.median()),
        encode_sparse_error=float(sparse.median()),
        recons_error=float(decode.median()),
        rows_differing=int((decode > TOLERANCE).sum()),
    )
    for name, errors in (("features", encode), ("sparse features", sparse), ("reconstructions", decode)):
        if not agree(errors):
            raise CorruptError(
                f"the converted dictionary's {name} differ from its own format's by {float(errors.median()):.1e} of "
                f"their size (at most {TOLERANCE:g} is allowed); the files are in another layout than they say"
            )
    return check, Probe(x.float(), recons.float())


def probe(conversion: Conversion) -> tuple[Tensor, Tensor, Tensor]:
    """Return `(x, feature activations, reconstructions)` in float64, the latter two by the source's own arithmetic."""
    sae, generator = conversion.sae, make_generator(SEED, "self-check")
    chosen = torch.randint(sae.d_sae, (ROWS, 4), generator=generator)
    rows = sae.W_enc.T if isinstance(sae, OneLayerSAE) else sae.decoder_directions
    directions = rows[chosen].double()
    directions = directions / directions.norm(dim=2, keepdim=True).clamp_min(1e-30)
    noise = torch.randn(ROWS, sae.d_in, generator=generator).double() / sae.d_in**0.5
    centre = sae.b_dec.double() if sae.subtracts_b_dec else torch.zeros(sae.d_in, dtype=torch.float64)
    shape, wanted = directions.sum(1) + noise, max(1.0, min(32.0, sae.d_sae / 8))
    best: tuple[float, Tensor, Tensor, Tensor] | None = None
    for size in (0.25 * 4.0**power for power in range(10)):
        x = (centre + size * shape).float().double()  # as it will be stored
        acts, recons = conversion.forward(x)
        active = float((acts > 0).sum(1).double().mean())
        distance = abs(active - wanted) / wanted
        if active and (best is None or distance < best[0]):
            best = (distance, x, acts, recons)
    if best is None:
        raise CorruptError(
            "no probe input activates any feature of this dictionary; its biases or thresholds are damaged"
        )
    return best[1:]


def agree(errors: Tensor) -> bool:
    """Return whether row errors `[n]` are within tolerance, except for rows that rounding may have changed."""
    return float((errors > TOLERANCE).double().mean()) <= ROWS_MAY_FLIP and bool(torch.isfinite(errors).all())


def row_errors(ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the largest difference of each row, divided by the row's largest value: `[n, d]` both to `[n]`."""
    return (ours - theirs).abs().amax(1) / theirs.abs().amax(1).clamp_min(1e-12)


def write_probe(folder: Path, probe: Probe) -> None:
    """Save a probe next to the weights."""
    with atomic_file(folder / FILE) as temporary:
        save_file({"x": probe.x.contiguous(), "recons": probe.recons.contiguous()}, temporary)


@torch.no_grad()
def recheck(sae: SAE, folder: Path) -> float | None:
    """Return the median error on the stored probe; None without a stored probe.

    Raises `CorruptError` when the weights no longer give the stored reconstructions.
    """
    path = folder / FILE
    if not path.exists():
        return None
    layout: dict[str, Axes] = {"x": ("rows", "d_in"), "recons": ("rows", "d_out")}
    sizes = {"d_in": sae.d_in, "d_out": sae.d_out}
    stored = check_arrays(read_safetensors(path), layout, path, sizes=sizes, what="a stored self-check")
    errors = row_errors(sae(stored["x"]).double(), stored["recons"].double())
    if not agree(errors):
        raise CorruptError(
            f"the weights in {folder} no longer give the reconstructions stored in {FILE}: they differ by "
            f"{float(errors.median()):.1e} of their size; import the dictionary again"
        )
    return float(errors.median())


def _dense(acts: SparseActs, d_sae: int) -> Tensor:
    return acts.values.new_zeros(len(acts.values), d_sae).scatter_add_(1, acts.indices.long(), acts.values)


FORMATS: tuple[Format, ...] = (
    _saelens.FLAT_FORMAT,
    _saelens.FORMAT,
    _dictionary_learning.FORMAT,
    _sparsify.FORMAT,
    _gemma_scope.FORMAT_2,
    _gemma_scope.TRANSCODER,
    _gemma_scope.EMBEDDING,
    _gemma_scope.FORMAT,
    _llama_scope.FORMAT,
    circuit_tracer.CROSS_LAYER,
    circuit_tracer.FORMAT,
    _llama_scope.FORMAT_QWEN,
    _openai.FORMAT,
)
BY_NAME = {reader.name: reader for reader in FORMATS}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A dictionary of another tool, with its self-check."""

    sae: SAE
    format: str
    check: SelfCheck
    probe: Probe


def load_dictionary(path: Path | str, format: str | None = None) -> SAE:
    """Load the dictionary at a file or folder of any known format, which is recognised unless it is given.

    Every call compares our numbers with the format's own arithmetic (see the module's docstring).

    Args:
        path: a file, a folder, or a name on the hub: `hub:OWNER/NAME/FOLDER`, or one of SAELens
            (`gpt2-small-res-jb/blocks.8.hook_resid_pre`).
        format: name of the format, where the files alone do not tell it.
    Returns: an SAE of the workbench.
    Raises:
        MissingError: nothing there, or nothing recognised.
        UnknownNameError: a format or architecture that is not known.
        CorruptError: keys missing, shapes that do not fit, code in a pickle, numbers that disagree.
        MismatchError: a setting that cannot be expressed.
        NonFiniteError: NaN in the weights.

    >>> load_dictionary(folder / "sae").d_sae
    64
    """
    return load_checked(path, format).sae


def load_checked(path: Path | str, format: str | None = None) -> Loaded:
    """Load a dictionary, and return it with the format that was recognised and the self-check."""
    path = checkpoint_path(str(path))  # formats go by folder names; links are not followed
    chosen = find_format(path, format)
    folder = path if chosen.recognises(path) or not path.is_file() else path.parent
    conversion = chosen.read(folder)
    check, probe = self_check(conversion)
    if folder.is_dir():
        recheck(conversion.sae, folder)
    return Loaded(sae=conversion.sae, format=chosen.name, check=check, probe=probe)


def find_format(path: Path, name: str | None = None) -> Format:
    """Return the format of a name, or the first that recognises the path (or, for a file, its folder)."""
    if not path.exists():
        raise MissingError(f"nothing at {path}; give a dictionary's folder, or its file")
    if name is not None:
        if name not in BY_NAME:
            raise UnknownNameError("dictionary format", name, BY_NAME)
        return BY_NAME[name]
    for candidate in (path, path.parent) if path.is_file() else (path,):
        for reader in FORMATS:
            if reader.recognises(candidate):
                return reader
    _sparsify.explain(path)
    known = "; ".join(f"{reader.name}: {reader.files}" for reader in FORMATS)
    raise MissingError(f"the format of {path} is not known; known formats: {known}")
