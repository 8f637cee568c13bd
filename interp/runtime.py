"""Device, dtype, threads and seeds are decided here and nowhere else.

A seed enters at the command line, becomes `torch.Generator`s here, and leaves in the manifest.

A model is loaded in the dtype of the running command (`--dtype`), float32 by default: its weights and the values
between its layers have that dtype. A product of two bfloat16 or float16 matrices is summed in float32, and float32
stays float32: TF32, which torch offers for convolutions unasked, is off unless `INTERP_TF32=1`. Dictionaries,
statistics and scores are computed in float32 whatever the model's dtype.

cuda or mps is used unasked only where a small network gives the numbers of the CPU there (`agrees_with_cpu`).

Blocks of work run on several threads, each block on one, so that a result does not depend on the number of threads;
compiled loops (numba) run on as many threads as torch uses. torch and numba are imported by the functions that need
them, and so are the public names of the packages (`lazily`).

The module also says on which versions a result was computed, and has the locks and caches that processes share.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import os
import platform
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from interp.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    import torch


DTYPES = ("float32", "bfloat16", "float16")


def set_threads(threads: int | None) -> int:
    """Use `threads` CPU threads in torch and numba (None keeps the library's choice). Returns the number in use."""
    import torch

    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads must be at least 1, got {threads}; leave it out to use every core")
        torch.set_num_threads(threads)
        numba = sys.modules.get("numba")
        if numba is None:
            os.environ["NUMBA_NUM_THREADS"] = str(threads)  # read when numba is first imported
        else:  # numba compares the variable with its running threads at every compilation, and fails when they differ
            numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    return torch.get_num_threads()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Use one CPU thread in torch within the block: on small products threads mostly wait for each other.

    On a busy machine a step of a toy model takes ten times as long with two threads as with one. With one thread the
    numbers do not depend on the machine's number of cores either.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        there = {"cuda": torch.cuda.is_available(), "mps": mps and torch.backends.mps.is_available()}
        return next((kind for kind in there if there[kind] and agrees_with_cpu(kind)), "cpu")
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
        found = json.loads(file.read_text(encoding="utf-8"))
        known = found if isinstance(found, dict) else {}
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
    for here, there in zip(passes("cpu"), passes(device), strict=True):
        if here.shape != there.shape:
            return 1e9
        difference = float((there.cpu().double() - here.double()).abs().max() / here.double().std())
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


def code_version() -> str:
    try:
        return metadata.version("interp-workbench")
    except metadata.PackageNotFoundError:
        return "unknown"


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that can change a number."""
    found = {"python": platform.python_version()}
    for package in ("torch", "transformers", "transformer-lens", "numpy", "umap-learn"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _torch_version() -> str:
    import torch

    return torch.__version__


def _device_name(device: str) -> str:
    """Return the name of a device as its maker gives it; for mps the processor and the version of the system."""
    import torch

    if device.startswith("cuda"):
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"{device} {platform.processor()} {platform.release()}".strip()


def size_text(n_bytes: float) -> str:
    """Return a number of bytes with its unit.

    >>> size_text(1_234_567)
    '1.2 MB'
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes:.0f} B"


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
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            limit, used = (int(Path(f"/sys/fs/cgroup/memory.{each}").read_text()) for each in ("max", "current"))
            free = min(free, limit - used)
        return free
    return None


def faster_in_bfloat16(rows: "torch.Tensor") -> bool:
    """Return True where this processor multiplies some float32 rows with themselves faster in bfloat16.

    Processors with bfloat16 units are several times as fast in it, others slower. One thread, the best of three.
    """
    import time

    def seconds(some: "torch.Tensor") -> float:
        times = []
        with one_thread():
            for _ in range(3):
                start = time.perf_counter()
                some.matmul(some.T)
                times.append(time.perf_counter() - start)
        return min(times)

    return seconds(rows.bfloat16()) < 0.7 * seconds(rows)


def cache_folder() -> Path:
    """Return the user's cache folder: `$INTERP_CACHE`, else `~/.cache/interp-workbench`."""
    return Path(os.environ.get("INTERP_CACHE") or "~/.cache/interp-workbench").expanduser()


class FileCache:
    """Files in a folder of the cache that can be fetched again: those used last are retained, up to a size."""

    GRACE: ClassVar[float] = 10.0
    """Seconds for which a used file is kept regardless of the limit: its reader may not have opened it yet."""

    def __init__(self, folder: str, variable: str, default_gb: float, *, part: str):
        """Bound the files of `folder` below a folder named `part` to the gigabytes of an environment variable."""
        self.folder, self.variable, self.default_gb, self.part = folder, variable, default_gb, part
        self._lock, self._total = threading.Lock(), None

    def limit(self) -> float:
        """Return the bytes that are retained. Raises `ConfigError` where the variable is not a number."""
        text = os.environ.get(self.variable) or str(self.default_gb)
        with contextlib.suppress(ValueError):
            if 0 <= (limit := float(text)) < float("inf"):
                return limit * 1e9
        raise ConfigError(f"{self.variable} is a number of gigabytes, got {text!r}")

    def added(self, n_bytes: int) -> None:
        """Count bytes that were added; beyond the limit remove the files whose last use is the longest ago."""
        limit = self.limit()
        with self._lock:
            self._total = None if self._total is None else self._total + n_bytes
            if self._total is None or self._total > limit:
                self._total = self._trim(limit)

    def _trim(self, limit: float) -> int:
        """Remove files until the others fit; return their bytes. Other processes may do the same at once."""
        found = []
        for folder, _, names in os.walk(cache_folder() / self.folder):
            for name in names if self.part in Path(folder).parts else ():
                with contextlib.suppress(OSError):
                    about = os.stat(path := os.path.join(folder, name))
                    found.append((about.st_atime, about.st_size, path))
        total = sum(n_bytes for _, n_bytes, _ in found)
        for used, n_bytes, path in sorted(found):
            if total <= limit or used > time.time() - self.GRACE:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
                total -= n_bytes
        return total


class FolderLock:
    """Lock on a folder against other processes, until this process has no reference to it or ends."""

    _held: ClassVar["WeakValueDictionary[str, FolderLock]"] = WeakValueDictionary()

    def __init__(self, handle: int | None):
        self._handle = handle

    @classmethod
    def take(cls, folder: Path) -> "FolderLock":
        """Return the lock, which this process may hold already. Raises `ConfigError` where another process has it.

        A system or file system without locks gives one that keeps nobody out.
        """
        name = str(folder)
        held = cls._held.get(name)
        if held is not None and held._is_of(name):
            return held
        try:
            import fcntl
        except ImportError:  # Windows
            return cls(None)
        taken = ConfigError(
            f"{name} is being written by another process; wait until it has finished, or choose another --name"
        )
        try:
            handle = os.open(name, os.O_RDONLY)
        except FileNotFoundError:  # finished or removed this moment
            raise taken from None
        lock = cls(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise taken from None
        except OSError:  # no locks there
            return lock
        if not lock._is_of(name):  # renamed or removed before it was locked
            raise taken
        cls._held[name] = lock
        return lock

    def _is_of(self, name: str) -> bool:
        """Return whether the locked folder is still the one at that path."""
        try:
            return self._handle is not None and os.path.samestat(os.fstat(self._handle), os.stat(name))
        except OSError:
            return False

    def __del__(self) -> None:
        if self._handle is not None:
            os.close(self._handle)


_chosen_dtype = [DTYPES[0]]


def set_model_dtype(name: str | None = None) -> None:
    """Load models in this dtype from now on where none is stated; None: float32."""
    _chosen_dtype[0] = _dtype_name(name or DTYPES[0])


def model_dtype() -> str:
    """Return the dtype in which models are loaded where none is stated: `--dtype` of the running command."""
    return _chosen_dtype[0]


def parse_dtype(name: str) -> "torch.dtype":
    """Return the torch dtype of a name; only the three in `DTYPES`."""
    import torch

    return getattr(torch, _dtype_name(name))


def _dtype_name(name: str) -> str:
    short = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}.get(name, name)
    if short not in DTYPES:
        raise UnknownNameError("dtype", name, DTYPES)
    return short


def make_generator(seed: int, *streams: str | int, device: str = "cpu") -> "torch.Generator":
    """Return a generator for one named stream of randomness.

    Streams with different names are independent, so an additional draw in one stream changes no other.
    """
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *streams))


def derive_seed(seed: int, *streams: str | int) -> int:
    """Return a 63-bit seed from `(seed, *streams)`, the same on every machine and Python."""
    text = "/".join(str(part) for part in (seed, *streams))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def in_blocks(
    blocks: Iterable[Any], work: Callable[[Any], Any], each: Callable[[Any], None] | None = None
) -> list[Any]:
    """Return `[work(block) for block in blocks]`, computed on as many threads as torch uses.

    `each(block)` is called in order as results arrive; an exception in it stops the work within a block. A matrix
    product spread over threads may round differently than on one thread; a product within a block does not.
    """
    import torch

    todo, threads = list(blocks), torch.get_num_threads()
    results = []
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for block, result in zip(todo, pool.map(work, todo), strict=True):
                results.append(result)
                if each is not None:
                    each(block)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def run_compiled(kernel: Callable[..., Any], *arguments: Any, at_most: int | None = None) -> Any:
    """Call a compiled kernel with tensors as arrays, on as many threads as torch uses, or `at_most`.

    Numba starts its threads at first use and resets OpenMP's number, which torch shares; it is restored.
    """
    import numba
    import torch

    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    numba.set_num_threads(max(1, min(threads, most, at_most or most)))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    return kernel(*(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))


def lazily(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], list[str]]:
    """Return `__getattr__` and `__all__` of a package that imports its public names when they are first asked for.

    `homes` maps each module to its names, separated by spaces; `own:public` renames one.
    """
    found = {
        public or own: (module, own)
        for module, names in homes.items()
        for own, _, public in (name.partition(":") for name in names.split())
    }

    def find(name: str) -> Any:
        if name not in found:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, own = found[name]
        value = getattr(importlib.import_module(module), own)
        setattr(sys.modules[package], name, value)
        return value

    return find, list(found)
