"""Dictionaries on disk: ours, and every peer's.

folder.py      `save_sae`, `load_sae`: our folder, which SAELens reads as it stands
read.py        `load_dictionary`: any format, recognised by its files
importing.py   `import_dictionary`: a peer's checkpoint into the workspace, at the place it belongs to
selfcheck.py   the comparison with the source format's own arithmetic, stored and repeated
layout.py      reading and checking arrays from elsewhere; nothing is ever unpickled as code
saelens.py, saelens_flat.py, dictionary_learning.py, sparsify.py, gemma_scope.py, gemma_scope_2.py, openai.py,
llama_scope.py, qwen_scope.py, circuit_tracer.py, crosscoder.py: one layout each, written out in its docstring
"""
