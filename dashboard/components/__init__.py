"""Pieces that several pages share.

- `frame`     page, panel, statistic, message, figure, menu, link; a large part of a page that is cheap to draw
- `pages`     a page and its callbacks: navigation, chosen artefact, addresses
- `forms`     inputs made from the fields of an act or of the settings of an analysis
- `measures`  measured numbers in words, and a part that was not measured
- `dots`      a small picture of points
- `evidence`  measurements as a table, in words with their intervals; histograms as HTML
- `http_errors`  the answer to every error of a request
- `glossary`  terms with their meanings, and links to them from the texts of pages
- `markup`    pieces of a page as HTML for a notebook or a file
- `modules`   scripts of assets/ in a page that needs no server
- `routes`    the element in which the browser draws routes of a prompt
- `tokens`    tokens in a row, coloured by activation; attention between them
"""
