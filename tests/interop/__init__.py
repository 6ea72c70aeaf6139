"""Peers in other languages, and every server with every client: ``make interop``.

README.md says what the programs do, docs/interop.md what came out.
"""
