"""What `portal doctor` looks at: one function a check, each answering what it found and what to do
about it."""
