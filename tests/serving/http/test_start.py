"""How a service starts: what it imports, and what it leaves until it serves."""

import subprocess
import sys
from pathlib import Path

SLOW = ("sklearn", "faiss", "scipy.optimize", "torch._dynamo", "onnx", "onnxscript")
"""What building graphs, fitting and exporting need, and a service that finds its graphs does not."""


def test_opening_a_bundle_to_serve_imports_nothing_slow(finished: Path):
    code = (
        "import sys, mgoe.serving.http.service, mgoe\n"
        "mgoe.load(sys.argv[1]).model\n"
        f"print(*(name for name in {SLOW} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished / "bundle")], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == []
