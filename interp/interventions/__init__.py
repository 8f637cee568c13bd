"""Interventions: changes to a running model, as values; and the one way in which they are made.

    step = Intervention(target=Latent(dictionary="saes/demo", index=540), amount=75.0)
    with intervened(model, [step], {"saes/demo": sae}):
        logits = model(tokens)

- `intervention`  an intervention as a value: target, action, amount, positions. Torch-free
- `recipe`        several interventions and what they were made for; written to a file and read back
- `edits`         the two changes that everything is made of: add a tensor, insert values. Ablation, activation and path
                  patching, steering sweeps and interventions on graphs use them
- `apply`         hooks of interventions, and the context manager
- `conversation`  what is said in a chat, steered and not, as values. Torch-free
- `chat`          a reply of one chat, token by token, with the shift of each
- `arms`          one change along several vectors, a candidate and its nulls, measured together
- `site`          one dictionary in a model: the arms of a feature and its nulls, and continuations along them
"""
