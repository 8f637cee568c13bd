"""Read the residual stream in terms of next tokens.

- `logit_lens`          every layer's next-token distribution through the final norm and the unembedding
- `lens`                what the two fitted lenses have in common
- `nearest`             the lenses that a workspace has for a model, the best on held-out text first
- `tuned_lens`          a learned affine translator for each layer, as an artefact
- `lens_training`       its training
- `jacobian_lens`       the mean derivative of the last residual in each layer's, as an artefact
- `jacobian_fit`        its estimator
- `jacobian_files`      the form in which such lenses are published
- `vocabulary`          the direction of the last residual that raises each token
- `heldout`             how far a reading is from the model's output on held-out text
- `direct_attribution`  exact split of a token's logit over heads, MLPs and the embedding
- `config`              settings of what is fitted
"""
