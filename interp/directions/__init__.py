"""A direction of a model: made from a description, its layer and strength chosen and judged, kept in a file.

    examples = read_examples("pairs.jsonl")
    sides = read_sides(model, examples, hook_points)
    candidates = [candidate(sides, point) for point in hook_points]
    choice = choose_steering(model, candidates, reply_questions(model, examples), neutral_text(model, TEXT))

- `config`     settings. Torch-free
- `named`      a direction with its name and origin
- `examples`   pairs of texts that differ in what the direction is about: from a file, two sets of texts, a trait
- `sides`      activations of both sides, at several layers
- `_variants`  directions by several methods, each with its held-out accuracy and its nulls
- `questions`  what the model is asked: log-odds of words, or of replies, and the loss on neutral text
- `_samples`   text that the model writes while it is steered
- `choosing`   layers and strengths tried on one half of the questions, judged on the other
- `choice`     the result of it. Torch-free
- `making`     from examples or words to a direction: layers, variants, choice
- `monitoring` a monitor: a probe with a threshold, trained and judged on groups of texts
- `monitor`    the same as an artefact. Torch-free
- `study`      all measures of one direction as an artefact. Torch-free
- `meaning`    the tokens that it raises, the words along it, probes and erasure
- `files`      safetensors with its origin, GGUF control vectors, and files of other tools
"""
