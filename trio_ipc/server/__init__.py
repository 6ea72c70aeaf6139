"""The server: who gets a connection, what happens on it, and how all of it ends."""

from .handling import Call, Handler
from .serve import Server, serve, serve_listener
from .threads import in_threads

__all__ = ["Call", "Handler", "Server", "in_threads", "serve", "serve_listener"]
