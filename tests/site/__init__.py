"""Whether the site that `make docs` has built is whole: ``python -m tests.site build/docs``."""
