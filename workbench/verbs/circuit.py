"""`workbench circuit ...`: circuits, found and shown. Each subcommand is a dataclass in a file of its own."""

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from workbench.options import Options
from workbench.terminal import say
from workbench.verbs.circuit_features import FeatureCircuit
from workbench.verbs.circuit_find import Find
from workbench.verbs.circuit_induction import Induction


@dataclass(frozen=True, kw_only=True)
class Show(Options):
    """Print a circuit that was found: its verdict, nodes and edges."""

    circuit: tyro.conf.Positional[str]
    """Name of a circuit in the workspace, or a path to one."""

    def run(self) -> None:
        from pathlib import Path

        from interp.circuits.circuit import Circuit as Value
        from interp.circuits.circuit import edge_text
        from interp.workspace import Workspace

        path = Path(self.circuit)
        found = Value.load(path if path.exists() else Workspace(self.workspace).path("circuit", self.circuit))
        say(f"{found.model}: {len(found.nodes)} nodes, {len(found.edges)} edges")
        if found.verdict:
            say(f"{'found' if found.verdict.get('found') else 'not found'}: {found.verdict.get('reason', '')}")
        for node in found.nodes:
            label = node.evidence.get("label")
            effect = node.evidence.get("effect") if node.role in (None, "error") else None
            shown = [node.role, None if effect is None else f"{effect:+.3f}", label]
            say(f"  {node.name:8} {'  '.join(str(part) for part in shown if part)}".rstrip())
        for edge in found.edges:
            say(f"  {edge_text(edge)}" + ("" if edge.score is None else f"  {edge.score:+.3f}"))


Command = (
    Annotated[Induction, tyro.conf.subcommand("induction")]
    | Annotated[Find, tyro.conf.subcommand("find")]
    | Annotated[FeatureCircuit, tyro.conf.subcommand("features")]
    | Annotated[Show, tyro.conf.subcommand("show")]
)


@dataclass(frozen=True)
class Circuit:
    """Find circuits, with the evidence for and against them."""

    command: Command

    def run(self) -> Any:
        """Run the subcommand."""
        return self.command.run()
