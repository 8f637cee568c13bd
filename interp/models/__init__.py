"""Models you can hook. The only package that imports transformer_lens.

- `hooked`      the type of a loaded model, and the calls of TransformerLens that make one
- `loading`     any model by its spec: packaged, hub id, folder, `.gguf` file, or a small model of our own
- `_memory`     the memory that a model takes, from its config
- `_sharded`    a model over several devices
- `tensor_parallel`  a model that the processes of `torchrun` share
- `packaged`    models whose GGUF file lies in installed packages: SmolLM2-135M, Gemma 3 270M
- `short_name`  a model's name as pages show it
- `sharing`     one loaded model for the steps of a pipeline
- `lora`        adapters of peft (LoRA): merged into their base, trained, written
- `identity`    specs, hashes of weights and tokenizers, one face for all tokenizers
- `adapter`     the few TransformerLens tools that we call, under our names
- `passes`      forward passes through a part of the model, with values at hook points captured; loss per token
- `head_score`  attention scores of a head as products of maps of the residual stream, norms frozen
- `residual`    a transformer as a sum: parts that write to the residual stream, parts that read it, norms taken apart
- `generation`  the one loop that writes text; chats, with a template or without
- `small`       small transformers from a config, and their folder; the checkpoints of a training run
- `training`    the training loop of small models
- `toys`        small models by recipe: trained, or with analytic weights and a known circuit
"""
