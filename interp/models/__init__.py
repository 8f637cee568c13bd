"""Models you can hook. The only package that imports transformer_lens.

- `loading.load_model(spec)`: packaged SmolLM2, hub id, folder, `.gguf` file, or a small model of our own
- `sources`: known names and where their weights come from; `convert`: GGUF -> safetensors, once
- `small.SmallConfig`: small transformers from a config
- `adapter`: the few TransformerLens tools we call, under our names
- `capture.Capture`: values at hook points in one pass that stops after the last one
- `fused.use_fused_attention`: torch's own attention kernel where no pattern is wanted
- `identity`: weight and tokenizer hashes; `tokenizers`: text <-> tokens for any of these models
"""
