"""The one check: format, lint, types, import contracts. `python tests/check.py`; `--fix` mends what can be mended."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "format": ["ruff", "format", "--check", "."],
    "lint": ["ruff", "check", "."],
    "types": ["mypy"],
    "import contracts": ["lint-imports"],
    "house rules": [sys.executable, "tests/house_rules.py"],
}
FIXES = [["ruff", "format", "."], ["ruff", "check", "--fix", "."]]


def run(command: list[str]) -> int:
    """Run a tool of this interpreter's own environment."""
    tool = Path(sys.executable).parent / command[0]
    return subprocess.run([str(tool), *command[1:]], cwd=ROOT, check=False).returncode


def main() -> int:
    """Run every check, also after one has failed; returns 1 where one did."""
    if "--fix" in sys.argv[1:]:
        for command in FIXES:
            run(command)
    failed = [name for name, command in CHECKS.items() if run(command) != 0]
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
