"""Names that left before 1.0, and what serves instead. Torch-free.

`UnknownNameError` asks here, so that a verb, option, value, act or folder that is gone is refused with one line.
"""

_SWAP = "transformer_lens.tools.analysis.interchange swaps subspaces, see docs/howto/coming-from.md"
_PROMPT = "`workbench trace` ranks the neurons and features of one prompt"
_LENS = "the page *Prompt* shows the lens of every layer, and `workbench ask read-layers` prints it"
_ENDPOINT = "the environment names the endpoint of `workbench explain`, see its --help"
_WRITES = "a direction is chosen by log-probabilities, and its page shows what it writes"
_SCRIPT = "it is a field of the settings in Python"
_STORY = "`workbench why` says which word tells which word what; a graph keeps its nodes and their names"

DEPARTED: dict[str, dict[str, str]] = {
    "verb": {
        "align": _SWAP,
        "core": "`python -m benchmarks.circuit_core` in the source tree, and `workbench circuit attack`",
        "features": _PROMPT,
        "label": "`workbench explain FEATURES --features NUMBER --yes` labels one feature",
        "neurons": _PROMPT,
        "readings": _LENS,
        "referee": "`python -m benchmarks.referee` in the source tree plants claims, answers and scores them",
    },
    "option": {
        **dict.fromkeys(("--judge", "--rule", "--n-samples"), _WRITES),
        **dict.fromkeys(("--provider", "--key-variable"), _ENDPOINT),
        **dict.fromkeys(("--sparsity", "--prefixes", "--decay-fraction", "--aux-coefficient", "--clip-norm"), _SCRIPT),
        **dict.fromkeys(("--logit-share", "--node-share", "--max-neurons", "--skip-positions"), _SCRIPT),
        "--basis": "a monitor reads the residual stream",
        "verify --clean": "a workspace is a folder, which needs no cleaning",
        "saes --probing": "`workbench evaluate SAE --probing` probes one dictionary",
        "--tracker": "log.jsonl of the dictionary has the same lines",
        "show --groups": _STORY,
        **dict.fromkeys(("show --device", "show --dtype"), "a graph is printed without the model"),
        "search --vector": "`workbench search 'like NAME:NUMBER'` finds features like one",
    },
    "value": {"relp": "eap-ig orders edges better", "matching_pursuit": "topk and batchtopk are the nearest kinds"},
    "act": {
        "patchscope": _LENS,
        "swap-pair": _SWAP,
        **dict.fromkeys(("group-latents", "group_latents"), _STORY),
        **dict.fromkeys(("answer-chats", "check-chat"), "`workbench ask say` answers one message with and without"),
    },
    "folder": {
        "alignments": _SWAP,
        **dict.fromkeys(("neuron-circuits", "feature-circuits"), _PROMPT),
        "cores": "`workbench circuit attack` says the worst case of a circuit",
        "readings": _LENS,
    },
}
"""Each name that is gone (an option that other verbs have, after its verb), and what serves instead, by what it was."""


def departed(what: str, name: str) -> str:
    """Return one line about a name that is gone; empty for a name that never was one.

    >>> departed("value of --method", "relp")
    "'relp' is not of this version: eap-ig orders edges better"
    """
    first, last = what.split()[0], what.split()[-1]
    known = DEPARTED.get(first, {})
    instead = known.get(name, "") or known.get(f"{last} {name}", "")
    return instead and f"{name!r} is not of this version: {instead}"
