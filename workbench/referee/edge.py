"""Claims that an edge matters: "the output of L0H1 reaches the key of L1H0 and matters for the answer".

`details`: `edge`, as `L0H1 -k-> L1H0`; the prompts are `task.json` (`planted_models.TaskRows`). Two copying paths
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

from interp.circuits.circuit import Edge, edge_text
from interp.circuits.edge_effect import measure_edge
from interp.circuits.judging import pick
from interp.models.small import load_small
from interp.seeds import make_generator
from workbench.referee.cases import Answer, CaseWords, Control, KindOfCase, RefereeCase, detail
from workbench.referee.planted_models import (
    SHARPNESS,
    PlantedModel,
    copying_rows,
    parse_edge,
    read_rows,
    without_gap,
    write_rows,
)

N_PROMPTS = 32
FULL = 0.7
"""Share of the answer by the claimed path at strength 1; the other path writes the rest."""
SPILL = 0.4


def write(folder: Path, control: Control, effect: float, seed: int) -> CaseWords:
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
    planted.spoil([path.sender, path.reader], control)
    edge = Edge(path.sender, path.reader, path.via)
    near = (
        Edge("L{}H{}".format(*head), path.reader, path.via),
        Edge(path.sender, "L{}H{}".format(*mute), path.via),
        Edge(path.sender, path.reader, "k" if later else "v"),
    )
    edge = near[pick(len(near), generator)] if control == "near miss" else edge
    write_rows(folder, copying_rows(N_PROMPTS, 12 + pick(n_tokens - 12, generator), n_tokens, "logit-diff", generator))
    planted.write(folder)
    via = {"k": "key", "v": "value"}[str(edge.via)]
    return CaseWords(
        claim=f"the output of {edge.source} reaches the {via} of {edge.target} and matters for the answer",
        details={"edge": edge_text(edge)},
    )


def answer(folder: Path, case: RefereeCase) -> Answer:
    """Patch the edge, beside random changes of the same size."""
    model, edge = load_small(folder), parse_edge(detail(case, "edge", str))
    task = read_rows(folder).task(model, check_gap=False)
    if (lacking := without_gap(task)) is not None:
        return lacking
    found = measure_edge(model, task, edge)
    return Answer(
        outcome="supported" if found.matters else "not supported",
        value=found.share.estimate,
        null=float(found.null.max()),
        why=found.headline(),
    )


KIND = KindOfCase(write=write, answer=answer)
