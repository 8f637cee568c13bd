"""The page `/geometry`: shapes of word lists, and directions."""
