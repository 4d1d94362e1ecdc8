"""Processes of the portal: gunicorn's web processes, the worker, and embedded mode."""
