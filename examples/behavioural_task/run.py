"""Five trials of a go/no-go task while 8 channels are recorded at 1 kHz; then the neural response around each tone.

python run.py [amqtt | mosquitto] [--svg FILE]

Everything below the run is read from the recording, by session and run: it works as well next year.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alignment import AFTER_S, Aligned, around, joined
from picture import drawn

from ether import ether

HERE = Path(__file__).parent


def record(engine: str | None) -> str:
    """Run the experiment; returns the run's id."""
    with ether.tap(HERE / "lab.yaml", broker={"engine": engine} if engine else None):
        task = ether.instance("task")
        with ether.run("go-nogo", animal="simulated") as run:
            for trial in run.planned():
                trial.state.update(task.play())
                window_ends = trial.state["cue_time"] + AFTER_S
                ether.wait_for("physiology", lambda piece, ends=window_ends: piece["until"] >= ends, timeout_s=10)
                print(f"trial {trial.place} of {trial.of}: {told(trial.condition['cue'], trial.state)}")
    return run.id


def told(cue: str, state: dict) -> str:
    """Print the animal's answers."""
    answered = "quiet" if state["reaction_s"] is None else f"lick after {state['reaction_s'] * 1000:.0f} ms"
    right = state["reward"] > 0 if cue == "go" else state["reward"] == 0
    return f"{cue}, {answered}, {'right' if right else 'wrong'}"


def look(run: str) -> dict[str, list[Aligned]]:
    """Read the run back, and print the table; returns the windows by tone."""
    recording = joined(record.value for record in ether.data("behaviour", "physiology", run=run))
    pieces = ether.data("behaviour", "physiology", run=run, trial="all")
    cues = ether.data("behaviour", "task/cue", run=run, trial="all")
    samples = dict.fromkeys((record.trial for record in cues), 0)
    for piece in pieces:
        samples[piece.trial] += len(piece.value["samples"])
    print(f"\nrun {run}: {len(recording.samples):,} samples of {recording.samples.shape[1]} channels at 1,000 Hz,"
          f" {recording.missing} missing")  # fmt: skip
    print("TRIAL  CUE    SAMPLES  IN WINDOW  ONSET      PEAK")
    found: dict[str, list[Aligned]] = {}
    for cue in cues:
        name = {1: "go", 2: "no-go"}[cue.value["tone"]]
        aligned = around(recording, cue.value["time"])
        found.setdefault(name, []).append(aligned)
        onset = "none" if aligned.onset_ms is None else f"{aligned.onset_ms:.0f} ms"
        print(f"{cue.trial:<5}  {name:<5}  {samples[cue.trial]:>7,}  {len(aligned.window):>9,}  {onset:<6} "
              f" {aligned.peak_uv:>5.0f} µV")  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="A behavioural task with aligned physiology.")
    parser.add_argument("engine", nargs="?", choices=["amqtt", "mosquitto"], help="left out: the best that is there")
    parser.add_argument("--svg", type=Path, help="draw the mean response here")
    asked = parser.parse_args()
    found = look(record(asked.engine))
    if asked.svg is not None:
        asked.svg.write_text(drawn(found), encoding="utf-8")
        print(f"the mean response is drawn in {asked.svg}")


if __name__ == "__main__":
    main()
