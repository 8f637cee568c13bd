"""Dictionaries on disk: ours, and every peer's, one module per format.

- `folder`               our folder (`save_sae`, `load_sae`), which SAELens reads as well
- `read`                 any format (`load_dictionary`), recognised by its files, checked against its own arithmetic
- `importing`            a peer's checkpoint, and the model and hook points that it belongs to
- `imported`             settings and self-check of an imported dictionary
- `layout`               arrays from elsewhere, read without running code, and checked
- `_saelens`             SAELens 6, and the flat layout before 6; our crosscoders and kinds of one's own
- `_dictionary_learning` dictionary_learning
- `_sparsify`            EleutherAI sparsify
- `_gemma_scope`         Gemma Scope 1 and 2
- `_llama_scope`         Llama Scope and Qwen Scope
- `_openai`              OpenAI's sparse_autoencoder
- `circuit_tracer`       circuit-tracer's transcoders
"""
