"""A real service with an OpenAPI document: a small pet store that keeps what it was sent, run in a
thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

PETS = {"7": {"id": "7", "name": "Rex"}, "a/b": {"id": "a/b", "name": "Slash"}}


def document(**more: Any) -> dict[str, Any]:
    """The document of the service; `more` replaces its top-level fields."""
    pet = {"$ref": "#/components/schemas/Pet"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Pet store", "version": "1.4"},
        "servers": [{"url": "/api/{version}", "variables": {"version": {"default": "v1"}}}],
        "paths": {
            "/pets": {
                "get": {
                    "operationId": "list pets!",
                    "summary": "List pets",
                    "parameters": [
                        {
                            "name": "tag",
                            "in": "query",
                            "schema": {"type": "array", "items": {"type": "string"}},
                        },
                        {"name": "X-Trace", "in": "header", "schema": {"type": "string"}},
                        {"name": "Authorization", "in": "header", "schema": {"type": "string"}},
                        {"name": "seen", "in": "cookie", "schema": {"type": "boolean"}},
                    ],
                },
                "post": {
                    "operationId": "addPet",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": pet}},
                    },
                },
            },
            "/pets/{id}": {
                "parameters": [{"$ref": "#/components/parameters/id"}],
                "get": {"operationId": "getPet", "description": "One pet."},
                "delete": {},
            },
        },
        "components": {
            "parameters": {
                "id": {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
            },
            "schemas": {
                "Pet": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"type": "string"},
                        "parent": {"$ref": "#/components/schemas/Pet"},
                    },
                }
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        **more,
    }


@dataclass
class Service:
    """The running service: where it is, what it serves as its document, and what it was sent."""

    origin: str = ""
    text: bytes = b""
    locked: bool = False
    seen: list[Request] = field(default_factory=list)

    @property
    def spec_url(self) -> str:
        return f"{self.origin}/openapi.json"

    def serve(self, described: Any) -> None:
        """Serve another document from now on."""
        self.text = described if isinstance(described, bytes) else json.dumps(described).encode()

    def calls(self) -> list[Request]:
        """The requests other than for the document."""
        return [request for request in self.seen if request.path != "/openapi.json"]

    def answer(self, request: Request) -> Response:
        request.get_data()
        self.seen.append(request)
        if request.path == "/openapi.json":
            if self.locked and "Authorization" not in request.headers:
                return Response("who is asking?", 401, {"WWW-Authenticate": "Bearer"})
            return Response(self.text, mimetype="application/json")
        if request.path == "/api/v1/pets":
            if request.method == "POST":
                return _json({"added": request.get_json()}, 201)
            sent = {name.lower(): value for name, value in request.headers.items()}
            return _json(
                {
                    "pets": list(PETS.values()),
                    "tags": request.args.getlist("tag"),
                    "headers": sent,
                    "cookies": dict(request.cookies),
                }
            )
        pet = PETS.get(str(request.path).removeprefix("/api/v1/pets/"))
        if pet is None:
            return _json(
                {"error": f"no such pet, {request.headers.get('Authorization', 'stranger')}"}, 404
            )
        return Response("", 204) if request.method == "DELETE" else _json(pet)


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status, mimetype="application/json")


@contextmanager
def pet_store(described: Any = None) -> Iterator[Service]:
    """Run the service on a free port of loopback."""
    service = Service()
    server = make_server("127.0.0.1", 0, Request.application(service.answer), threaded=True)
    service.origin = f"http://127.0.0.1:{server.server_port}"
    service.serve(described if described is not None else document())
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
