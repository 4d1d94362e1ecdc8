"""For any WSGI server: `gunicorn wsgi:app`."""

import os

from portal.app import create_app
from portal.settings import read_settings

app = create_app(read_settings(os.environ))
