"""What all forms share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import g, request
from flask_wtf import FlaskForm
from wtforms import Field

from portal.domain.errors import Conflict, InvalidInput, InvalidRequest


class PortalForm(FlaskForm):
    """A form that shows on its fields what the services refuse. CSRF is checked before the form is
    made."""

    class Meta:
        csrf = False

    def sent(self) -> bool:
        """Whether the form was sent and has the right shape."""
        return bool(request.method == "POST" and self.validate())

    @contextmanager
    def showing_errors(self) -> Iterator[None]:
        """Put a refusal from below on the field it names, or on top of the form.

        What was written until then is undone: the page that says so reads what is stored.
        """
        try:
            yield
        except (InvalidInput, InvalidRequest, Conflict) as error:
            g.session.rollback()
            field = self.field_of(error.field)
            if field is None:
                self.form_errors.append(error.message)
            else:
                field.errors = [*field.errors, error.message]

    def field_of(self, name: str | None) -> Field | None:
        """The field that a service's `field` is about."""
        return self[name] if name and name in self else None

    @property
    def status(self) -> int:
        """200 for a form to fill in, 422 for one that came back."""
        return 422 if self.errors else 200


def lines(text: str | None) -> list[str]:
    """The non-blank lines of a text area."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def stripped(text: Any) -> Any:
    """A filter for text fields: no blanks around what was typed."""
    return text.strip() if isinstance(text, str) else text
