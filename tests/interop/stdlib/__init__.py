"""A peer with Python's standard library alone: messages.py and peer.py; the rest is for the tests."""
