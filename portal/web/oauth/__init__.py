"""OAuth in the browser: redirects out and back. It only redirects; `services/` own the flows."""
