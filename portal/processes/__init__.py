"""What runs the portal: gunicorn's web processes, and everything in one process on a laptop."""
