"""Read a plate, row by row, find each row's IC50, and show the origin of the last one.

On simulated instruments; with --bench on the real ones that lab.yaml names.
"""

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path

from ether import ether

if importlib.util.find_spec("pyvisa") is None:
    sys.exit("This demo's stage is reached by VISA: pip install '.[visa]' in the folder of Ether.")

from plate_reader import BLANK, COLUMNS, FULL_SIGNAL, ROWS

SHADES = " ░▒▓█"
HEAD = "    " + "".join(f"{column:>3}" for column in range(1, COLUMNS + 1))


def main() -> None:
    options = arguments()
    broker = {"engine": options.engine} if options.engine else None
    with ether.tap(Path(__file__).with_name("lab.yaml"), broker=broker, sim=not options.bench):
        fits = read_plate(options.rows, resume=options.resume)
    print("\nrow   IC50 (µM)  slope  from wells")
    for fit in fits:
        found = f"{fit['ic50']:>9.3g}  {fit['slope']:5.2f}" if fit["ic50"] else "        –      –"
        print(f"{fit['row']}     {found}  {fit['wells']}")
    print("\n$ ether why ic50 --last --session plate-reader", flush=True)
    command = [sys.executable, "-m", "ether.cli.main", "why", "ic50", "--last", "--session", "plate-reader"]
    subprocess.run(command, check=True)


def read_plate(rows: str, *, resume: bool) -> list[dict]:
    """One trial for each row: the controls first, then the doses."""
    stage, photometer = ether.instance("stage"), ether.instance("photometer")
    fits = []
    print(HEAD)
    with ether.run("plate", resume=resume) as run, ether.lease("photometer", reason="reading a plate"):
        for trial in run.trials([{"row": row} for row in rows]):
            row, seen = trial.condition["row"], {}
            for column in (FULL_SIGNAL, BLANK, *range(1, FULL_SIGNAL)):
                stage.go_to(well=f"{row}{column}")
                seen[column] = photometer.read()["absorbance"]
            fits.append(ether.get("analysis", "fit", {"row": row}))
            shown = "".join(f"  {shade(seen[column])}" for column in sorted(seen))
            print(f"  {row} {shown}", flush=True)
    return fits


def shade(absorbance: float) -> str:
    return SHADES[min(max(int(absorbance / 1.3 * len(SHADES)), 0), len(SHADES) - 1)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bench", action="store_true", help="the real instruments")
    parser.add_argument("--rows", default=ROWS, help="which rows, such as ABC")
    parser.add_argument("--resume", action="store_true", help="go on with a plate that was broken off")
    parser.add_argument("--engine", choices=["amqtt", "mosquitto"], help="the broker; the best that is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
