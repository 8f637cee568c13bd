"""The page `/head/<name>/<head>`: one attention head over a text.

- `page`       the page, its proof, and the addresses that export it
- `_sections`  its panels, for the page and the file
"""
