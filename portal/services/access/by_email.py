"""Finding users by email."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.emails import email_forms
from portal.store.models import User


def find_by_email(session: Session, email: str) -> User | None:
    """Return the user with this email, in any stored form; current forms come first."""
    forms = email_forms(email)
    found = {
        user.email: user for user in session.scalars(select(User).where(User.email.in_(forms)))
    }
    return next((found[form] for form in forms if form in found), None)
