"""Groups of tools by what they do, guessed from name and description."""

import re

GROUPS = ("Create", "Read", "Update", "Delete", "Other")
_WORDS = {
    "Create": (
        "create add new insert post send upload write make generate register start submit publish"
    ),
    "Read": (
        "get list read search find fetch show describe query count lookup view check download"
        " export whoami echo"
    ),
    "Update": (
        "update edit change set modify patch rename move replace merge assign enable disable"
        " configure put"
    ),
    "Delete": "delete remove drop purge destroy revoke clear cancel archive erase",
}
_GROUP_OF = {word: group for group, words in _WORDS.items() for word in words.split()}
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def group_of(name: str, description: str = "") -> str:
    """Return the group of a tool by the first known word in its name or description."""
    for text in (name, description):
        for word in _PARTS.findall(text):
            for form in (word.lower(), word.lower().removesuffix("s")):
                if form in _GROUP_OF:
                    return _GROUP_OF[form]
    return "Other"
