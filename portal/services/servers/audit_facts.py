"""The facts of a server that the audit log compares, with secrets as `Hidden`."""

from sqlalchemy.orm import Session

from portal.services.audit.hash_chain import Hidden
from portal.services.servers import queries
from portal.store.models import Server

# An allow-list: columns that are not here, such as the health status, are not audited.
_PLAIN = (
    "server_name",
    "alias",
    "description",
    "instructions",
    "transport",
    "auth_type",
    "command",
    "oauth2_flow",
    "mcp_info",
    "allowed_tools",
    "tool_name_to_display_name",
    "tool_name_to_description",
    "extra_headers",
    "token_validation",
    "allow_all_keys",
    "available_on_public_internet",
    "delegate_auth_to_upstream",
    "oauth_passthrough",
    "is_byok",
    "byok_description",
    "byok_api_key_help_url",
    "source_url",
    "timeout",
    "is_public",
    "approval_status",
    "submitted_by",
    "review_notes",
)


def audit_facts_of(session: Session, row: Server) -> dict[str, object]:
    """Return the facts of a server by name, such as `static_headers.X-Key` or `url.origin`."""
    facts: dict[str, object] = {name: getattr(row, name) for name in _PLAIN}
    facts = {
        name: list(value) if isinstance(value, list) else value for name, value in facts.items()
    }
    for secret in row.secrets:
        name = f"{secret.field}.{secret.name}" if secret.name else secret.field
        facts[name] = Hidden(secret.sealed)
        if secret.hint:
            facts[f"{name}.origin"] = secret.hint
    for variable in row.variables:
        facts[f"env_vars.{variable.name}"] = {
            "scope": variable.scope,
            "description": variable.description,
        }
        if variable.sealed is not None:
            facts[f"env_vars.{variable.name}.value"] = Hidden(variable.sealed)
    facts["mcp_access_groups"] = [
        group.name for group in queries.groups_of(session, [row])[row.server_id]
    ]
    return facts
