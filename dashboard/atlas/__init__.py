"""The pages `/atlas` and `/atlas/<name>`: maps, shown by `dashboard.maps`.

- `page`  the page
"""
