#!/usr/bin/env bash
# Sets up, checks style, imports and types, runs the tests; arguments go to pytest, e.g. -m end_to_end tests/test_resume.py
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
ruff check .
lint-imports --no-logo
mypy
# Workers, scripts that tests start and later runs share what XLA has compiled.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/build/compiled}" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0
exec python -m pytest "$@"
