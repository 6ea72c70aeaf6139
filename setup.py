"""What pyproject.toml cannot say: the wheel has the example programs as ``trio_ipc.examples``.

In the tree they stand beside the package, since they are users of it like any other.
"""

from setuptools import find_packages, setup

_EXAMPLES = ["examples", *(f"examples.{name}" for name in find_packages("examples"))]

setup(
    packages=[
        *find_packages(include=["trio_ipc", "trio_ipc.*", "pytest_trio_ipc"]),
        *(f"trio_ipc.{name}" for name in _EXAMPLES),
    ],
    package_dir={f"trio_ipc.{name}": name.replace(".", "/") for name in _EXAMPLES},
)
