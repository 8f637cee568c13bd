"""Pieces of pages: `frame` (panels, statistics, messages), `token_strip`, `bars`, `feature_links`; `atlas_view` and
`atlas_map`, the map for pages and notebooks.
"""
