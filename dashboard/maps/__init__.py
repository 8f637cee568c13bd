"""Maps as pages and notebooks show them.

- `data`     a map's points as people read them: texts, rows of the table, nearest neighbours
- `columns`  a map as the browser takes it: arrays of bytes, regions with their colours
- `routes`   addresses that the view fetches from: arrays, texts, tables
- `view`     the view itself, as a component of a page or a page of its own
"""
