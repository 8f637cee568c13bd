"""A second, slow implementation of the head scores, for the tests."""


def slow_score(kind: str, tokens: list[int], pattern: list[list[float]], bos: int | None) -> float | None:
    """The definition, read aloud: loops over queries and keys of one prompt; None without a query that has a target."""
    total, n_queries = 0.0, 0
    for q in range(len(tokens)):
        if tokens[q] == bos:
            continue
        targets = []
        for k in range(q + 1):
            hit = {
                "previous_token": k == q - 1 and tokens[k] != bos,
                "duplicate_token": k < q and tokens[k] == tokens[q] and tokens[k] != bos,
                "induction": k >= 1 and tokens[k - 1] == tokens[q] and tokens[k - 1] != bos,
                "first_token": k == 0 and q > 0,
                "current_token": k == q and q > 0,
            }[kind]
            if hit:
                targets.append(k)
        if targets:
            n_queries += 1
            total += sum(pattern[q][k] for k in targets)
    return total / n_queries if n_queries else None
