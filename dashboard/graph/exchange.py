"""Attribution graphs to and from files of other programs: the graph, the user's marks, and the latents it shows.

    write_export(workspace, "capital", Path("out/capital.json"), features=True)
    write_export(workspace, "capital", Path("out/capital.html"))     # its largest nodes and tests, for people (`_file`)
    take_in(workspace, Path("capital.json"), "capital-2")

The layout of an export with features is that of circuit-tracer's viewer: `graph-metadata.json` lists the graphs of a
folder, and `features/MODEL/NUMBER.json` describes a latent (NUMBER pairs its layer and index).
"""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from dashboard.answers import is_object
from dashboard.data.features import viewer_feature
from dashboard.graph import _data
from dashboard.graph._file import graph_html
from dashboard.graph._labels import feature_tables
from interp.artifacts import read_json, save_artefact, sha256_file, write_json
from interp.errors import ConfigError, UsageError
from interp.notes import Notes, graph_marks
from interp.tracing.graph import KIND, AttributionGraph, ImportedFile
from interp.tracing.graph_json import cantor
from interp.tracing.interchange import import_graph, read_graph_json, write_graph_json
from interp.tracing.supernodes import latents
from interp.workspace import Workspace


def write_export(workspace: Workspace, name: str, path: Path, *, features: bool = False) -> list[str]:
    """Write a graph as graph JSON with the user's marks, or as one HTML file, and return a sentence for each file.

    `features` also writes the latents that a features table of this workspace describes, and the list of graphs.
    Raises `ConfigError` for a path that ends in neither `.json` nor `.html`.
    """
    if path.suffix == ".html":
        text = graph_html(workspace, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return [f"{path}: its largest nodes, tests and hashes; opens in any browser"]
    if path.suffix != ".json":
        raise ConfigError(f"a graph is exported as JSON or HTML; {path} should end in .json or .html")
    graph = _data.choose(workspace, name)
    edits = Notes.open(workspace).graph_edits(graph.key)
    graph_json = _data.exported(workspace, graph, edits)
    graph_json["metadata"]["slug"] = path.stem
    write_graph_json(graph_json, path)
    sentences = [f"{path}: {len(graph_json['nodes'])} nodes, {len(graph_json['links'])} edges"]
    return sentences + ([_write_features(workspace, graph, graph_json, path.parent)] if features else [])


def _write_features(workspace: Workspace, graph: AttributionGraph, graph_json: dict[str, Any], folder: Path) -> str:
    tables = feature_tables(workspace, graph)
    scan = graph_json["metadata"]["scan"]
    place = folder / "features" / scan
    if not place.resolve().is_relative_to((folder / "features").resolve()):
        raise ConfigError(f"the model's name {scan!r} leads out of {folder}; export the graph without its features")
    wanted = sorted({(node.layer, node.index) for node in latents(graph)})
    described = 0
    for layer, index in wanted:
        with contextlib.suppress(UsageError):  # a table of fewer latents
            if layer in tables:
                write_json(place / f"{cantor(layer, index)}.json", viewer_feature(workspace, tables[layer], index))
                described += 1
    listed = folder / "graph-metadata.json"
    others: list[object] = read_json(listed).get("graphs", []) if listed.is_file() else []
    slug = graph_json["metadata"]["slug"]
    others = [entry for entry in others if not is_object(entry) or entry.get("slug") != slug]
    metadata = {name: value for name, value in graph_json["metadata"].items() if name != "workbench"}
    write_json(listed, {"graphs": [*others, metadata]})
    return f"{place}: {described} of {len(wanted)} latents; the others have no features table here"


def take_in(workspace: Workspace, path: Path, name: str, *, overwrite: bool = False) -> AttributionGraph:
    """Read a graph JSON of this or another program into the workspace, with its marks.

    A file with marks that the notes reject, such as an empty supernode name, is refused before anything is written.
    Raises `ConfigError` where there is such a graph already, and the errors of `read_graph_json` and `import_graph`.
    """
    graph, edits = import_graph(read_graph_json(path))
    folder = workspace.path(KIND, name)
    key = f"{folder.parent.name}/{name}"
    notes = Notes.open(workspace)
    marks, before = edits.to_notes(), notes.graph_edits(key)
    graph_marks(key, marks)
    of = graph.settings.imported or ImportedFile()
    settings = replace(graph.settings, imported=replace(of, file=path.name, sha256=sha256_file(path)))
    parents = {f"model:{graph.model}": graph.weight_hash} if graph.weight_hash else {}
    made = save_artefact(replace(graph, settings=settings), folder, parents=parents, overwrite=overwrite)
    if marks or before:
        notes.save_graph_edits(key, marks, was=before)
    return made
