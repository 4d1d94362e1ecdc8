"""What Admins decide about submissions, over the API."""

from collections.abc import Callable

from tests.conftest import Client

ROOT = "/v1/mcp/server"


def decided(
    client: Callable[[str | None], Client], server_id: str, verb: str, notes: str | None = None
) -> None:
    """Ada decides about a submission."""
    assert (
        client("ada").put(f"{ROOT}/{server_id}/{verb}", {"review_notes": notes}).status_code == 200
    )
