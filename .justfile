# What contributors run; see .github/CONTRIBUTING.md. Each line works without `just`, too.

# the tests that need no root and no lab
fast *ARGUMENTS:
    python -m pytest tests/unit tests/smoke tests/*/unit {{ARGUMENTS}}

# what is checked before the tests, and before each commit
check:
    ruff check .
    ruff format --check .
    mypy
    lint-imports

# everything, as the continuous integration does
whole *ARGUMENTS:
    tests/run {{ARGUMENTS}}

# which lines no test runs
coverage *ARGUMENTS:
    tests/coverage {{ARGUMENTS}}
