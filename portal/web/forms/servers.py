"""The server form, and the server definition made from its input."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from wtforms import (
    BooleanField,
    FieldList,
    Form,
    FormField,
    HiddenField,
    PasswordField,
    RadioField,
    SelectField,
    SelectMultipleField,
    StringField,
    TextAreaField,
    URLField,
)
from wtforms.fields import FloatField
from wtforms.validators import InputRequired, Length, NumberRange, Optional, ValidationError

from portal.domain.servers import KEPT, AuthType, OAuthGrantType, ServerFields, Transport
from portal.domain.variables import Scope
from portal.web.forms import logos
from portal.web.forms.base import PortalForm, lines, stripped
from portal.web.forms.typed import secret_mode, typed_form, unknown_modes

ENDPOINTS = ("authorization_url", "token_url", "registration_url")
OAUTH_TYPES = (AuthType.OAUTH2, AuthType.OAUTH2_TOKEN_EXCHANGE)
_MOST = 8_192
NOTHING: Mapping[str, Any] = MappingProxyType({})
_KEEPS: Mapping[str, bool] = MappingProxyType({"keep": True, "forget": False})
_NO_CHOICE = "Not a valid choice. Choose again."
_LINE = {"filters": [stripped], "validators": [Length(max=4_096)]}


class VariableRow(Form):
    """A declared variable. Its value is write-only."""

    name = StringField("Name", [Length(max=128)], filters=[stripped])
    scope = RadioField(
        "Who sets it",
        choices=[("global", ""), ("user", "")],
        default="global",
        validate_choice=False,
    )
    description = StringField("Description", [Length(max=1_000)], filters=[stripped])
    value = PasswordField("Value", [Length(max=_MOST)])
    delete = BooleanField()

    def validate_scope(self, field: RadioField) -> None:
        """Accept only the two scopes or no value."""
        if field.data not in ("global", "user", "", None):
            raise ValidationError(_NO_CHOICE)


class ValueRow(Form):
    """A header or an environment variable. Its value is write-only."""

    name = StringField("Name", [Length(max=128)], filters=[stripped])
    value = PasswordField("Value", [Length(max=_MOST)])
    delete = BooleanField()


class ServerForm(PortalForm):
    """All server fields that an Admin can set."""

    version = HiddenField()
    keep_credentials = RadioField(
        "Stored credentials",
        choices=[
            ("", "Enter new values"),
            ("keep", "Send them to the new host"),
            ("forget", "Delete them"),
        ],
        default="",
        validate_choice=False,
    )
    server_name = StringField(
        "Name", [InputRequired("Enter a name for the server."), Length(max=200)], filters=[stripped]
    )
    alias = StringField("Alias", [Length(max=200)], filters=[stripped])
    description = TextAreaField("Description", [Length(max=4_000)], filters=[stripped])
    instructions = TextAreaField("Instructions", [Length(max=8_000)], filters=[stripped])
    source_url = URLField("Source code", **_LINE)
    logo = RadioField("Logo", choices=list(logos.CHOICES), default=logos.LETTERS)
    transport = RadioField("Transport", choices=[], default="http")
    url = URLField("Address", **_LINE)
    spec_path = StringField("OpenAPI document", **_LINE)
    base_url = URLField("Base URL", **_LINE)
    command = StringField("Command", **_LINE)
    args = TextAreaField("Arguments", [Length(max=20_000)])
    env = FieldList(FormField(ValueRow), max_entries=100)
    timeout = FloatField(
        "Timeout", [Optional(), NumberRange(1, 600, "Enter a number from 1 to 600.")]
    )
    auth_type = SelectField(
        "Authentication", choices=[(a.value, a.label) for a in AuthType], default="none"
    )
    is_byok = BooleanField("Each user brings their own key")
    auth_value = PasswordField("Secret value", [Length(max=_MOST)])
    byok_description = TextAreaField("Key description", [Length(max=4_000)])
    byok_api_key_help_url = URLField("Where to get a key", **_LINE)
    oauth2_flow = SelectField(
        "Flow",
        choices=[
            ("", "Select a flow"),
            ("authorization_code", "Each user signs in (authorization code)"),
            ("client_credentials", "One shared service account (client credentials)"),
        ],
    )
    client_id = StringField("Client ID", **_LINE)
    client_secret = PasswordField("Client secret", [Length(max=_MOST)])
    scopes = StringField("Scopes", [Length(max=4_000)])
    authorization_url = URLField("Authorization URL", **_LINE)
    token_url = URLField("Token URL", **_LINE)
    registration_url = URLField("Registration URL", **_LINE)
    token_validation = TextAreaField(
        "Token validation rules", [Length(max=20_000)], filters=[stripped]
    )
    token_exchange_endpoint = URLField("Token exchange endpoint", **_LINE)
    audience = StringField("Audience", **_LINE)
    subject_token_type = StringField("Subject token type", **_LINE)
    aws_region_name = StringField("AWS region", **_LINE)
    aws_service_name = StringField("AWS service", **_LINE)
    aws_access_key_id = PasswordField("AWS access key ID", [Length(max=_MOST)])
    aws_secret_access_key = PasswordField("AWS secret access key", [Length(max=_MOST)])
    aws_session_token = PasswordField("AWS session token", [Length(max=_MOST)])
    aws_role_name = StringField("AWS role", **_LINE)
    aws_session_name = StringField("AWS session name", **_LINE)
    variables = FieldList(FormField(VariableRow), max_entries=100)
    headers = FieldList(FormField(ValueRow), max_entries=100)
    extra_headers = TextAreaField("Forwarded request headers", [Length(max=8_000)])
    access_groups = SelectMultipleField("Access groups", choices=[], validate_choice=False)
    new_access_group = StringField("New access group", [Length(max=200)], filters=[stripped])
    allow_all_keys = BooleanField("Open to everyone")
    available_on_public_internet = BooleanField("Available from any network", default=True)
    delegate_auth_to_upstream = BooleanField("Clients sign in directly at the server")
    oauth_passthrough = BooleanField("Forward the client’s own token")

    _SEALED: ClassVar = (
        "spec_path",
        "base_url",
        "args",
        "client_id",
        "scopes",
        "authorization_url",
        "token_url",
        "registration_url",
        "token_exchange_endpoint",
        "audience",
        "subject_token_type",
        "aws_region_name",
        "aws_service_name",
        "aws_role_name",
        "aws_session_name",
    )
    SECRET: ClassVar = (
        *_SEALED,
        "url",
        "auth_value",
        "client_secret",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
    )
    """Fields whose values are never sent back to the page."""
    _FIELD_OF: ClassVar = {
        "static_headers": "headers",
        "env_vars": "variables",
        "mcp_access_groups": "access_groups",
    }

    def validate(self, extra_validators: Any = None) -> bool:
        """Validate the fields, and reject unknown choices for stored secrets."""
        found = super().validate(extra_validators)
        wrong = unknown_modes()
        for name in wrong:
            if name in self:
                self[name].errors = [*self[name].errors, _NO_CHOICE]
            else:
                self.form_errors.append(_NO_CHOICE)
        return found and not wrong

    def validate_keep_credentials(self, field: RadioField) -> None:
        """Reject an unknown choice for stored credentials."""
        if field.data and field.data not in _KEEPS:
            raise ValidationError(f"Choose what to do with the stored credentials. {_NO_CHOICE}")

    def validate_version(self, field: HiddenField) -> None:
        """Reject an invalid version. Without a version, the current one is overwritten."""
        sent = field.data
        if isinstance(sent, str) and sent and not (sent.isascii() and sent.isdigit()):
            raise ValidationError("The server version is not valid. Reload the page.")

    def validate_token_validation(self, field: TextAreaField) -> None:
        """Check that the rules are a JSON object. They are used only with OAuth sign-in."""
        if field.data and self.auth_type.data == AuthType.OAUTH2:
            try:
                rules = json.loads(field.data, parse_constant=_refuse)
            except (ValueError, RecursionError):
                raise ValidationError("Must be valid JSON.") from None
            if not isinstance(rules, dict):
                raise ValidationError(
                    'Must be valid JSON: an object, such as {"iss": "https://…"}.'
                )

    def field_of(self, name: str | None) -> Any:
        """Return the form field for an API field name, which may differ from the form's."""
        if self.transport.data == "openapi":
            name = {"url": "base_url"}.get(name or "", name)
        found = super().field_of(self._FIELD_OF.get(name or "", name))
        # A list of rows shows no messages; they appear at the top of the form.
        return None if isinstance(found, FieldList) else found

    def forget_sealed(self, public: Mapping[str, Any] = NOTHING) -> bool:
        """Clear the fields that are stored encrypted, since their values are not sent back.

        Values that equal those in `public`, by field name, are not secret and stay. Returns whether
        any field was cleared.
        """
        typed = [
            self[name]
            for name in self._SEALED
            if self[name].data and not self.still_has(name, public)
        ]
        for box in typed:
            box.data = None
        return bool(typed)

    def still_has(self, name: str, public: Mapping[str, Any]) -> bool:
        """Return whether a field equals its value in `public`, ignoring line endings."""
        return name in public and lines(self[name].data) == lines(public[name])

    def validate_spec_path(self, box: StringField) -> None:
        """Require an OpenAPI document unless one is stored. An empty field keeps it."""
        if self.transport.data == "openapi" and not box.data and not self._has_document:
            raise ValidationError("Enter the URL of the OpenAPI document.")

    _has_document = False

    def offer(self, *, stdio: bool, groups: list[str], has_document: bool = False) -> None:
        """Set the transports and groups to choose from, and whether a document is stored."""
        self._has_document = has_document
        choices = [("http", "HTTP"), ("sse", "SSE")]
        choices += [("stdio", "Command (stdio)")] if stdio else []
        choices.append(("openapi", "OpenAPI"))
        self.transport.choices = choices
        self.access_groups.choices = [(name, name) for name in groups]

    def fields(self) -> ServerFields:
        """Return the input as a definition, with `KEPT` for secrets to keep.

        It has only the fields that the chosen transport and authentication use.
        """
        remote = self.transport.data != "stdio"
        fields: dict[str, Any] = {
            "server_name": self.server_name.data,
            "alias": self.alias.data or None,
            "description": self.description.data or None,
            "instructions": self.instructions.data or None,
            "source_url": self.source_url.data or None,
            "transport": Transport(
                "http" if self.transport.data == "openapi" else self.transport.data
            ),
            "timeout": self.timeout.data,
            "allow_all_keys": self.allow_all_keys.data,
            "available_on_public_internet": self.available_on_public_internet.data,
            "mcp_access_groups": self._groups(),
        }
        if not fields["alias"]:
            del fields["alias"]
        fields |= self._remote_fields() if remote else self._stdio_fields()
        # Only a submitted version is text. Otherwise the field has the stored integer.
        sent = self.version.data
        if isinstance(sent, str) and sent.isascii() and sent.isdigit() and len(sent) < 10:
            fields["version"] = int(sent)
        if self.keep_credentials.data:
            fields["keep_credentials"] = _KEEPS[self.keep_credentials.data]
        return ServerFields(**fields)  # type: ignore[typeddict-item, no-any-return]

    def _passes_tokens(self) -> bool:
        return "authorization" in (name.lower() for name in lines(self.extra_headers.data))

    def _remote_fields(self) -> dict[str, Any]:
        auth = AuthType(self.auth_type.data)
        fields: dict[str, Any] = {
            "auth_type": AuthType(self.auth_type.data),
            "static_headers": self._values(self.headers),
            "env_vars": self._variables(),
            "extra_headers": lines(self.extra_headers.data),
            # Each of these belongs to one kind of authentication; others do not keep it.
            **dict.fromkeys(() if auth in OAUTH_TYPES else ENDPOINTS),
            "delegate_auth_to_upstream": (
                auth is AuthType.OAUTH2 and self.delegate_auth_to_upstream.data
            ),
            "oauth_passthrough": (
                auth is AuthType.NONE and self._passes_tokens() and self.oauth_passthrough.data
            ),
            **self._auth_fields(auth),
        }
        if self.transport.data == "openapi":
            fields |= {"spec_path": self.spec_path.data} if self.spec_path.data else {}
            return fields | self._address("base_url")
        return fields | {"spec_path": None} | self._address("url")

    def _address(self, name: str) -> dict[str, Any]:
        mode = secret_mode(name)
        return (
            {} if mode == "keep" else {"url": None if mode == "clear" else self[name].data or None}
        )

    def _stdio_fields(self) -> dict[str, Any]:
        fields = {"command": self.command.data or None, "env": self._values(self.env)}
        typed = lines(self.args.data)
        return {**fields, "args": typed} if typed or "version" not in typed_form() else fields

    def _auth_fields(self, auth: AuthType) -> dict[str, Any]:
        if auth.takes_a_key:
            own = self.is_byok.data
            return {
                "is_byok": own,
                "byok_description": lines(self.byok_description.data) if own else [],
                "byok_api_key_help_url": (self.byok_api_key_help_url.data or None) if own else None,
                **({} if own else self._credentials("auth_value")),
            }
        names: tuple[str, ...] = ()
        fields: dict[str, Any] = {"is_byok": False}
        if auth in OAUTH_TYPES:
            names = ("client_id", "client_secret", "scopes")
            fields["oauth2_flow"] = (
                OAuthGrantType(self.oauth2_flow.data) if self.oauth2_flow.data else None
            )
            fields |= self._endpoints()
            if (
                auth is AuthType.OAUTH2
                and self.oauth2_flow.data != OAuthGrantType.CLIENT_CREDENTIALS
            ):
                rules = self.token_validation.data
                fields["token_validation"] = json.loads(rules) if rules else None
        if auth is AuthType.OAUTH2_TOKEN_EXCHANGE:
            names += ("token_exchange_endpoint", "audience", "subject_token_type")
        if auth is AuthType.AWS_SIGV4:
            names = tuple(name for name in self._fields if name.startswith("aws_"))
        return {**fields, **self._credentials(*names)}

    def _endpoints(self) -> dict[str, Any]:
        """Return the submitted URLs, with None for those to clear. Kept URLs are omitted."""
        modes = {name: secret_mode(name) for name in ENDPOINTS}
        cleared = {name: None for name, mode in modes.items() if mode == "clear"}
        return cleared | {
            n: self[n].data for n, mode in modes.items() if mode in ("", "replace") and self[n].data
        }

    def _credentials(self, *names: str) -> dict[str, Any]:
        sent: dict[str, Any] = {}
        for name in names:
            mode = secret_mode(name)
            if mode == "clear":
                sent[name] = None
            elif self[name].data and mode != "keep":
                sent[name] = self[name].data.split() if name == "scopes" else self[name].data
        return {"credentials": sent} if sent else {}

    def _values(self, rows: Any) -> dict[str, Any]:
        return {
            row.form["name"].data: (
                KEPT if secret_mode(f"{row.name}-value") == "keep" else row.form["value"].data or ""
            )
            for row in rows
            if row.form["name"].data
            and not row.form["delete"].data
            and secret_mode(f"{row.name}-value") != "clear"
        }

    def _variables(self) -> list[dict[str, Any]]:
        entries = []
        for row in self.variables:
            name = row.form["name"].data
            is_global = row.form["scope"].data != Scope.USER
            if not name or row.form["delete"].data:
                continue
            mode = secret_mode(f"{row.name}-value")
            kept_or_cleared = {"keep": KEPT, "clear": None}
            value = kept_or_cleared.get(mode, row.form["value"].data or None)
            entry = {"name": name, "scope": "global" if is_global else "user"}
            entries.append(
                {**entry, "description": row.form["description"].data or None, "value": value}
            )
        return entries

    def _groups(self) -> list[str]:
        extra = [self.new_access_group.data] if self.new_access_group.data else []
        return [*(self.access_groups.data or ()), *extra]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not valid JSON")
