"""Circuits: which heads, MLPs and edges do a task, with nulls and verdicts.

- `head_kinds`         scores of every head as a previous-token, induction, duplicate-token, first-token or current-
                       token head
- `head_weights`       QK and OV circuits as factored matrices; composition of heads, copying
- `induction`          the induction circuit, from pattern to proof
- `induction_measure`  its prompts and measurements
- `induction_verdict`  the rule that decides which heads are induction heads
- `induction_table`    its artefact
- `score_explanation`  one attention score as a sum over parts of the query and the key
- `task`               clean and corrupted prompts with a metric
- `tasks`              tasks for a model: induction, indirect objects, greater-than, or from a file
- `metrics`            metrics of logits: logit difference, probability difference, KL, L2
- `graph`              the edges that a circuit can consist of
- `edge_runs`          passes in which every edge can carry another run's value
- `gradients`          the gradient of a metric at every reader of the residual stream
- `attribution`        scores of edges and nodes: EAP, EAP-IG, ACDC, exact patching
- `edge_scores`        scores as a value: rank, bound, verify, cut
- `circuit`            a circuit as a value: nodes, edges, evidence, verdict
- `judging`            the frame in which circuits of heads and of features are judged: faithfulness, null, verdict
- `evaluation`         faithfulness, completeness and minimality against random circuits and an untrained model
- `find`               from a task to an evaluated circuit, and its artefact
- `config`             settings of the analyses
"""
