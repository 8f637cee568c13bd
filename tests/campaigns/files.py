"""Damage files in every way, and read them with every reader.

    python -m tests.campaigns.files --n 10000 --seed 0

A case is one file of a valid artefact or of a peer's format, damaged once: bytes flipped, cut, zeroed, doubled, a
length in a header made huge, another file's content; in JSON and YAML, a value replaced by one of another kind, a key
renamed or gone. The readers of that artefact then run in a fork of this process. They must return or raise an error of
the workbench, within `SECONDS` and `BYTES` of memory, without running a program or opening a connection. Anything else
is a failure, printed with the number of its case; `--case N` repeats it.
"""

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.campaigns import report

FIXTURES = Path(__file__).parents[1] / "fixtures"
SECONDS, BYTES = 5.0, 2 << 30
OUTCOMES = ("read", "refused", "leaked", "crashed", "executed", "hang")
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")


@dataclass(frozen=True)
class Subject:
    """Something to damage, and the readers that must bear it."""

    name: str
    folder: Path
    """copied for each case, then damaged and read"""
    read: Callable[[Path], object]
    files: tuple[str, ...] = ("*",)
    """patterns of the files that may be damaged"""
    seconds: float = SECONDS
    """of the processor, that all its readers may take together"""


def subjects(scratch: Path) -> list[Subject]:
    """Return every kind of file that the workbench reads."""
    artefacts = list(_artefacts(scratch))
    return [*_dictionaries(), *artefacts, *_inputs(scratch), *_pages(scratch), _gguf(scratch)]


def _pages(scratch: Path) -> Iterator[Subject]:
    """Yield the workspace of the artefacts for the pages of the dashboard, once for each kind that is damaged."""
    from tests.campaigns.pages import reader

    root = scratch / "workspace"
    read = reader(scratch / "case" / scratch.name / root.name)
    for kind in sorted(each.name for each in root.iterdir() if each.is_dir()):
        yield Subject(f"pages, {kind}", root, read, (f"{kind}/*/*",), 4 * SECONDS)


def _gguf(scratch: Path) -> Subject:
    """Return a tiny model in a GGUF file, converted as `load_model` does."""
    from make_gguf import write_gguf  # pyright: ignore[reportMissingImports]

    from interp.models.loading import converted_folder

    folder = scratch / "gguf"
    folder.mkdir()
    write_gguf(folder / "tiny.gguf")
    os.environ["INTERP_CACHE"] = str(scratch / "case" / "cache")
    converted_folder(folder / "tiny.gguf")  # imports what each case needs
    return Subject("tiny.gguf", folder, lambda path: converted_folder(path / "tiny.gguf"))


def _dictionaries() -> Iterator[Subject]:
    from saes.weights.circuit_tracer import load_cross_layer_transcoder
    from saes.weights.read import load_dictionary

    for probe in sorted(FIXTURES.rglob("probe.safetensors")):
        folder, root = probe.parent, FIXTURES / probe.relative_to(FIXTURES).parts[0]
        within = folder.relative_to(root)
        clt = any(folder.glob("W_enc_*")) or any(folder.glob("W_dec_*"))
        load: Callable[[Path], Any] = load_cross_layer_transcoder if clt else load_dictionary
        yield Subject(root.name, root, lambda path, load=load, within=within: load(path / within))


def _artefacts(scratch: Path) -> Iterator[Subject]:
    """Yield every artefact of a small workspace; all readers are given each of them."""
    import make_workspace  # pyright: ignore[reportMissingImports]
    from make_graph import write_graph  # pyright: ignore[reportMissingImports]
    from planted import random_recording  # pyright: ignore[reportMissingImports]

    workspace = make_workspace.build(scratch / "workspace")
    write_graph(workspace, "planted")
    random_recording(workspace.path("recording", "planted"), n_contexts=40)
    for folder in sorted(path.parent for path in workspace.root.glob("*/*/manifest.json")):
        yield Subject(f"{folder.parent.name}/{folder.name}", folder, _read_artefact)


def _read_artefact(folder: Path) -> None:
    """Read an artefact as `ls`, `verify` and the pages do: manifest, hashes, tables, tensors, and its own reader."""
    from interp.artifacts import open_artefact, read_json, verify
    from interp.recording.rows import load_tensors
    from interp.recording.store import Recording, document_names
    from interp.tracing.graph import AttributionGraph
    from interp.workspace import Workspace
    from saes.weights.folder import load_sae

    workspace = Workspace(folder.parents[1])
    kind = folder.parent.name
    _each(
        lambda: workspace.artifacts(),
        lambda: verify(folder),
        *(lambda path=path: workspace.query("select * from t limit 9", t=path) for path in folder.rglob("*.parquet")),
        *(lambda path=path: load_tensors(path) for path in folder.rglob("*.safetensors")),
        *(lambda path=path: read_json(path) for path in folder.rglob("*.json")),
    )
    if kind == "recordings":
        recording = Recording(folder)
        _each(lambda: list(recording.shuffled(batch_size=64)), lambda: document_names(recording), recording.verify)
    elif kind == "saes":
        load_sae(folder)
    elif kind == "graphs":
        graph = open_artefact(AttributionGraph, folder)
        _each(lambda: graph.nodes, lambda: graph.edges, lambda: graph.effects)


def _inputs(scratch: Path) -> Iterator[Subject]:
    """Yield the files that a user hands to a verb."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from interp.artifacts import read_npy
    from interp.notes import Notes
    from interp.text.corpora import open_corpus
    from interp.tracing.interchange import read_graph_json
    from interp.workspace import Workspace
    from saes.evaluation.scores import LIST, read_concepts

    folder = scratch / "inputs"
    folder.mkdir()
    rows = [{"text": f"document {n}, " + "words " * n, "id": str(n), "label": "kind"} for n in range(20)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "text.txt").write_text("\n\n".join(row["text"] for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "text.parquet")
    np.save(folder / "vector.npy", np.arange(9.0))
    shutil.copy(LIST, folder / "concepts.toml")
    workspace = Workspace(scratch / "noted", create=True)
    Notes.open(workspace).set("features/demo#3", title="months", starred=True, tags=["mine"])
    shutil.copy(workspace.root / "notes.json", folder)
    for name in ("text.jsonl", "text.txt", "text.parquet"):
        yield Subject(name, folder, lambda path, name=name: list(open_corpus(str(path / name))), (name,))
    yield Subject("vector.npy", folder, lambda path: read_npy(path / "vector.npy"), ("vector.npy",))
    yield Subject("concepts.toml", folder, lambda path: read_concepts(path / "concepts.toml"), ("concepts.toml",))
    yield Subject("notes.json", folder, lambda path: Notes(path / "notes.json").all(), ("notes.json",))
    graphs = FIXTURES / "circuit_tracer_graph"
    for path in sorted(graphs.glob("*.json")):
        yield Subject(path.name, graphs, lambda root, name=path.name: read_graph_json(root / name), (path.name,))


def _each(*readers: Callable[[], object]) -> None:
    """Run all readers, each of which may refuse the file."""
    from interp.errors import WorkbenchError

    for reader in readers:
        with contextlib.suppress(WorkbenchError):
            reader()


def damage(path: Path, rng: random.Random, others: list[Path]) -> str:
    """Damage a file, and return how."""
    data = bytearray(path.read_bytes())
    ways: list[Callable[[], str]] = [
        lambda: _flip(data, rng), lambda: _cut(data, rng), lambda: _zero(data, rng), lambda: _double(data, rng),
        lambda: _length(data, rng), lambda: _swap(data, rng, others),
    ]  # fmt: skip
    if path.suffix in (".json", ".jsonl", ".yaml", ".cfg"):
        ways += [lambda: _value(data, rng)] * 6
    how = rng.choice(ways)()
    path.write_bytes(data)
    return how


def _flip(data: bytearray, rng: random.Random) -> str:
    near = min(len(data), 512) if rng.random() < 0.7 else len(data)  # headers are where readers go wrong
    for _ in range(rng.randint(1, 8) if data else 0):
        data[rng.randrange(near)] = rng.randrange(256)
    return "bytes changed"


def _cut(data: bytearray, rng: random.Random) -> str:
    del data[rng.randint(0, len(data)) :]
    return "cut"


def _zero(data: bytearray, rng: random.Random) -> str:
    start = rng.randint(0, len(data))
    stop = min(len(data), start + rng.choice((8, 64, 4096)))
    data[start:stop] = bytes(stop - start)
    return "zeroed"


def _double(data: bytearray, rng: random.Random) -> str:
    start = rng.randint(0, len(data))
    data[start:start] = data[max(0, start - rng.choice((1, 16, 256))) : start]
    return "doubled"


def _length(data: bytearray, rng: random.Random) -> str:
    at = rng.choice((0, 4, 8, max(0, len(data) - 8)))
    data[at : at + 8] = rng.choice((1 << 62, 1 << 40, (1 << 31) - 1, (1 << 64) - 1)).to_bytes(8, "little")
    return "a huge length"


def _swap(data: bytearray, rng: random.Random, others: list[Path]) -> str:
    data[:] = rng.choice(others).read_bytes()
    return "another file"


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1 << 70, -(1 << 40), 1.5, 1e308, float("nan"), float("inf"), "", "x", "../../etc/passwd",
    "nan", "\x00", "é" * 500, [], {}, [[]], [None], {"a": {}}, [1, "a"], "9" * 50,
)  # fmt: skip


def _value(data: bytearray, rng: random.Random) -> str:
    """Change one value or key of a JSON document, or of one line; text that is no JSON gets a word changed."""
    lines = bytes(data).decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    whole = len(lines) > 1 and not lines[at].lstrip().startswith(("{", "["))
    text = "\n".join(lines) if whole else lines[at]
    try:
        found = json.loads(text)
    except ValueError:
        words = text.split(" ")
        words[rng.randrange(len(words))] = json.dumps(rng.choice(VALUES))
        data[:] = " ".join(words).encode()
        return "a word changed"
    spots = list(_spots(found))
    if not spots:
        found = rng.choice(VALUES)
    else:
        holder, key = rng.choice(spots)
        kind = rng.random()
        if kind < 0.2 and isinstance(holder, dict):
            holder[f"{key}x"] = holder.pop(key)
        elif kind < 0.4:
            del holder[key]
        else:
            holder[key] = rng.choice(VALUES)
    changed = json.dumps(found)
    data[:] = (changed if whole else "\n".join([*lines[:at], changed, *lines[at + 1 :]])).encode()
    return "a value changed"


def _spots(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _spots(value[key])


def run_case(case: int, seed: int, every: list[Subject], scratch: Path) -> tuple[str, str]:
    """Damage and read in a fork; return what became of it, and the details of a failure."""
    rng = random.Random(f"{seed} {case}")
    subject = every[case % len(every)]
    kept = scratch / "case" / subject.folder.parent.name  # some formats go by the names of folders
    shutil.rmtree(scratch / "case", ignore_errors=True)
    folder = kept / subject.folder.name
    shutil.copytree(subject.folder, folder)
    files = sorted({p for pattern in subject.files for p in folder.rglob(pattern) if p.is_file()} - _not_read(folder))
    chosen = rng.choice(files)
    how = damage(chosen, rng, [p for p in files if p != chosen] or files)
    about = f"case {case}: {subject.name}, {chosen.relative_to(folder)}: {how}"
    said = scratch / "said"
    said.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        os._exit(_child(subject, folder, said))
    ended = time.monotonic() + 6 * subject.seconds  # other processes may need the processor too
    while time.monotonic() < ended:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return _judged(status, usage, about, said, subject.seconds)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.wait4(pid, 0)
    return "hang", about


def _not_read(folder: Path) -> set[Path]:
    """Return the files of a fixture that no reader opens."""
    return {p for name in ("probe.safetensors", "README.md") for p in folder.rglob(name)}


def _child(subject: Subject, folder: Path, said: Path) -> int:
    from interp.errors import WorkbenchError

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    ran: list[str] = []
    sys.addaudithook(lambda event, _: ran.append(event) if event in FORBIDDEN else None)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    code = 0
    try:
        subject.read(folder)
    except WorkbenchError:
        code = 1
    except BaseException:  # an error that is not one of ours is what is looked for
        said.write_text(traceback.format_exc())
        code = 2
    if ran:
        said.write_text(f"events: {ran}")
        code = 3
    return code


def _judged(status: int, usage: resource.struct_rusage, about: str, said: Path, seconds: float) -> tuple[str, str]:
    code = os.waitstatus_to_exitcode(status)
    details = f"{about}\n{said.read_text() if said.exists() else ''}"
    if code in (0, 1):
        slow = usage.ru_utime + usage.ru_stime > seconds
        return ("hang", details) if slow else (("read", "refused")[code], "")
    return {2: "leaked", 3: "executed"}.get(code, "crashed"), details


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, nargs="+", help="repeat some cases")
    parser.add_argument("--only", nargs="+", default=[""], help="words, one of which the name of a subject must hold")
    parser.add_argument("--no-report", action="store_true", help="leave docs/trust.md as it is")
    options = parser.parse_args()
    sys.path[:0] = [str(FIXTURES), str(FIXTURES.parent / "saes")]
    import torch

    torch.set_num_threads(1)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        every = [each for each in subjects(scratch) if any(word in each.name for word in options.only)]
        for case in options.case or range(options.n):
            outcome, details = run_case(case, options.seed, every, scratch)
            outcomes[outcome] += 1
            if details:
                print(f"{outcome}: {details}", flush=True)
    line = ", ".join(
        f"{outcomes[each]:,} {each}" for each in ("read", "refused", "leaked", "crashed", "executed", "hang")
    )
    print(f"{line}; {len(every)} kinds of file, {time.monotonic() - started:.0f} s")
    if not options.case and not options.no_report:
        command = f"`python -m tests.campaigns.files --n {options.n} --seed {options.seed}`"
        report.put("files", ["", f"{command}: {line}. {len(every)} artefacts and formats.", ""])


if __name__ == "__main__":
    main()
