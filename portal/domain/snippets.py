"""Client configurations for a server: commands, files and one-click links.

The formats follow each client's documentation (November 2026). Each client can sign in with OAuth
or send an API key. No configuration contains a key: commands read it from the environment, editors
ask for it.
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
    """The configuration of a client: instructions, text to copy, a check, and a one-click link."""

    client: str
    title: str
    how: str
    text: str
    check: str
    link: str = ""
    link_text: str = ""


def endpoint(gateway: str, prefix: str) -> str:
    """Return the gateway URL of the server published as `prefix`."""
    return f"{gateway.rstrip('/')}/{quote(prefix, safe='')}/mcp"


def sign_in_snippets(name: str, url: str) -> tuple[Snippet, ...]:
    """Return the configuration of each client that signs in with OAuth, for the MCP endpoint `url`
    under `name`."""
    bridge = {"command": "npx", "args": ["-y", "mcp-remote", url]}
    remote = {"url": url}
    return (
        Snippet(
            "claude-code",
            "Claude Code",
            "Run this command in a terminal.",
            f"claude mcp add --transport http {shlex.quote(name)} {shlex.quote(url)}",
            "Type /mcp in Claude Code, select the server, and choose Authenticate.",
        ),
        Snippet(
            "claude-desktop",
            "Claude Desktop",
            "Add this to claude_desktop_config.json (Settings, Developer, Edit Config). It requires"
            " Node.js: the file supports only local commands, so a bridge connects to the URL.",
            _json({"mcpServers": {name: bridge}}),
            "Restart Claude Desktop. It opens the portal in your browser.",
        ),
        Snippet(
            "cursor",
            "Cursor",
            "Add this to ~/.cursor/mcp.json.",
            _json({"mcpServers": {name: remote}}),
            "Settings, Tools & MCP shows the server. Choose Connect there.",
            _cursor_link(name, remote),
            "Install in Cursor",
        ),
        Snippet(
            "vs-code",
            "VS Code",
            "Add this to .vscode/mcp.json.",
            _json({"servers": {name: {"type": "http", "url": url}}}),
            "Start the server with the command MCP: List Servers.",
            _vs_code_link({"name": name, "type": "http", "url": url}),
            "Install in VS Code",
        ),
    )


def key_snippets(name: str, url: str) -> tuple[Snippet, ...]:
    """Return the configuration of each client that sends an API key, for the MCP endpoint `url`
    under `name`."""
    return (
        _claude_code(name, url),
        _claude_desktop(name, url),
        _cursor(name, url),
        _vs_code(name, url),
        _curl(url),
    )


def _cursor_link(name: str, server: Mapping[str, Any]) -> str:
    config = base64.b64encode(json.dumps(server, separators=(",", ":")).encode()).decode()
    query = f"name={quote(name, safe='')}&config={quote(config, safe='')}"
    return f"cursor://anysphere.cursor-deeplink/mcp/install?{query}"


def _vs_code_link(server: Mapping[str, Any]) -> str:
    return f"vscode:mcp/install?{quote(json.dumps(server, separators=(',', ':')), safe='')}"


def _claude_code(name: str, url: str) -> Snippet:
    header = f'"Authorization: Bearer ${{{KEY_VARIABLE}}}"'
    return Snippet(
        "claude-code-key",
        "Claude Code",
        f"Set {KEY_VARIABLE} to your API key, then run this command in a terminal.",
        f"claude mcp add --transport http {shlex.quote(name)} {shlex.quote(url)} --header {header}",
        "Type /mcp in Claude Code. The list shows the server as connected.",
    )


def _claude_desktop(name: str, url: str) -> Snippet:
    arguments = ["-y", "mcp-remote", url, "--header", "Authorization:${AUTH_HEADER}"]
    server = {"command": "npx", "args": arguments, "env": {"AUTH_HEADER": "Bearer YOUR-API-KEY"}}
    return Snippet(
        "claude-desktop-key",
        "Claude Desktop",
        "The configuration file supports only local commands, so a bridge connects to the URL. It"
        " requires Node.js. Add this to claude_desktop_config.json (Settings, Developer, Edit"
        " Config), and replace YOUR-API-KEY by your key.",
        _json({"mcpServers": {name: server}}),
        "Restart Claude Desktop. The plus sign of the message box shows the server’s tools.",
    )


def _cursor(name: str, url: str) -> Snippet:
    server = {"url": url, "headers": {"Authorization": f"Bearer ${{env:{KEY_VARIABLE}}}"}}
    return Snippet(
        "cursor-key",
        "Cursor",
        f"Set {KEY_VARIABLE} to your API key in Cursor’s environment, and add this to"
        " ~/.cursor/mcp.json.",
        _json({"mcpServers": {name: server}}),
        "Settings, Tools & MCP shows the server with a green dot.",
        _cursor_link(name, server),
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
    return Snippet(
        "vs-code-key",
        "VS Code",
        "Add this to .vscode/mcp.json. VS Code asks for your API key once and stores it securely.",
        _json({"inputs": [asks], "servers": {name: server}}),
        "The command MCP: List Servers shows the server as running.",
        _vs_code_link({"name": name, **server, "inputs": [asks]}),
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
        f"Set {KEY_VARIABLE} to your API key. This command only initializes a session.",
        " \\\n  ".join(lines),
        "The response contains a result with serverInfo.",
    )


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
