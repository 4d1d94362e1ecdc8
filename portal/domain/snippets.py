"""What people paste into their AI clients to reach a server: commands, files and one-click links.

The forms are those of each client's own documentation (November 2026). No key is ever in one of
them: a command reads it from the environment, an editor asks for it.
"""

import base64
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

KEY_VARIABLE = "PORTAL_KEY"
_PROTOCOL = "2025-11-25"


@dataclass(frozen=True)
class Snippet:
    """One client: its name, what to do, the text to copy and where it goes, and a link that does it
    in one click."""

    client: str
    title: str
    how: str
    text: str
    check: str
    link: str = ""
    link_text: str = ""


def endpoint(gateway: str, prefix: str) -> str:
    """Where a gateway serves the server that is published as `prefix`."""
    return f"{gateway.rstrip('/')}/{quote(prefix, safe='')}/mcp"


def snippets(name: str, url: str) -> tuple[Snippet, ...]:
    """How each client connects to the MCP endpoint `url` under `name`."""
    return (
        _claude_code(name, url),
        _claude_desktop(name, url),
        _cursor(name, url),
        _vs_code(name, url),
        _curl(url),
    )


def _claude_code(name: str, url: str) -> Snippet:
    header = f'"Authorization: Bearer ${{{KEY_VARIABLE}}}"'
    return Snippet(
        "claude-code",
        "Claude Code",
        f"Put your API key into {KEY_VARIABLE}, then run this in a terminal.",
        f"claude mcp add --transport http {shlex.quote(name)} {shlex.quote(url)} --header {header}",
        "Type /mcp in Claude Code: the server is in the list, connected.",
    )


def _claude_desktop(name: str, url: str) -> Snippet:
    arguments = ["-y", "mcp-remote", url, "--header", "Authorization:${AUTH_HEADER}"]
    server = {"command": "npx", "args": arguments, "env": {"AUTH_HEADER": "Bearer YOUR-API-KEY"}}
    return Snippet(
        "claude-desktop",
        "Claude Desktop",
        "Its file takes local commands only, so a small bridge (Node.js is needed) speaks to the"
        " address. Add this to claude_desktop_config.json (Settings, Developer, Edit Config), with"
        " your key in the place of YOUR-API-KEY.",
        _json({"mcpServers": {name: server}}),
        "Restart Claude Desktop: the server’s tools are under the plus sign of the message box.",
    )


def _cursor(name: str, url: str) -> Snippet:
    server = {"url": url, "headers": {"Authorization": f"Bearer ${{env:{KEY_VARIABLE}}}"}}
    config = base64.b64encode(json.dumps(server, separators=(",", ":")).encode()).decode()
    link = f"cursor://anysphere.cursor-deeplink/mcp/install?name={quote(name, safe='')}&config={quote(config, safe='')}"
    return Snippet(
        "cursor",
        "Cursor",
        f"Put your API key into {KEY_VARIABLE} of the environment that Cursor starts in, and add"
        " this to ~/.cursor/mcp.json.",
        _json({"mcpServers": {name: server}}),
        "Settings, Tools & MCP shows the server with a green dot.",
        link,
        "Install in Cursor",
    )


def _vs_code(name: str, url: str) -> Snippet:
    asks = {
        "type": "promptString",
        "id": "portal-key",
        "description": "API key of the portal",
        "password": True,
    }
    server = {
        "type": "http",
        "url": url,
        "headers": {"Authorization": "Bearer ${input:portal-key}"},
    }
    install = json.dumps({"name": name, **server, "inputs": [asks]}, separators=(",", ":"))
    return Snippet(
        "vs-code",
        "VS Code",
        "Add this to .vscode/mcp.json. VS Code asks for your API key once and keeps it safe.",
        _json({"inputs": [asks], "servers": {name: server}}),
        "The command MCP: List Servers shows it running.",
        f"vscode:mcp/install?{quote(install, safe='')}",
        "Install in VS Code",
    )


def _curl(url: str) -> Snippet:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": _PROTOCOL,
            "capabilities": {},
            "clientInfo": {"name": "curl", "version": "1"},
        },
    }
    lines = [
        f"curl -sS {shlex.quote(url)}",
        f'-H "Authorization: Bearer ${{{KEY_VARIABLE}}}"',
        "-H 'Content-Type: application/json'",
        "-H 'Accept: application/json, text/event-stream'",
        f"-d {shlex.quote(json.dumps(body, separators=(',', ':')))}",
    ]
    return Snippet(
        "curl",
        "curl",
        f"With your API key in {KEY_VARIABLE}, this shakes hands and changes nothing.",
        " \\\n  ".join(lines),
        "The answer has a result with serverInfo.",
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
