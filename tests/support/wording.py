"""Wordings that texts for people do not use: a regular expression for each, and what to say
instead.

They are examples of a kind. Say what happened and what to do, in the words of the field: no
riddles, no personification, no phrases that only make sense in another language.
"""

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
    r"\b[Rr]ooms?\b": "package",
    r"\b[Dd]oors?\b": "interface",
    r"\b[Mm]end(?:ed|s|ing)?\b": "fix",
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
    r"\b[Cc]ancell(?:ed|ing)\b": "cancel",
}
"""British spellings, and the American ones."""
