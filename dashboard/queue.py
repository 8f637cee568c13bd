"""A queue of commands that runs one at a time in a process of its own. Torch-free, without Dash.

The queue lives in `runs/` of the workspace: `<id>.json` is one run, `<id>.log` its output, and `<id>.progress.json` is
written by the running command (`interp.progress`). Every change is on disk before it is acknowledged,
so that the queue survives the server. A run that was active when the server ended is *interrupted*; it resumes from the
`.partial` folder of its artefact. One server owns the queue of a workspace; others only show it.

Steps of a run:

1. `add` checks verb and options (`Catalogue`), which become a list of arguments: no shell reads them.
2. The worker starts the command in a process group of its own. A lock that the process inherits keeps a second one
   away while it lives, even where the server is gone.
3. `cancel` interrupts the group as Ctrl-C would, and kills it after a while.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

from dashboard.answers import is_sequence
from interp.artifacts import read_json, write_json
from interp.errors import ConfigError, ResourceError, UnknownNameError, WorkbenchError
from interp.forms import from_json
from interp.options import Option
from interp.progress import RUN_FILE
from interp.workspace import Workspace

FOLDER = "runs"
WAITING, RUNNING, DONE = "waiting", "running", "done"
FAILED, CANCELLED, INTERRUPTED = "failed", "cancelled", "interrupted"
ACTIVE = (WAITING, RUNNING)
LOG_LINES = 60
_TAIL = 16_384
_ID = re.compile(r"^\d{4,}-[a-z-]+$")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True, kw_only=True)
class StoredRun:
    """One run of the queue, as it is stored."""

    id: str
    verb: str
    options: dict[str, Any]
    state: str
    command: str
    """The command as a reader types it."""
    created: float = 0.0
    """Time when it was queued, also again: waiting runs are carried out in this order."""
    started: float | None = None
    ended: float | None = None
    made: list[str] = field(default_factory=list)
    """Artefacts that it wrote, as `folder/name`."""
    problem: str = ""
    """The reason of a failure, in a sentence."""
    requested: str = ""
    """State that a visitor asked for while it ran."""


@dataclass(frozen=True, kw_only=True)
class QueuedRun(StoredRun):
    """One run of the queue, as the page shows it."""

    fraction: float | None = None
    """Fraction of the present stage that is done, 0 to 1; None when it is not known."""
    stage: str = ""
    seconds_left: float | None = None
    """Estimate for the present stage."""
    log: str = ""
    """Its last lines of output."""

    @property
    def active(self) -> bool:
        """Return True while the run waits or runs."""
        return self.state in ACTIVE


@dataclass(frozen=True, kw_only=True)
class Report:
    """Progress of the running command (`interp.progress`)."""

    stage: str = ""
    done: float | None = None
    total: float | None = None
    first: float = 0.0
    since: float = 0.0
    now: float = 0.0
    made: tuple[str, ...] = ()


class RunFiles:
    """The runs of a workspace on disk, and in memory where this server owns them."""

    def __init__(self, workspace: Workspace):
        self.root, self.folder = workspace.root, workspace.root / FOLDER
        self.records: dict[str, StoredRun] = {}

    def read(self) -> dict[str, StoredRun]:
        """Return the runs on disk, by id, without unreadable ones."""
        records = {}
        for path in sorted(self.folder.glob("*-*.json")) if self.folder.is_dir() else []:
            with contextlib.suppress(WorkbenchError, OSError):
                record = from_json(StoredRun, read_json(path), path, "foreign")
                if record.id == path.stem and _ID.match(path.stem):
                    records[path.stem] = record
        return records

    def save(self, record: StoredRun) -> None:
        """Write a run to disk, then take it into the list."""
        write_json(self.folder / f"{record.id}.json", asdict(record))
        self.records[record.id] = record

    def end(self, record: StoredRun, state: str, problem: str = "") -> None:
        """Write down how a run ended. If that fails, the run ends in memory and the error is raised."""
        ended = replace(record, state=state, problem=problem, ended=time.time(), made=self.made(record))
        self.records[record.id] = ended
        self.save(ended)

    def remove(self, id: str) -> None:
        """Remove a run and its log."""
        del self.records[id]
        for suffix in (".json", ".log", ".progress.json"):
            (self.folder / f"{id}{suffix}").unlink(missing_ok=True)

    def made(self, record: StoredRun) -> list[str]:
        """Return the artefacts that a run wrote, as `folder/name`."""
        keys = list(record.made)
        for path in self.progress(record.id).made:
            with contextlib.suppress(ValueError):
                keys.append(Path(path).resolve().relative_to(self.root.resolve()).as_posix())
        return list(dict.fromkeys(keys))

    def progress(self, id: str) -> Report:
        """Return the report of the running command; empty before the first."""
        path = self.folder / f"{id}.progress.json"
        with contextlib.suppress(WorkbenchError, OSError):
            return from_json(Report, read_json(path), path, "foreign")
        return Report()

    def run_of(self, record: StoredRun) -> QueuedRun:
        """Return a run as the page shows it."""
        run = QueuedRun(**vars(record), log=self.log(record.id), fraction=1.0 if record.state == DONE else None)
        if record.state != RUNNING:
            return run
        report = self.progress(record.id)
        stage = "stopping" if record.requested else report.stage or "starting"
        fraction, left = how_far(report)
        return replace(run, made=self.made(record), stage=stage, fraction=fraction, seconds_left=left)

    def log(self, id: str) -> str:
        """Return the last lines that a run printed, as plain text."""
        try:
            with open(self.folder / f"{id}.log", "rb") as handle:
                handle.seek(max(0, handle.seek(0, os.SEEK_END) - _TAIL))
                text = handle.read().decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line.rpartition("\r")[2] for line in _ESCAPES.sub("", text).replace("\r\n", "\n").split("\n")]
        return "\n".join(lines[-LOG_LINES:]).strip("\n")

    def reason(self, id: str, code: int) -> str:
        """Return the reason of a failure: the error of the command, which is its last line."""
        if code < 0:
            return f"It was ended by {signal.Signals(-code).name}."
        last = next((line for line in reversed(self.log(id).splitlines()) if line.strip()), "")
        return last.removeprefix("workbench: ") or f"It ended with exit code {code}."


def how_far(report: Report) -> tuple[float | None, float | None]:
    """Return the fraction of the present stage that is done, and the seconds that it still needs; None for not known.

    >>> how_far(Report(done=30, total=40, first=10, since=100.0, now=104.0))
    (0.75, 2.0)
    """
    done, total = report.done, report.total
    if done is None or total is None or total <= 0:
        return None, None
    moved = done - report.first
    left = (report.now - report.since) * (total - done) / moved if moved > 0 else None
    return min(1.0, max(0.0, done / total)), left


MOST_WAITING = 100
"""Runs that may wait."""
CUT_OFF = "The dashboard ended while this was running; what it saved can be resumed."


@dataclass(frozen=True, kw_only=True)
class VerbForm:
    """A verb that the page offers."""

    verb: str
    about: str
    """Its help: one line, then more."""
    fields: tuple[Option, ...]


class Catalogue(Protocol):
    """The verbs on offer. The command line provides it, since a page knows no verb."""

    @property
    def forms(self) -> dict[str, VerbForm]:
        """Return the verbs on offer, by name."""
        ...

    def suggestions(self, menu: str) -> list[str]:
        """Return the values that the workspace offers for a menu of an option."""
        ...

    def arguments(self, verb: str, options: Mapping[str, object]) -> list[str]:
        """Return the arguments of the process. Raises `WorkbenchError` for what the verb does not take."""
        ...

    def command(self, verb: str, options: Mapping[str, object]) -> str:
        """Return the command as a reader types it. Raises as `arguments` does."""
        ...


class RunQueue:
    """The runs of one workspace, oldest first, and the worker that carries them out."""

    def __init__(
        self,
        workspace: Workspace,
        catalogue: Catalogue,
        *,
        program: Sequence[str] = (sys.executable, "-m", "workbench"),
        grace: float = 15.0,
    ):
        """Open the queue; `start` begins to work.

        Args:
            workspace: where the artefacts are, and the queue.
            catalogue: the verbs on offer.
            program: the start of every command.
            grace: seconds between the interrupt of a cancelled process and its end by force.
        """
        self.workspace, self.catalogue, self.program, self.grace = workspace, catalogue, tuple(program), grace
        self.problem = ""
        """The reason why nothing can be started here, or empty."""
        self._files = RunFiles(workspace)
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._lock: IO[bytes] | None = None

    def start(self) -> "RunQueue":
        """Lock the queue of this workspace, mark unfinished runs as interrupted, and work on the waiting ones."""
        try:
            self._files.folder.mkdir(exist_ok=True)
            self._lock = _locked(self._files.folder / "queue.lock")
        except OSError as error:
            self.problem = f"This workspace cannot be written to ({error.strerror}): no run can be started here."
            return self
        if self._lock is None:
            self.problem = "Another dashboard serves this workspace and runs its queue; start runs from that one."
            return self
        self._files.records = self._files.read()
        for record in list(self._files.records.values()):
            if record.state == RUNNING:
                with contextlib.suppress(WorkbenchError, OSError):
                    self._files.end(record, INTERRUPTED, CUT_OFF)
        self._thread = threading.Thread(target=self._work, name="runs", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Interrupt the active run, wait for its end, and unlock the queue. Waiting runs stay in it."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._process is not None:
            _interrupt(self._process, self.grace)
        if self._thread is not None:
            self._thread.join(self.grace + 10)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def add(self, verb: str, options: Mapping[str, object]) -> str:
        """Queue a command; return the id of its run. The same command that is still waiting or running is that run.

        Raises `WorkbenchError` for names and values that the verb does not take, `ResourceError` when nothing can be
        started here.
        """
        self._check_writable()
        command = self.catalogue.command(verb, options)
        with self._changed:
            active = [record for record in self._files.records.values() if record.state in ACTIVE]
            if same := [record.id for record in active if record.command == command]:
                return same[0]
            if len(active) >= MOST_WAITING:
                raise ResourceError(f"{len(active)} runs are waiting already; cancel some first")
            number = max([int(run_id.split("-")[0]) for run_id in self._files.records], default=0) + 1
            id = f"{number:04d}-{verb.replace(' ', '-')}"
            record = StoredRun(
                id=id, verb=verb, options=dict(options), command=command, state=WAITING, created=time.time()
            )
            self._files.save(record)
            self._changed.notify_all()
        return id

    def get(self, id: str) -> QueuedRun:
        """Return one run. Raises `UnknownNameError`."""
        return self._files.run_of(self._record(id))

    def all(self) -> list[QueuedRun]:
        """Return every run in the order of the queue."""
        with self._changed:
            records = list(self._records().values())
        return [self._files.run_of(record) for record in sorted(records, key=lambda record: record.created)]

    def active(self) -> list[QueuedRun]:
        """Return the runs that wait or run."""
        return [run for run in self.all() if run.active]

    def cancel(self, id: str) -> None:
        """Take a run out of the queue, or interrupt it. Its unfinished artefact stays, and can be resumed."""
        self._check_writable()
        with self._changed:
            record = self._record(id)
            if record.state == WAITING:
                self._files.end(record, CANCELLED)
            elif record.state == RUNNING:
                new_record = self._files.records[id] = replace(record, requested=CANCELLED)
                if self._process is not None:
                    _interrupt(self._process, self.grace)
                with contextlib.suppress(WorkbenchError, OSError):  # a full disk must not keep it running
                    self._files.save(new_record)

    def resume(self, id: str) -> None:
        """Queue a run that ended early again; it continues where its verb saved its progress."""
        self._check_writable()
        with self._changed:
            record = self._record(id)
            if record.state not in (FAILED, CANCELLED, INTERRUPTED):
                raise ConfigError(f"run {id} is {record.state}; only one that ended early can be resumed")
            self.catalogue.arguments(record.verb, record.options)
            fresh = replace(record, state=WAITING, problem="", ended=None, requested="", created=time.time())
            self._files.save(fresh)
            self._changed.notify_all()

    def forget(self, id: str) -> None:
        """Take a finished run off the list, with its log. What it made stays."""
        self._check_writable()
        with self._changed:
            record = self._record(id)
            if record.state in ACTIVE:
                raise ConfigError(f"run {id} is {record.state}; cancel it first")
            self._files.remove(id)

    def using(self, key: str) -> QueuedRun | None:
        """Return the run, waiting or running, that names an artefact (`folder/name`) or wrote it, if there is one."""
        name = key.rpartition("/")[2]
        for run in self.active():
            words = {word for value in _values(run.options.values()) for word in (value, *value.split(":"))}
            if name in words or key in run.made:
                return run
        return None

    def _records(self) -> dict[str, StoredRun]:
        return self._files.records if self._lock else self._files.read()

    def _record(self, id: str) -> StoredRun:
        records = self._records()
        if id not in records:
            raise UnknownNameError("run", id, records)
        return records[id]

    def _check_writable(self) -> None:
        if self.problem or not self._lock:
            raise ResourceError(self.problem or "the queue is not running; restart the dashboard")

    def _work(self) -> None:
        while True:
            with self._changed:
                record = self._next()
                while not self._stopping and record is None:
                    self._changed.wait()
                    record = self._next()
                if self._stopping or record is None:
                    return
                with self._guarded(record.id):
                    (self._files.folder / f"{record.id}.progress.json").unlink(missing_ok=True)
                    self._files.save(replace(record, state=RUNNING, started=time.time()))
            with self._guarded(record.id):
                if self._record(record.id).state == RUNNING:
                    self._carry_out(record.id)

    @contextlib.contextmanager
    def _guarded(self, id: str) -> Iterator[None]:
        """Turn any error into the failure of a run, so that the worker goes on with the next one."""
        try:
            yield
        except Exception as error:
            with self._changed, contextlib.suppress(WorkbenchError, OSError):
                self._process = None
                if (record := self._record(id)).state in ACTIVE:
                    self._files.end(record, FAILED, f"It could not be run: {error}")

    def _next(self) -> StoredRun | None:
        waiting = [record for record in self._files.records.values() if record.state == WAITING]
        return min(waiting, key=lambda record: record.created, default=None)

    def _carry_out(self, id: str) -> None:
        """Run one command to its end, and write down how it ended."""
        record, code = self._record(id), None
        command = [*self.program, *self.catalogue.arguments(record.verb, record.options)]
        with contextlib.ExitStack() as stack:
            turn = self._wait_for_turn(id)
            if turn is not None:
                stack.enter_context(turn)
                log = stack.enter_context(open(self._files.folder / f"{id}.log", "ab"))
                log.write(f"$ {record.command}\n".encode())
                log.flush()
                with self._changed:
                    if not self._ends_early(id):
                        self._process = _spawn(command, self._files.folder / f"{id}.progress.json", log, turn)
                if self._process is not None:
                    code = self._process.wait()
        with self._changed:
            self._process, record = None, self._record(id)
            if code == 0:
                self._files.end(record, DONE)
            elif record.requested:
                self._files.end(record, record.requested)
            elif self._stopping or code is None:
                self._files.end(record, INTERRUPTED, CUT_OFF)
            else:
                self._files.end(record, FAILED, self._files.reason(id, code))

    def _ends_early(self, id: str) -> bool:
        return self._stopping or bool(self._record(id).requested)

    def _wait_for_turn(self, id: str) -> IO[bytes] | None:
        """Return the lock that a process has while it lives; None if the run was cancelled meanwhile.

        A process that outlives its server has it until it ends.
        """
        while not self._ends_early(id):
            if (lock := _locked(self._files.folder / "worker.lock")) is not None:
                return lock
            time.sleep(0.2)
        return None


def _spawn(command: list[str], report: Path, log: IO[bytes], turn: IO[bytes]) -> subprocess.Popen[bytes]:
    threads = str(max(1, (os.cpu_count() or 2) - 1))  # one core is left to the page
    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
    environment |= os.environ | {RUN_FILE: str(report.resolve())}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # closes when this server ends, however it ends; the command then ends too
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1"},
        start_new_session=True,
        pass_fds=(turn.fileno(),),
    )


def _interrupt(process: subprocess.Popen[bytes], grace: float) -> None:
    """Interrupt a process group as Ctrl-C would; kill it when it has not ended after the grace."""

    def send(number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.poll() is None:
                os.killpg(process.pid, number)

    send(signal.SIGINT)
    timer = threading.Timer(grace, send, [signal.SIGKILL])
    timer.daemon = True
    timer.start()


def _values(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        yield from map(str, value if is_sequence(value) else [value])


def _locked(path: Path) -> IO[bytes] | None:
    """Return the opened file with a lock on it, or None when another process has it. The lock ends with the file."""
    try:
        import fcntl
    except ImportError:  # Windows
        raise OSError(0, "the queue needs file locks, which this system lacks") from None
    handle: IO[bytes] = open(path, "ab")  # noqa: SIM115 - the file stays open as long as the lock is held
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        return None
    return handle
