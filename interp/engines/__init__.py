"""What runs a model: TransformerLens' bridge, or an inference engine in a process of its own.

An engine is a value: the hook points that it offers, its precision and devices, and `reading(hook points)`, which gives
their rows for tokens. `engine.Engine` is what a recording asks of it. `bridge` and `vllm` are the engines, and
`modules` says which modules of a model lie at our hook points. `interp.doctor` holds an engine against transformers.
"""
