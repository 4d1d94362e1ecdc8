"""Managed settings by which an organization's AI clients keep to its catalog.

The shapes are those of each client's own documentation (November 2026): Claude Code's managed
settings and `managed-mcp.json`, VS Code's enterprise policies. Servers appear with their address at
the gateway, never with an upstream's, and keys only as the name of an environment variable.
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
_NEW_YEAR = (
    2026,
    1,
    1,
    0,
    0,
    0,
)  # in an archive a file has a time; a fixed one makes equal packs equal


@dataclass(frozen=True)
class PackFile:
    """One file: its path in the archive, what it does, its text, and where it goes by operating
    system."""

    path: str
    title: str
    about: str
    text: str
    places: tuple[tuple[str, str], ...]


def claude_files(servers: Mapping[str, str], rejected: Sequence[str]) -> tuple[PackFile, ...]:
    """Claude Code's files for `servers` (address at the gateway by name) and the names of those
    that were rejected."""
    # Entries are matched by address alone: a name is what a user types, and would let any address
    # in.
    policy = {
        "allowManagedMcpServersOnly": True,
        "allowedMcpServers": [{"serverUrl": url} for url in servers.values()],
        # An entry of a shape that Claude Code does not know makes it drop the list, so other names
        # are left out.
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
            "Claude Code: what may be used",
            "People add servers themselves, and Claude Code refuses every one whose address is not in this list, "
            "commands included.",
            _json(policy),
            _claude_places("managed-settings.json"),
        ),
        PackFile(
            "claude-code/managed-mcp.json",
            "Claude Code: a fixed set",
            "Optional. With this file everybody has just these servers and can add none. Each person’s API key is "
            f"read from {KEY_VARIABLE} of their environment.",
            _json({"mcpServers": named}),
            _claude_places("managed-mcp.json"),
        ),
    )


def vs_code_files(registry_url: str) -> tuple[PackFile, ...]:
    """VS Code's files for the registry at `registry_url`, to which it adds `/v0.1/servers`
    itself."""
    values = {"ChatMCP": "registry", "McpGalleryServiceUrl": registry_url}
    keys = "".join(f'"{name}"="{value}"\r\n' for name, value in values.items())
    settings = {"chat.mcp.access": "registry", "chat.mcp.gallery.serviceUrl": registry_url}
    return (
        PackFile(
            "vscode/policy.json",
            "VS Code: policy",
            "Only servers installed from the portal’s registry run. Windows and macOS take the same two names and "
            "values by their own ways.",
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
            "The same for the registry of Windows.",
            "Windows Registry Editor Version 5.00\r\n\r\n"
            f"[HKEY_LOCAL_MACHINE\\SOFTWARE\\Policies\\Microsoft\\VSCode]\r\n{keys}",
            (("Windows", "Import it as an administrator: reg import policy.reg"),),
        ),
        PackFile(
            "vscode/settings.json",
            "VS Code: settings",
            "To try it out on one machine. A person can take settings back; a policy they cannot.",
            _json(settings),
            (("Everywhere", "Preferences: Open User Settings (JSON)"),),
        ),
    )


def zipped(files: Iterable[PackFile]) -> bytes:
    """The files as a ZIP archive, with a README that says where each one goes; equal files make
    equal archives."""
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
    parts = ["Managed settings made by MCP Portal from its catalog. They hold no secrets."]
    for file in files:
        places = "\n".join(f"  {system}: {place}" for system, place in file.places)
        parts.append(f"{file.path}\n  {file.about}\n{places}")
    return "\n\n".join(parts) + "\n"


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
