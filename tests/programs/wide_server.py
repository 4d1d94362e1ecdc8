"""An MCP server over stdio that shows what may be lost on the way, without a library.

    python wide_server.py [legacy|modern] [NAME=VALUE ...]

It has tools with awkward names and definitions, a prompt, a resource and completion. Each NAME is
a further tool, whose definition is the JSON in VALUE. The tool `hang` writes `hanging` into its
home folder and never responds.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

IS_MODERN = "legacy" not in sys.argv
SCHEMA = {"type": "object"}
TOOLS: list[Any] = [
    {"name": "wide-x", "description": "d", "inputSchema": SCHEMA, "x-own": {"kept": None}},
    {"name": "x", "description": "d", "inputSchema": SCHEMA},
    {"name": "show", "inputSchema": {"properties": {"big": {"type": "integer"}}}},
    {"name": "no_schema"},
    {"name": "odd_schema", "inputSchema": ["no", "object"]},
    {"inputSchema": SCHEMA},
    "no tool",
    {"name": "fails", "inputSchema": SCHEMA},
    {"name": "errs", "inputSchema": SCHEMA},
    {"name": "asks", "inputSchema": SCHEMA},
    {"name": "dies", "inputSchema": SCHEMA},
    {"name": "hang", "inputSchema": SCHEMA},
]
CAPABILITIES = {
    "tools": {"listChanged": True},
    "prompts": {},
    "resources": {"subscribe": True},
    "completions": {},
    "logging": {},
}
INFO = {"name": "wide", "version": "7"}
GREETING = {
    "messages": [{"role": "user", "content": {"type": "text", "text": "Hello"}}],
    "description": "Greets",
}


class Fault(Exception):
    """A JSON-RPC error: code, message, data."""


def call(params: dict[str, Any]) -> dict[str, Any]:
    name = params["name"]
    if name == "hang":
        Path.home().joinpath("hanging").write_text(str(os.getpid()), encoding="utf-8")
        time.sleep(600)
    if name == "dies":
        sys.exit(3)
    if name == "errs":
        raise Fault(-32055, "own words", {"own": [1, None]})
    if name == "asks":
        return {"resultType": "input_required", "inputRequests": {}, "requestState": "s"}
    return {
        "content": [{"type": "hologram", "rays": 7}, {"type": "text", "text": name}],
        "structuredContent": {"params": params, "big": 9007199254740993, "none": None},
        "isError": name == "fails",
        "_meta": {"vendor/x": {"kept": None}},
        "vendorKey": [1.5],
    }


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    if method == "initialize" and not IS_MODERN:
        version = {"protocolVersion": "2025-11-25", "serverInfo": INFO}
        return {**version, "capabilities": CAPABILITIES, "instructions": "Be kind."}
    if method == "server/discover" and IS_MODERN:
        meta = {"_meta": {"io.modelcontextprotocol/serverInfo": INFO}}
        told = {"supportedVersions": ["2026-07-28"], "instructions": "Be kind."}
        return {**meta, **told, "capabilities": CAPABILITIES}
    results: dict[str, dict[str, Any]] = {
        "tools/list": {"tools": TOOLS},
        "prompts/list": {"prompts": [{"name": "greet", "x-own": 1}], "nextCursor": "more"},
        "prompts/get": {**GREETING, "asked": params},
        "resources/list": {"resources": [{"uri": "wide://one", "name": "one"}]},
        "resources/templates/list": {"resourceTemplates": []},
        "completion/complete": {"completion": {"values": ["a", "b"]}, "asked": params},
    }
    if method == "resources/read":
        if params["uri"] != "wide://one":
            raise Fault(-32002, "Resource not found", {"uri": params["uri"]})
        return {"contents": [{"uri": "wide://one", "text": "1"}]}
    if method == "tools/call":
        return call(params)
    if method not in results:
        raise Fault(-32601, "Method not found", None)
    return results[method]


def main() -> None:
    for argument in sys.argv[1:]:
        name, is_tool, text = argument.partition("=")
        if is_tool:
            TOOLS.append({"name": name, **json.loads(text)})
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        try:
            result = answer(message["method"], message.get("params") or {})
            if IS_MODERN:
                hints = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
                result = {**hints, **result}
            told: dict[str, Any] = {"result": result}
        except Fault as fault:
            code, text, data = fault.args
            told = {"error": {"code": code, "message": text, "data": data}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"]} | told) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
