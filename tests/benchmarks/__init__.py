"""The benchmark suite: ``make bench``. docs/benchmarks.md says what is measured, how, and what came out.

``__main__`` is the program. It runs ``worker`` processes, a server and a client for each of the
``contenders``, and reads their samples. The worker's side imports little, so that no contender pays for
what only another needs. Nothing here may fail on a time: only ``counted``, which counts system calls and
instructions, has bounds.
"""
