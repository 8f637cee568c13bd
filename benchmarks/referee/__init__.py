"""The referee: claims about tiny models, true or false by construction, and the error rates of whatever judges them.

    python -m benchmarks.referee write FOLDER --n 60 --seed 1     cases, and how each was made
    python -m benchmarks.referee answer FOLDER                    judged by this workbench, or by a simpler method: --by
    python -m benchmarks.referee score FOLDER [FOLDER ...]        the table of `docs/trust.md`

- `cases`  what is claimed, what is true, and what a tool answered, as files
- `feature`, `head`, `edge`, `circuit`, `direction`, `shape`, `difference`  the kinds of claim
- `planted_models`, `small_models`  what their models are made of
- `baselines`  simpler methods that judge; those of other packages are in `benchmarks/peers/`
- `run`    writes the cases of a folder, and answers them
- `score`  counts errors
"""
