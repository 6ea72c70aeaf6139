"""The command ``trio-ipc``, extra ``cli``: look into endpoints without a program. docs/cli.md is the guide.

Commands are one a file, in :mod:`.commands`, whose table loads them when they are asked for. Results go to
standard output, talk to standard error. Nothing imports this package, and importing it loads nothing.
"""
