"""Tables in, `plotly.graph_objects.Figure` out: pure functions, one file per figure, one theme.

`theme` colours and axes of both schemes · `atlas` the map as a PNG · `histogram` of activations · `heads` scores of
every head · `lens` what each layer would predict · `pattern` attention of one head. The same figures serve a notebook.
"""
