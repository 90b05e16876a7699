"""How many of something, in words."""


def count(n: int, one: str, many: str = "") -> str:
    """ "1 seed", "3 seeds"; where an s at the end is not all, say what `many` are: "1 cell has",
    "3 cells have"."""
    return f"{n} {one if n == 1 else many or one + 's'}"
