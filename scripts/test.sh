#!/usr/bin/env bash
# Sets up and runs the tests; arguments go to pytest, e.g. ./scripts/test.sh -m slow tests/test_resume.py
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
exec python -m pytest "$@"
