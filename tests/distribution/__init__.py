"""What a release is made of, and where it runs: `make dist`, `make compatibility` and their tests."""
