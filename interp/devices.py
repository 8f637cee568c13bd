"""Device, dtype and memory: decided here and nowhere else.

A model is loaded in the dtype of the running command (`--dtype`), float32 by default: its weights and the values
between its layers have that dtype. A product of two bfloat16 or float16 matrices is summed in float32, and float32
stays float32: TF32, which torch offers for convolutions unasked, is off unless `INTERP_TF32=1`. Dictionaries,
statistics and scores are computed in float32 whatever the model's dtype.

cuda or mps is used unasked only where a small network gives the numbers of the CPU there (`agrees_with_cpu`). Torch is
imported by the functions that need it.
"""

import contextlib
import functools
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from interp.cache import cache_folder
from interp.errors import ConfigError, UnknownNameError
from interp.seeds import make_generator
from interp.threads import one_thread

if TYPE_CHECKING:
    import torch


DTYPES = ("float32", "bfloat16", "float16")


def pick_device(device: str | None = None, *, mps: bool = True) -> str:
    """Return the requested device, or the first of `cuda`, `mps`, `cpu` that is available and agrees with the CPU.

    Args:
        device: `cpu`, `mps`, `cuda`, or a GPU by its number, `cuda:1`; used unchecked.
        mps: whether mps may be returned when no device was requested.

    Raises `UnknownNameError` for another name, `ConfigError` for a CUDA device that torch does not see.
    """
    import torch

    _fix_precision()
    _keep_freed_memory()
    if device is None:
        available = {"cuda": torch.cuda.is_available(), "mps": mps and torch.backends.mps.is_available()}
        return next((kind for kind in available if available[kind] and agrees_with_cpu(kind)), "cpu")
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (number and not (kind == "cuda" and number.isdecimal())):
        raise UnknownNameError("device", device, ["cpu", "cuda", "cuda:1", "mps"])
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for but torch sees no CUDA device; use --device cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} was asked for and torch sees {torch.cuda.device_count()} CUDA devices, cuda:0 the "
            "first; use --device cuda"
        )
    return device


def _fix_precision() -> None:
    """Keep float32 products in float32, unless `INTERP_TF32=1`, and sum products of narrower dtypes in float32."""
    import torch

    tf32 = os.environ.get("INTERP_TF32") == "1"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


FREE_KEPT = 128 << 20
"""bytes of freed memory at the end of the heap that the C library keeps for the next tensors"""


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors of up to 32 MB instead of returning it to the system each time.

    Every layer of a pass allocates and frees tens of megabytes, and the system clears each page that it returns, which
    takes a tenth of a pass of SmolLM2 on two cores. Limits set in the environment (`MALLOC_...`) stay, and other C
    libraries are left alone.
    """
    limits = {-3: ("MALLOC_MMAP_THRESHOLD_", 32 << 20), -1: ("MALLOC_TRIM_THRESHOLD_", FREE_KEPT)}  # numbers: malloc.h
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name, _ in limits.values()):
        import ctypes

        for option, (_, n_bytes) in limits.items():
            ctypes.CDLL(None).mallopt(option, n_bytes)


DEVICE_TOLERANCE = 1e-3
"""Largest difference from the CPU with which a device is used unasked, in standard deviations of the outputs.

Another order of the same float32 sums gives about 1e-6; a wrong kernel gives about 1."""


def agrees_with_cpu(device: str, passes: "Callable[[str], list[torch.Tensor]] | None" = None) -> bool:
    """Return whether a few forward passes give the numbers of the CPU on a device, within `DEVICE_TOLERANCE`.

    The difference is stored in `devices.json` of the cache folder, by the version of torch and the name of the device,
    so the passes run once. A warning says why a device is not used. `passes` is for tests.
    """
    name = f"torch {_torch_version()}, {_device_name(device)}"
    file = cache_folder() / "devices.json"
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError):
        record = json.loads(file.read_text(encoding="utf-8"))
        known = record if isinstance(record, dict) else {}
    difference = known.get(name)
    if not isinstance(difference, float):
        try:
            difference = _difference(device, passes or small_passes)
        except (RuntimeError, NotImplementedError, TypeError) as error:  # as an unsupported operation; it may pass
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            warnings.warn(f"{name} fails at a small network ({reason}); the CPU is used", stacklevel=2)
            return False
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f"{file.name}.{os.getpid()}.tmp")
            draft.write_text(json.dumps(known | {name: difference}), encoding="utf-8")
            draft.replace(file)
    if difference <= DEVICE_TOLERANCE:
        return True
    warnings.warn(
        f"{name} differs from the CPU by {difference:.2g} standard deviations on a small network, more than "
        f"{DEVICE_TOLERANCE:g}; the CPU is used. --device {device} uses it all the same",
        stacklevel=2,
    )
    return False


def _difference(device: str, passes: "Callable[[str], list[torch.Tensor]]") -> float:
    """Return the largest difference between outputs on a device and on the CPU, in standard deviations of the latter.

    Outputs of another shape and NaN count as 1e9.
    """
    worst = 0.0
    for expected, actual in zip(passes("cpu"), passes(device), strict=True):
        if expected.shape != actual.shape:
            return 1e9
        difference = float((actual.cpu().double() - expected.double()).abs().max() / expected.double().std())
        worst = max(worst, difference if difference == difference else 1e9)
    return worst


def small_passes(device: str) -> "list[torch.Tensor]":
    """Return the outputs of a small float32 network on a device, for a few batches; its weights do not depend on it.

    They cover what models and dictionaries compute: norms, attention through explicit patterns and fused, strided
    inputs, an MLP, the largest k of a row, gathered and added rows, and sums over many terms.
    """
    import torch
    from torch.nn import functional

    generator = make_generator(0, "device check")

    def weights(*shape: int) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) / shape[0] ** 0.5).to(device)

    d, n_heads, d_vocab, d_sae = 64, 4, 199, 256
    embed, unembed, read, write = weights(d_vocab, d) * 8, weights(d, d_vocab), weights(d, d_sae), weights(d_sae, d)
    blocks = [(weights(d, 3 * d), weights(d, d), weights(d, 4 * d), weights(4 * d, d)) for _ in range(2)]
    outputs = []
    for batch, length in ((1, 5), (3, 33), (8, 130)):
        tokens = torch.randint(0, d_vocab, (batch, 2 * length), generator=generator).to(device)
        x = embed[tokens[:, ::2]]
        mask = torch.full((length, length), float("-inf")).triu(1).to(device)
        for number, (qkv, out, up, down) in enumerate(blocks):
            parts = (functional.layer_norm(x, (d,)) @ qkv).view(batch, length, 3, n_heads, d // n_heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            if number:
                z = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                z = (q @ k.transpose(-1, -2) / (d // n_heads) ** 0.5 + mask).softmax(-1) @ v
            x = x + z.transpose(1, 2).reshape(batch, length, d) @ out
            x = x + functional.gelu(functional.layer_norm(x, (d,)) @ up) @ down
        strength, latents = (x.reshape(-1, d) @ read).relu().topk(8)
        decoded = (strength[..., None] * write[latents]).sum(1)
        added = torch.zeros(d_vocab, d).to(device).index_add_(0, tokens[:, ::2].reshape(-1), decoded)
        outputs += [x, decoded, added, (x @ unembed).log_softmax(-1), x.cumsum(1)]
    return outputs


def _torch_version() -> str:
    import torch

    return torch.__version__


def _device_name(device: str) -> str:
    """Return the name of a device as its maker gives it; for mps the processor and the version of the system."""
    import torch

    if device.startswith("cuda"):
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"{device} {platform.processor()} {platform.release()}".strip()


def free_memory(device: str) -> int | None:
    """Return the bytes of memory that are free on a device; None where the system does not tell.

    On the CPU this is what the system can hand out without swapping, within the limit of a container.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0]
    if device.startswith("mps"):
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
        return min([free, *_free_in_groups()])
    return None


def _free_in_groups(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """Yield what the limits of this process' control groups (a container, systemd, Slurm) leave of the memory.

    Cached files count as used there, and make way: those that were not read lately count as free here.
    """
    for line in own.read_text(encoding="utf-8").splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        old = "memory" in controllers.split(",")
        if controllers and not old:
            continue
        names = (
            ("limit_in_bytes", "usage_in_bytes", "total_inactive_file") if old else ("max", "current", "inactive_file")
        )
        top = root / "memory" if old else root
        group = top / path.lstrip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(top))):
            with contextlib.suppress(OSError, ValueError, KeyError):  # "max" where there is no limit
                limit, used = (int((folder / f"memory.{name}").read_text()) for name in names[:2])
                cached = dict(each.split() for each in (folder / "memory.stat").read_text().splitlines())[names[2]]
                yield max(0, limit - used + int(cached))


def faster_in_bfloat16(rows: "torch.Tensor") -> bool:
    """Return True where this processor multiplies some float32 rows with themselves faster in bfloat16.

    Processors with bfloat16 units are several times as fast in it, others slower. One thread, the best of three.
    """

    def seconds(some: "torch.Tensor") -> float:
        times = []
        with one_thread():
            for _ in range(3):
                start = time.perf_counter()
                some.matmul(some.T)
                times.append(time.perf_counter() - start)
        return min(times)

    return seconds(rows.bfloat16()) < 0.7 * seconds(rows)


_chosen_dtype = [DTYPES[0]]


def set_model_dtype(name: str | None = None) -> None:
    """Load models in this dtype from now on where none is stated; None: float32."""
    _chosen_dtype[0] = _dtype_name(name or DTYPES[0])


def model_dtype() -> str:
    """Return the dtype in which models are loaded where none is stated: `--dtype` of the running command."""
    return _chosen_dtype[0]


_sharded = [False]


def set_sharded(sharded: bool = False) -> None:
    """Spread models over several devices from now on where nothing is stated (`--engine sharded`)."""
    _sharded[0] = sharded


def model_sharded() -> bool:
    """Return whether models are spread over several devices where nothing is stated."""
    return _sharded[0]


def parse_dtype(name: str) -> "torch.dtype":
    """Return the torch dtype of a name; only the three in `DTYPES`."""
    import torch

    return getattr(torch, _dtype_name(name))


def _dtype_name(name: str) -> str:
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(name, name)
    if short not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return short
