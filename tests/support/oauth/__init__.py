"""The tests' OAuth peers that run inside the test process, and the clients and browsers that meet
the portal."""
