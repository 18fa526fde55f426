# Sourced by the other scripts: goes to the project's folder and makes its virtual environment .venv when it is missing
# or older than requirements.txt. PYTHON chooses the interpreter (3.11 or 3.12).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! cmp -s requirements.txt .venv/installed.txt; then
  python="${PYTHON:-python3}"
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' ||
    { echo "error: $("$python" --version) found, expected Python 3.11 or 3.12; set PYTHON=python3.12" >&2; exit 1; }
  echo "Installing the packages of requirements.txt into .venv (about two minutes, once)"
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  cp requirements.txt .venv/installed.txt
fi
export PATH="$PWD/.venv/bin:$PATH" TF_CPP_MIN_LOG_LEVEL=2
