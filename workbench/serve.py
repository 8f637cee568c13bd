"""A workspace, opened in the browser, offered to agents over the Model Context Protocol, or checked for damage.

- `workbench serve [WORKSPACE]`: the dashboard.
- `workbench mcp`: the reads, acts and analyses of `dashboard/api.py` as tools of an agent.
- `workbench verify [NAME ...]`: files checked against checksums.
"""

import asyncio
import contextlib
import inspect
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from interp.errors import ConfigError, UnknownNameError, WorkbenchError
from interp.options import Argument, Means
from workbench._protocol import Tool, check_protocol, offer
from workbench.options import command_line
from workbench.terminal import InWorkspace, Threaded, say

if TYPE_CHECKING:
    from dashboard.queue import RunQueue
    from dashboard.sources import Live
    from interp.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Serve(Threaded):
    """Open a workspace in the browser.

    Nothing leaves this machine unless --host names an address that other machines reach.
    """

    folder: Annotated[Path | None, Argument("WORKSPACE")] = None
    """The workspace. Default: ./workspace."""
    workspace: Path = Path("workspace")
    """The same, as an option like that of other verbs."""
    host: Annotated[str, Means("HOST")] = "127.0.0.1"
    """Address to listen on. Other machines can reach an address beyond loopback, so it then carries a token."""
    token: str | None = None
    """Token that the address must carry. Default: none on loopback, a random one beyond it."""
    port: int | None = None
    """Default: 8050, or the next free one."""
    browser: bool = True
    """Open the page in the default browser."""
    model_memory: float | None = None
    """Gigabytes of memory for all loaded models together. Beyond it, those used longest ago are dropped, and loaded
    again on demand. The model in use always stays. Default: half of the machine's memory."""

    def __post_init__(self) -> None:
        if self.model_memory is not None and not self.model_memory > 0:
            raise ConfigError(f"model-memory is a number of gigabytes above 0, got {self.model_memory}")

    def run(self) -> None:
        from dashboard.queue import RunQueue
        from dashboard.security import is_loopback
        from dashboard.serve import serve
        from interp.workspace import Workspace
        from workbench.commands import Commands

        if self.threads is not None:  # torch is loaded at the first prompt, and reads this then
            os.environ["OMP_NUM_THREADS"] = str(self.threads)
        workspace = Workspace(self.folder or self.workspace)
        token = self.token or (None if is_loopback(self.host) else secrets.token_urlsafe(16))
        runs = RunQueue(workspace, Commands(workspace))
        memory = None if self.model_memory is None else int(self.model_memory * 1e9)
        serve(
            workspace, host=self.host, port=self.port, open_browser=self.browser, token=token, runs=runs,
            model_memory=memory,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class OpensDashboard(InWorkspace, Threaded):
    """Options of a verb that opens the dashboard at its end."""

    serve: bool = True
    """Open the dashboard at the end."""
    browser: bool = True
    """Open the page in the default browser."""
    port: int | None = None
    """Default: 8050, or the next free one."""

    def open_dashboard(self) -> None:
        """Open the dashboard, or print the command that does."""
        serve = Serve(workspace=self.workspace, port=self.port, browser=self.browser, threads=self.threads)
        if self.serve:
            say("\nOpening the dashboard; Ctrl-C ends it.")
            serve.run()
        else:
            say(f"\nOpen it with: {command_line(serve)}")


_INSTRUCTIONS = """Look inside a language model. Find features with `search`, read one with `feature` and `examples`,
try it with `steer`, `ablate` and `direction`. `analyses` lists what `start` can run; follow it with `run`, and read
what it made with `artefact`. What the verb `direction` made steers the model with `say`. Every number comes with its
null: random directions, features of like density, or the count expected by chance. Report both, and claim no effect
where the null has one as large."""


@dataclass(frozen=True, kw_only=True)
class Mcp(InWorkspace, Threaded):
    """Offer a workspace to an agent: reads, prompts, steering, ablation, and analyses.

    Example: workbench mcp --workspace ./workspace

    Speaks the Model Context Protocol over standard input and output, so an agent's program starts this command. Tools
    read the workspace, try its models, and start, follow and cancel the analyses of the page *Runs* (--no-runs leaves
    those out). Every answer has its null.
    """

    runs: bool = True
    """Let the agent run analyses, which write artefacts."""

    def run(self) -> None:
        from dashboard.live import LiveModel

        check_protocol()
        workspace = self.open_workspace()
        self.use_threads()
        live, runs = LiveModel(workspace), None
        if self.runs:
            from dashboard.queue import RunQueue
            from workbench.commands import Commands

            runs = RunQueue(workspace, Commands(workspace)).start()
        print(f"{workspace.root} is offered to the agent that started this command (Ctrl-C stops)", file=sys.stderr)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                asyncio.run(converse(workspace, live, runs))
        finally:
            if runs is not None:
                runs.stop()


async def converse(workspace: "Workspace", live: "Live", runs: "RunQueue | None" = None) -> None:
    """Answer an agent with the reads and acts of a workspace, and with `runs` its analyses, until it leaves."""
    from dashboard import api
    from saes.acts import catalogue

    groups = [(workspace, api.READS), *([(runs, api.RUNS)] if runs is not None else [])]
    reads = {name: (source, group) for source, group in groups for name in group}
    acts = {name: act for name, act in catalogue().items() if act.offered}
    tools = [
        Tool(name, inspect.getdoc(group[name]) or "", api.schema(group[name]), name in ("start", "cancel"))
        for name, (_, group) in reads.items()
    ]
    tools += [Tool(name, act.about(), act.schema()) for name, act in acts.items()]

    def answer(name: str, arguments: dict[str, object]) -> object:
        if name in acts:
            return api.ask(live, name, arguments)
        source, group = reads.get(name, (workspace, api.READS))
        return api.call(source, name, arguments, group)

    await offer("interp-workbench", _INSTRUCTIONS, tools, answer)


PROBE = "selfcheck.safetensors"


@dataclass(frozen=True, kw_only=True)
class Verify(InWorkspace):
    """Check every file of a workspace against its checksum.

    Exit code 1 when damage is found, with the file named. An imported dictionary must also reproduce the
    reconstructions stored with it. A training log may not restart or count tokens twice, and its processes must
    together have read the tokens that one process would have read. The text of a recording must be in order, and equal
    that of its corpus unless the corpus has changed.
    """

    names: Annotated[tuple[str, ...], Argument("NAME")] = ()
    """Artefacts to check, as NAME or FOLDER/NAME (recordings/demo). Default: all."""

    def run(self) -> int:
        from interp.artifacts import FOLDERS, verify
        from interp.recording.record import text_problems
        from interp.recording.recorded import Recorded
        from interp.recording.store import Recording
        from interp.workspace import NOT_OF_THIS_VERSION
        from saes.sets.stored import StoredSet
        from saes.training.stored import StoredSAE

        trained = {FOLDERS[StoredSAE.kind], FOLDERS[StoredSet.kind]}
        workspace = self.open_workspace()
        broken = {artefact.key: artefact.problem for artefact in workspace.broken()}
        known = [*broken, *map(workspace.key, workspace.artifacts())]
        for name in self.names:
            if not any(_matches(key, name) for key in known):
                raise UnknownNameError("artefact", name, known)
        chosen = [key for key in known if not self.names or any(_matches(key, name) for name in self.names)]
        damaged = 0
        for key in sorted(chosen):
            folder = workspace.folder(key)
            problems = [broken[key]] if key in broken else verify(folder)
            if not problems and (folder / PROBE).exists():
                problems = _recheck(folder)
            remark = ""
            if not problems and key.partition("/")[0] in trained:
                problems, remark = _check_logs(workspace, key)
            if not problems and key.startswith(f"{FOLDERS[Recorded.kind]}/"):
                problems, remark = text_problems(Recording(folder))
            damaged += bool(problems)
            say(f"{'DAMAGED' if problems else 'ok':<8} {key}" + (f" (not compared: {remark})" if remark else ""))
            for problem in problems:
                say(f"         {problem}")
        for key in workspace.foreign() if not self.names else []:
            say(f"left out {key}: {NOT_OF_THIS_VERSION}")
        say(f"{len(chosen)} artefacts checked, {damaged} damaged")
        return 1 if damaged else 0


def _check_logs(workspace: "Workspace", key: str) -> tuple[list[str], str]:
    """Return what is wrong with the logs of a trained dictionary or set, or with the manifest that they are compared
    with; and why their rows were not compared with the recording, if so."""
    from interp.artifacts.manifest import LOG, read_manifest
    from interp.recording.store import Recording
    from saes.sets.stored import StoredSet, TrainedSetSettings
    from saes.training.log_checks import log_problems, row_problems
    from saes.training.stored import StoredSAE, TrainedSettings

    names = sorted(name for name in read_manifest(workspace.folder(key)).files if Path(name).name == LOG)
    if not names:
        return [], ""
    try:
        stored = workspace.open_key(key)
    except WorkbenchError as error:
        return [str(error)], ""
    if not isinstance(stored, StoredSAE | StoredSet):
        return [], ""
    logs = [stored.folder / name for name in names]
    seen = None if stored.training is None else stored.training.tokens_seen

    def problems_of(check: Callable[[Path], list[str]]) -> list[str]:
        return [f"{log.parent.relative_to(stored.folder)}/{problem}".removeprefix("./")
                for log in logs for problem in check(log.parent)]  # fmt: skip

    problems = problems_of(lambda folder: log_problems(folder, seen))
    of = stored.settings
    if problems or not isinstance(of, TrainedSettings | TrainedSetSettings):
        return problems, ""
    recorded = of.recording_hash if isinstance(of, TrainedSetSettings) else of.recording_hashes[0]
    try:
        recording = Recording(workspace.path("recording", of.recording))
        if recording.manifest.content_hash != recorded:
            return [], f"the recording {of.recording} was made anew"
        seed, fraction = of.train.seed, of.train.heldout_fraction
        return problems_of(lambda log: row_problems(log, recording, seed=seed, heldout_fraction=fraction))[:3], ""
    except WorkbenchError as error:
        return [], str(error)


def _recheck(folder: Path) -> list[str]:
    """Return what is wrong with an imported dictionary that does not reproduce the reconstructions stored with it."""
    from saes.weights.folder import load_sae

    try:
        load_sae(folder)
    except WorkbenchError as error:
        return [str(error)]
    return []


def _matches(key: str, name: str) -> bool:
    return name in (key, key.split("/", 1)[1])
