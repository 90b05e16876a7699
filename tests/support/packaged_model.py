"""The real model of a package, for tests that want it."""

import importlib.util

from raycib.model_files.packaged import PACKAGED

MODEL = PACKAGED["smollm2"]
HERE = all(map(importlib.util.find_spec, (MODEL.module, "gguf")))
