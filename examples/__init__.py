"""Two real programs on `trio_ipc`, and a demonstration that runs them both.

`examples.procmond` is a collector of this machine's processes, `examples.agent` asks it and shows what it
says. They use nothing of the library but its public names, and the library must never import them.
"""
