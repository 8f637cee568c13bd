"""Read the residual stream in terms of next tokens.

- `logit_lens`          every layer's next-token distribution through the final norm and the unembedding
- `tuned_lens`          a learned affine translator for each layer, as an artefact
- `lens_training`       its training
- `direct_attribution`  exact split of a token's logit over heads, MLPs and the embedding
- `config`              settings of a tuned lens
"""
