"""The page *Directions*: layer and strength of steering, the methods, samples, and what the direction means.

- `page`  the verdict, how it was made and chosen, what steering does and what it means, chats side by side
"""
