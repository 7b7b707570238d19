"""What hosts and agents say, before it is stored or shown."""


def printable(text: str) -> str:
    """`text` with a blank for each control character: databases take no NUL, and terminals obey the others."""
    return "".join(character if character.isprintable() else " " for character in text)
