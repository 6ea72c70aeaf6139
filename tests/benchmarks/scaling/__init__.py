"""How costs grow: ``make scale``. docs/scaling.md says what is measured, how, and what came out.

``__main__`` is the program. It runs ``worker`` processes, a server and a client for each contender, and has
them measure one point of a curve after the other. Nothing here may fail on a time.
"""
