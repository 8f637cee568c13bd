"""Names that left before 1.0, and what serves instead. Torch-free.

`UnknownNameError` asks here, so that a verb, option, value, act or folder that is gone is refused with one line.
"""

DEPARTED: dict[str, dict[str, str]] = {
    "verb": {
        "align": "`TransformerLens` swaps subspaces in tools.analysis.interchange, see docs/howto/coming-from.md",
        "core": "`workbench circuit find` and `workbench circuit attack` say a circuit's mean and worst case",
        "features": "`workbench trace` shows the features of one prompt",
        "label": "`workbench explain` labels some features too",
        "neurons": "`workbench trace` ranks the neurons of one prompt",
        "readings": "`workbench lens` fits the Jacobian lens, which is judged beside a null",
        "referee": "`python -m benchmarks.referee` in the source tree plants claims",
    },
    "option": {
        "--judge": "the page *Directions* shows what a direction writes",
        "--rule": "`workbench direction` chooses by the log-probability of held-out examples",
    },
    "value": {"relp": "eap-ig has the better order of edges"},
    "act": {},
    "folder": {"cores": "`workbench circuit attack` says the worst case of a circuit"},
}
"""Each name that is gone, and what serves instead, by the first word of what was asked for."""


def departed(what: str, name: str) -> str:
    """Return one line about a name that is gone; empty for a name that never was one.

    >>> departed("value of --method", "relp")
    "'relp' is not of this version: eap-ig has the better order of edges"
    """
    instead = DEPARTED.get(what.split()[0], {}).get(name, "")
    return instead and f"{name!r} is not of this version: {instead}"
