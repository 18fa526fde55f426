"""Lets a script run from a checkout that is not installed: puts the project's folder on the import path."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
