"""The server: who gets a connection, what happens on it, and how all of it ends."""

from .handling import Call, Handler
from .health import answering_health
from .middleware import authorized, logged, timed
from .router import Router
from .serve import Server, serve, serve_listener
from .threads import in_threads

__all__ = [
    "Call",
    "Handler",
    "Router",
    "Server",
    "answering_health",
    "authorized",
    "in_threads",
    "logged",
    "serve",
    "serve_listener",
    "timed",
]
