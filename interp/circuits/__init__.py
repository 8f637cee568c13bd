"""Circuits: the heads, MLPs and edges that a task depends on, with nulls and verdicts.

- `head_kinds`         scores of every head as a previous-token, induction head and other kinds, on prompts and on texts
- `head_scores`        scores of heads as an artefact
- `measure_heads`      every head over a text: kinds, words, outputs and examples, in one pass that resumes
- `_text_sums`         its sums over attention, and the examples that stay
- `_head_outputs`      what heads write about the tokens that they attend to
- `text_kinds`         kinds of head on any text: what they attend to and write
- `heads_in_text`      heads over a text as an artefact
- `head_weights`       QK and OV circuits as factored matrices; composition of heads, copying
- `induction`          the induction circuit, from attention pattern to causal evidence
- `_induction_measure` its prompts and measurements, and the rule that decides which heads are induction heads
- `induction_circuit`  the induction circuit as an artefact
- `score_explanation`  one attention score as a sum over pairs of components, at the query and at the key
- `tasks`              tasks for a model: induction, indirect objects, greater-than, or from a file
- `graph`              the edges that a circuit can consist of
- `_edge_runs`         forward passes in which each edge can carry another run's value
- `_gradients`         the gradient of a metric at every reader of the residual stream
- `attribution`        scores of edges and nodes: EAP, EAP-IG, ACDC, exact patching
- `edge_effect`        effect of one edge by exact patching, beside random rotations of what it carries
- `_edge_scores`       operations on scores: rank, bound, verify, select a circuit
- `circuit`            the circuit itself: nodes, edges, evidence
- `found_circuit`      what all circuits have as artefacts: verdict, scores, prompts, attention; the circuit of a task
- `judging`            shared evaluation of circuits of heads and of features: faithfulness, null, verdict
- `find`               from a task to an evaluated circuit: faithfulness, completeness and minimality, against random
                       circuits and an untrained model
- `attack`             an adversary that chooses which edges outside a circuit are replaced
- `worst_case`         what it leaves, as an artefact
- `config`             settings of the analyses
"""
