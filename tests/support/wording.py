"""Wordings that texts for people do not use, as regular expressions, and what to say instead.

They are examples of a kind. Say what happened and what to do, in the words of the field: no
riddles, no personification, no phrases that only make sense in another language. `text_of` returns
the texts of a file that people read.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

ODD = {
    # Errors
    r"Somebody was faster": "Changed by someone else",
    r"did not play along": "The MCP server returned an error",
    r"This address does not take": "Method not allowed",
    r"There is nothing here": "Page not found, or you do not have access",
    r"You cannot be sent to the provider": "Can't reach the sign-in provider",
    r"The e-mail or the password is not right": "Incorrect email or password",
    # The form of a server
    r"Left empty, it is": "Tool-name prefix. Defaults to the name.",
    r"Found by itself": "Discovered automatically if the server advertises it.",
    r"today['’]s way": "Streamable HTTP (recommended)",
    r"The older way over": "HTTP with SSE (deprecated)",
    r"Told to the models": "Instructions sent to models",
    r"Other words \(tools\)|>Other words<": "Rename or redescribe",
    r"How the portal signs in": "Authentication",
    r"it does not exist for callers": "When off, only callers on your internal network can see it",
    # The grid
    r"Public / Internal": "Any network / Internal network",
    r"Per-person (?:values|sign-in)": "Needs each user's credentials",
    r"Needs me\b": "Needs my attention",
    # Keys
    r"Nothing ticked": "If none are selected: all servers you can use.",
    r"Make the key|The key is made": "Create key / Key created",
    r"Hand this over": "Send this securely",
    # Submissions, import, explain
    r"What has to be mended": "Changes requested",
    r"\bRead are\b": "Accepts `mcp.json` from Claude…",
    r"\bLook (?:at it|into a document)\b": "Preview / Preview an OpenAPI document",
    r"(?<=[>\"'])Wrong(?=[<\"'])": "Cannot import",
    r"Lets in\b|Does not let in|\bKeeps out\b|No objection": (
        "Allows / No effect / Blocks / Not applicable"
    ),
    # Groups, teams, settings, audit
    r"Whoever is granted": "Anyone with this group can use these servers.",
    r"It is gone at once": "This takes effect immediately",
    r"Say who is in it": "Writers added. Add people and servers",
    r"counts from the next request on": "Changes apply immediately",
    r"From where on the portal tells": "Minimum log level",
    r"Verify the chain": "Verify integrity",
    r"came to no end": "worker cycle failed",
    # Docstrings
    r"used up herewith|whoever comes second": "Consume the flow; return None if already used",
    r"nobody comes back from": "Revocation job; has no callback",
    r"\bthrice\b": "loading full objects is 3 times slower",
    r"[Ss]hake hands|take leave": "Initialize, run `work`, close",
    r"As which client": "The portal's OAuth client registrations",
    r"stands before a server": "Authorization-server discovery",
    r"so that nobody holds it globally": (
        "Process-wide dependencies, carried by the database session"
    ),
    # Words of this project
    r"\b[Hh]ouse\b": "architecture",
    r"\b[Ff]loors?\b": "layer",
    r"(?<!Meetings, )\b[Rr]ooms?\b": "package",
    r"\b[Dd]oors?\b": "interface",
    r"\b[Mm]end(?:ed|s|ing)?\b": "fix",
    # Riddles and archaic phrases
    r"\b[Ww]hoever\b": "anyone who, or the role: the operator, an Admin",
    r"\b[Tt]hose who\b": "users who, or the role",
    r"\bherewith\b": "with this",
    r"\berrands?\b": "job, task",
    r"\b(?:is|are|was|were) gone\b": "deleted, removed, unavailable",
    r"\b[Ll]ets? (?:\w+ )?in\b(?! [a-z]+ing\b)": "allows",
    r"\bon (?:the )?record\b": "in the audit log",
    r"\b[Ll]ook(?:s|ed|ing)? into\b": "preview",
    r"\banew\b": "again",
    r"\bfor ever\b": "forever, without a limit",
    r"\b[Ss]en[dt] along\b": "send",
    r"(?<!\.)\b(?:un)?[Tt]ick(?:ed|s|ing)?\b": "select, clear",
    r"\b(?:one['’]s own|oneself)\b": "your own; the user's own",
    r"(?<![|\"'])\b(?:[Ss]ome|[Aa]ny|[Ee]very)body\b(?![|\"'])": "someone, anyone, everyone",
}
"""The wording as a regular expression, and what to say instead."""

SPELLING = {
    r"\b[Ee]-mails?\b": "email",
    r"(?<![\"'])\b[Cc]atalogues?\b(?!\.yaml| (?:ex|im)ported)": "catalog",
    r"\b[Oo]rganis": "organiz",
    r"\b[Cc]olours?\b": "color",
    r"\b[Bb]ehaviours?\b": "behavior",
    r"\b[Ll]icences?\b": "license",
    r"\b[Aa]uthoris": "authoriz",
    r"\b[Rr]ecognis": "recogniz",
    r"(?<!notifications/)(?!(?<=\")cancelled\")\b[Cc]ancell(?:ed|ing)\b": "cancel",
}
"""British spellings, and the American ones."""

_IN_CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)


def text_of(path: Path) -> str:
    """Return the text of a file, with runs of white space as one space.

    Of Python it is strings and comments, each in quotes. Of Markdown it is the text outside code.
    """
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        source = "\n".join(f'"{text}"' for text in (*_strings(source), *_comments(source)))
    if path.suffix == ".md":
        source = _IN_CODE.sub("", source)
    return re.sub(r"\s+", " ", source)


def odd_in(text: str) -> dict[str, str]:
    """Return each odd wording or spelling in a text, with its context, and the better one."""
    return {
        text[max(0, hit.start() - 30) : hit.end() + 30]: better
        for odd, better in (ODD | SPELLING).items()
        for hit in re.finditer(odd, text)
    }


def _strings(source: str) -> list[str]:
    """Return the strings of Python source, with `{}` for the values in an f-string."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


def _comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]
