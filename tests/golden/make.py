"""Write the reduced golden files; only after the parity tests on the published ones have passed.

Run from the root of a checkout that has the shared material beside it: python tests/golden/make.py
"""

import subprocess
import sys
from pathlib import Path

from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from reduced import CASES, FOLDER, answer


def main() -> None:
    """Check parity, then write."""
    tests = sorted({f"tests/test_{case.method}.py" for case in CASES})
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-k", "published", *tests], check=True)
    for case in CASES:
        save_file({"logits": answer(case)}, FOLDER / f"{case.name}.safetensors")
        print(case.name, (FOLDER / f"{case.name}.safetensors").stat().st_size)


if __name__ == "__main__":
    main()
