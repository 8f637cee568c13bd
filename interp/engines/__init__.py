"""Programs that run a model for a recording: TransformerLens' bridge, or an inference engine in its own process.

An engine is a value: the hook points that it offers, its precision and devices, and `reading(hook points)`, which gives
their rows for tokens. `interp.doctor` holds an engine against transformers.

- `engine`      what a recording asks of any of them
- `bridge`      the default: a loaded model in this process, on one device or over several
- `vllm`        vLLM, under a Python of its own
- `inside_vllm` the two files that run there
- `modules`     which modules of a model lie at our hook points
"""
