"""The page `/head/<name>/<head>`: one attention head over a text."""
