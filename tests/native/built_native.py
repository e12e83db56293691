"""A plugin for pytest: the extension in the build folder CORRAL_BUILD, not the one beside the sources."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import corral

(_path,) = (Path(__file__).resolve().parents[2] / os.environ["CORRAL_BUILD"]).glob("_native*.so")
_spec = importlib.util.spec_from_file_location("corral._native", _path)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["corral._native"] = _module
_spec.loader.exec_module(_module)
corral._native = _module
