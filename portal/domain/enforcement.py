"""Managed settings that restrict an organization's AI clients to its catalog.

The formats follow each client's documentation (November 2026): Claude Code's managed settings and
`managed-mcp.json`, and VS Code's enterprise policies. Servers appear with their gateway URL, never
with the upstream's, and keys only as the name of an environment variable.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portal.domain.snippets import KEY_VARIABLE

_CLAUDE_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
# A fixed file time makes archives of equal files equal.
_NEW_YEAR = (2026, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class PackFile:
    """A settings file: its path in the archive, purpose, text, and location by operating system."""

    path: str
    title: str
    about: str
    text: str
    places: tuple[tuple[str, str], ...]


def claude_files(servers: Mapping[str, str], rejected: Sequence[str]) -> tuple[PackFile, ...]:
    """Return Claude Code's files for `servers` (gateway URL by name) and rejected server names."""
    # Entries match by URL only. Users choose the name, so a match by name would allow any URL.
    policy = {
        "allowManagedMcpServersOnly": True,
        "allowedMcpServers": [{"serverUrl": url} for url in servers.values()],
        # Claude Code ignores the list if one entry is invalid, so other names are omitted.
        "deniedMcpServers": [
            {"serverName": name} for name in rejected if _CLAUDE_NAME.fullmatch(name)
        ],
    }
    header = {"Authorization": f"Bearer ${{{KEY_VARIABLE}}}"}
    named: dict[str, Any] = {}
    for name, url in servers.items():
        named[_free(re.sub(r"[^A-Za-z0-9_-]", "-", name), named)] = {
            "type": "http",
            "url": url,
            "headers": header,
        }
    return (
        PackFile(
            "claude-code/managed-settings.json",
            "Claude Code: allowed servers",
            "Users add servers themselves. Claude Code blocks all servers, including commands,"
            " whose URL is not in this list.",
            _json(policy),
            _claude_places("managed-settings.json"),
        ),
        PackFile(
            "claude-code/managed-mcp.json",
            "Claude Code: a fixed set",
            "Optional. With this file, all users have exactly these servers and cannot add others."
            f" Each user’s API key is read from the environment variable {KEY_VARIABLE}.",
            _json({"mcpServers": named}),
            _claude_places("managed-mcp.json"),
        ),
    )


def vs_code_files(registry_url: str) -> tuple[PackFile, ...]:
    """Return VS Code's files for the registry at `registry_url`.

    VS Code itself appends `/v0.1/servers` to the URL.
    """
    values = {"ChatMCP": "registry", "McpGalleryServiceUrl": registry_url}
    keys = "".join(f'"{name}"="{value}"\r\n' for name, value in values.items())
    settings = {"chat.mcp.access": "registry", "chat.mcp.gallery.serviceUrl": registry_url}
    return (
        PackFile(
            "vscode/policy.json",
            "VS Code: policy",
            "Only servers installed from the portal’s registry run. On Windows and macOS, set the"
            " same two names and values with the tools of the system.",
            _json(values),
            (
                ("Linux", "/etc/vscode/policy.json (VS Code 1.106 or newer)"),
                ("macOS", "A configuration profile for com.microsoft.VSCode with these two keys"),
                ("Windows", "Group Policy, or the file vscode/policy.reg"),
            ),
        ),
        PackFile(
            "vscode/policy.reg",
            "VS Code: policy on Windows",
            "The same policy for the Windows registry.",
            "Windows Registry Editor Version 5.00\r\n\r\n"
            f"[HKEY_LOCAL_MACHINE\\SOFTWARE\\Policies\\Microsoft\\VSCode]\r\n{keys}",
            (("Windows", "Import it as an administrator: reg import policy.reg"),),
        ),
        PackFile(
            "vscode/settings.json",
            "VS Code: settings",
            "To test on one machine. Users can change settings, but not a policy.",
            _json(settings),
            (("Everywhere", "Preferences: Open User Settings (JSON)"),),
        ),
    )


def zipped(files: Iterable[PackFile]) -> bytes:
    """Return the files as a ZIP archive with a README. Equal files give equal archives."""
    files = tuple(files)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        for path, text in (
            ("README.txt", _readme(files)),
            *((file.path, file.text) for file in files),
        ):
            target.writestr(zipfile.ZipInfo(path, _NEW_YEAR), text)
    return archive.getvalue()


def _claude_places(name: str) -> tuple[tuple[str, str], ...]:
    return (
        ("macOS", f"/Library/Application Support/ClaudeCode/{name}"),
        ("Linux, WSL", f"/etc/claude-code/{name}"),
        ("Windows", f"C:\\Program Files\\ClaudeCode\\{name}"),
    )


def _free(name: str, taken: Mapping[str, object]) -> str:
    candidate = name
    number = 2
    while candidate in taken:
        candidate = f"{name}-{number}"
        number = number + 1
    return candidate


def _readme(files: Iterable[PackFile]) -> str:
    parts = ["Managed settings created by MCP Portal from its catalog. They contain no secrets."]
    for file in files:
        places = "\n".join(f"  {system}: {place}" for system, place in file.places)
        parts.append(f"{file.path}\n  {file.about}\n{places}")
    return "\n\n".join(parts) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
