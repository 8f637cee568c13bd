"""A model you can hook, what it computes, and how.

Start here:

- `interp.models.loading.load_model(spec)`: any model as a TransformerLens `TransformerBridge`
- `interp.text.corpora.open_corpus(spec)`: documents from docstrings, files, or the hub
- `interp.recording.record.record(...)`: activations on disk; `interp.recording.store.Recording` reads them
- `interp.circuits.head_kinds.score_heads(model)`: every head, with nulls and intervals
- `interp.atlas.build.build_atlas(...)`: a map of vectors that says how much it keeps
- `interp.studies.superposition.train_toys(...)`: toys of superposition, and the shapes that their features settle in
- `interp.studies.hopfield.measure_retrieval(model, tokens)`: heads as associative memories, beside an untrained twin
- `interp.geometry.shapes.shapes_of(model, concepts)`: which lists of words are circles, lines, clusters or nothing
- `interp.workspace.Workspace`: the folder of folders that scripts, notebooks and the dashboard share
"""
