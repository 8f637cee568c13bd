"""Train dictionaries: one loop for one run or many, on stored or live activations, on one process or several.

- `config`      settings of a run
- `schedule`    the choices made from its token budget: steps, batch, learning rate with warm-up and decay
- `data`        batches of activations, scaled and shuffled
- `train`       the algorithm, from rows to a saved dictionary; read it first
- `run`         one dictionary in training: opened or resumed, advanced by a batch, finished
- `health`      the lines of `log.jsonl`: loss, FVU, L0, dead latents, speed
- `log_checks`  problems that the log of a training shows: begun anew, tokens counted twice, other rows than planned
- `reconstruction`  FVU, L0 and dead latents on held-out rows
- `stored`      a dictionary in a workspace, as an artefact, the class of these scores, and a peer's dictionary into it
"""
