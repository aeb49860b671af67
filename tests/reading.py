"""What a table says, read as a sentence: its cells are broken into lines."""


def told(table):
    """All words in their order, each apart from the next by a space."""
    return " ".join(repr(table).split())
