"""The base class of all forms, and filters for input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flask import g, request
from flask_wtf import FlaskForm
from wtforms import Field

from portal.domain.errors import Conflict, InvalidInput, InvalidRequest


class PortalForm(FlaskForm):
    """A form that shows errors of services at its fields. CSRF is checked before it is created."""

    class Meta:
        csrf = False

    def sent(self) -> bool:
        """Return whether the form was submitted and its fields are valid."""
        return bool(request.method == "POST" and self.validate())

    @contextmanager
    def showing_errors(self) -> Iterator[None]:
        """Show an error of a service at the field it names, or at the top of the form.

        The session is rolled back, so the page with the errors reads the stored state.
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
        """Return the form field that a service's `field` names, or None."""
        return self[name] if name and name in self else None

    @property
    def status(self) -> int:
        """Return 422 if the form has errors, else 200."""
        return 422 if self.errors else 200


def lines(text: str | None) -> list[str]:
    """Return the non-blank lines of a text area."""
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def stripped(text: Any) -> Any:
    """Strip white space around the input of a text field."""
    return text.strip() if isinstance(text, str) else text
