"""The engine of a verb: which program runs the model, and its certificate, without which nothing is recorded."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from interp.artifacts import save_artefact
from interp.doctor.certificate import Certificate
from interp.engines.engine import EngineName
from interp.errors import ConfigError, program
from interp.options import Means
from workbench.first_look import certificate_name, is_off
from workbench.terminal import OnDevice, Verb, say

if TYPE_CHECKING:
    from interp.engines.vllm import Vllm
    from workbench.analysis import AnalysisRun


@dataclass(frozen=True, kw_only=True)
class ChoosesEngine(OnDevice):
    """Option of a verb that says which program runs the model."""

    engine: EngineName = "bridge"

    def over_devices(self) -> bool:
        return self.engine == "sharded"


@dataclass(frozen=True, kw_only=True)
class OverDevices(ChoosesEngine):
    """Option of a verb that needs no weights of layers: its model may be spread over several devices."""

    engine: Literal["bridge", "sharded"] = "bridge"
    """`sharded` spreads a model that does not fit on one device over the GPUs, the machine's memory and the disk."""


@dataclass(frozen=True, kw_only=True)
class _InProcesses(Verb):
    """Option of a verb that may run a model in vLLM."""

    engine: EngineName = "bridge"
    tensor_parallel: Annotated[int, Means("PROCESSES")] = 1
    """Processes of vLLM that share every layer, one GPU each; they must divide the attention heads."""

    def __post_init__(self) -> None:
        if self.engine != "vllm" and self.tensor_parallel != 1:
            asked = f"--tensor-parallel {self.tensor_parallel}"
            raise ConfigError(f"{asked} is for vLLM's processes; add --engine vllm, or leave it out")


@dataclass(frozen=True, kw_only=True)
class RecordsInEngine(_InProcesses):
    """Options of a pipeline whose recording may come from vLLM."""

    engine: Literal["bridge", "vllm"] = "bridge"
    """Program that runs the model for the recording, as in `workbench record`; other steps run it in the workbench."""

    def check_engine(self, spec: str, hook_point: str | None) -> None:
        """Raise as `start_vllm` and `Engine.reading`, from the model's files alone, for what vLLM cannot read."""
        from interp.engines.vllm import Vllm, python_of_vllm

        if self.engine == "vllm":
            engine = Vllm(spec, self.tensor_parallel, "float32", None, python_of_vllm())
            engine.check([hook_point] if hook_point else [])


@dataclass(frozen=True, kw_only=True)
class OnEngine(_InProcesses, ChoosesEngine):
    """Options of a verb that runs a model in the workbench itself, or in an inference engine."""

    engine: EngineName = "bridge"
    """Program that runs the model. `bridge` is here and serves every analysis. `sharded` is the same, with a model that
    is spread over the GPUs, the machine's memory and the disk; in `record` under `torchrun` its processes share every
    layer. `vllm` has an environment of its own (`make engine-vllm`, or the Python that WORKBENCH_VLLM_PYTHON names) and
    gives values of the residual stream, attention and MLPs."""

    @contextlib.contextmanager
    def started(self, spec: str, dtype: str, n_ctx: int | None = None) -> "Iterator[Vllm]":
        """Run vLLM with a model within the block. Raises as `start_vllm`."""
        from interp.engines.vllm import start_vllm

        if self.device is not None:
            raise ConfigError("vLLM chooses its devices itself; leave --device out, or --engine vllm")
        began = time.monotonic()
        with start_vllm(spec, ranks=self.tensor_parallel, dtype=dtype, n_ctx=n_ctx) as engine:
            say(f"engine: {engine.about}, {dtype} (started in {time.monotonic() - began:.0f} s)")
            yield engine


def certify(run: "AnalysisRun", engine: "Vllm") -> None:
    """Make the engine's certificate a parent, after an examination where there is none of these weights.

    Raises `ConfigError` where a check failed: what would be recorded is not what the model computes.
    """
    from interp.doctor.engine import examine_engine

    known = (entry for entry in run.workspace.values(Certificate) if entry.settings.engine == engine.about)
    same = (engine.weight_hash, engine.precision)
    certificate = next((entry for entry in known if (entry.settings.weight_hash, entry.dtype) == same), None)
    if certificate is None and is_off():
        return
    if certificate is None:
        with run.progress("engine", "contexts") as progress:
            made = examine_engine(engine, progress=progress)
        folder = run.workspace.path(Certificate.kind, engine_certificate(engine.spec, engine.name, engine.ranks))
        certificate = save_artefact(made, folder, seed=made.settings.seed, overwrite=True)
        say(f"doctor: {certificate.subject}, before its first recording: {certificate.headline()}")
    if certificate.failed:
        check = certificate.with_verdict("failed")[0]
        raise ConfigError(
            f"{engine.about} does not give the rows of {engine.spec} ({check.name}: {check.came}); nothing was "
            f"recorded. All checks: {program()} doctor {engine.spec} --engine {engine.name}"
        )
    run.made_from(certificate.about)


def engine_certificate(spec: str, engine: str, ranks: int) -> str:
    """Return the name of the certificate of a model in an engine."""
    return certificate_name(f"{spec}-{engine}" + (f"-{ranks}" if ranks > 1 else ""))
