"""Effects of fine-tuning: a comparison of two checkpoints of one architecture, layer by layer.

- `_components` components of a model by canonical name, as views into its weights; the null (further training,
  rounding)
- `_stream`     changes of the residual stream, on target text and on control text
- `transplant`  the causal test: put a component of one model into the other and measure the behaviour
- `_reading`    words for the change: difference lens, directions of the weights, predictions, continuations
- `report`      all of it as one result
- `tunes`       six small fine-tunes whose truth is known, trained here
- `comparison`  the comparison of two checkpoints as an artefact: one list, each row beside its null

Fine-tuning effects on features are measured with a crosscoder, in `saes.evaluation.crosscoder_latents`.
"""
