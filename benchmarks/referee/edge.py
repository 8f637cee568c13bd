"""Claims that an edge matters: "the output of L0H1 reaches the key of L1H0 and matters for the answer".

`details`: `edge`, as `L0H1 -k-> L1H0`; the prompts are `task.json` (`planted_models`). Two copying paths
answer, and the strength scales the share of the claimed one. In the untrained and the shuffled control the other path
answers alone, and both heads of the edge have random or shuffled weights. Near misses carry changes as large as those
of the planted edge, with little effect on the answer. They are in every model, so that a model does not tell its
control. The claim is about one of:

- another head, which writes wrong tokens with `SPILL` of its norm where the right input reads;
- another reader, which attends as the right one does, and writes mostly where nothing reads;
- the other input of the right reader, to which the right sender adds `SPILL` of wrong tokens.

The answer is that of `measure_edge`.
"""

from pathlib import Path

from benchmarks.referee.cases import Answer, Control, Details
from benchmarks.referee.planted_models import (
    SHARPNESS,
    PlantedModel,
    parse_edge,
    read_task,
    write_copying_rows,
)
from interp.circuits.circuit import Edge, edge_text
from interp.circuits.edge_effect import measure_edge
from interp.circuits.judging import pick
from interp.seeds import make_generator

FULL = 0.7
"""Share of the answer by the claimed path at strength 1; the other path writes the rest."""
SPILL = 0.4


def write(folder: Path, control: Control, effect: float, seed: int) -> Details:
    """Write a model with two copying paths and what is like an edge of one, and its prompts."""
    generator = make_generator(seed, "referee", "edge")
    n_tokens, later = 18 + pick(6, generator), bool(pick(2, generator))
    planted = PlantedModel(
        ["prev_a", "prev_b", "two_a", "two_b", "unread"], n_layers=2, n_heads=6 + pick(2, generator),
        n_tokens=n_tokens, d_head=n_tokens, generator=generator,
    )  # fmt: skip
    random = control in ("untrained", "shuffled")
    share = FULL * (effect if control == "planted" else 1.0)
    path = planted.path("a", later=later, weight=share, spill=SPILL)
    planted.path("b", later=later, weight=1.0 if random else 1.0 - share)
    head, mute = planted.take(0), planted.take(1)
    spilt, unread = planted.mixed("unread", "prev_a", SPILL), planted.mixed("unread", "out", SPILL)
    planted.plant(head, "current_token", writes=spilt, sharpness=SHARPNESS)
    planted.plant(mute, path.key, reads=path.value, writes=unread, sharpness=SHARPNESS)
    planted.spoil([path.heads[0], path.heads[-1]], control)
    edge = Edge(path.sender, path.reader, path.via)
    near = (
        Edge(str(head), path.reader, path.via),
        Edge(path.sender, str(mute), path.via),
        Edge(path.sender, path.reader, "k" if later else "v"),
    )
    edge = near[pick(len(near), generator)] if control == "near miss" else edge
    write_copying_rows(folder, 12 + pick(n_tokens - 12, generator), n_tokens, "logit-diff", generator)
    planted.write(folder)
    return {"edge": edge_text(edge)}


def answer(folder: Path, details: Details) -> Answer:
    """Patch the edge, beside random changes of the same size."""
    model, task = read_task(folder)
    found = measure_edge(model, task, parse_edge(details["edge"]))
    return Answer(outcome="supported" if found.matters else "not supported", why=found.headline())
