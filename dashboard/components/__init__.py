"""Pieces that several pages share: `frame` (panels, statistics, messages), `token_strip`, `bars`, `feature_links`."""
