"""The simulated photometer: its reading is that of the well in its beam, thus depends on the simulated stage's
position."""

import math

from plate_reader import A1_MM, BLANK, COLUMNS, FULL_SIGNAL, PITCH_MM, ROWS, dose_of

from hardware_adapters.simulate import SimulatedInstrument

TRUE_IC50 = dict(zip(ROWS, (0.3, 0.3, 1.0, 1.0, 3.0, 3.0, 10.0, 10.0), strict=True))
"""In µM: four compounds, each in two rows."""

EMPTY, SIGNAL, BEAM_MM = 0.05, 1.2, 1.5


class Photometer(SimulatedInstrument):
    """`READ?` after `INT ms`; without an integration time it does not answer."""

    def __init__(self, name, identity, noise=0.004):
        super().__init__(name, identity)
        self.noise, self.integration_ms = noise, 0.0

    def reset(self):
        self.integration_ms = 0.0

    def answer(self, command):
        if command.startswith("INT "):
            self.integration_ms = float(command[4:])
            return None
        if command == "READ?":
            return f"{self.absorbance():.4f}" if self.integration_ms else "ERR no integration time"
        raise LookupError(command)

    def absorbance(self):
        well = self.well_in_the_beam()
        if well is None or well.endswith(str(BLANK)):
            value = EMPTY
        elif well.endswith(str(FULL_SIGNAL)):
            value = EMPTY + SIGNAL
        else:
            value = EMPTY + SIGNAL / (1 + dose_of(well) / TRUE_IC50[well[0]])
        return value + self.faults.random.gauss(0, self.noise)

    def well_in_the_beam(self):
        """The nearest well, None where the beam falls between wells."""
        x, y = (self.lab("stage.x") - A1_MM[0]) / PITCH_MM, (self.lab("stage.y") - A1_MM[1]) / PITCH_MM
        column, row = round(x), round(y)
        inside = 0 <= column < COLUMNS and 0 <= row < len(ROWS)
        return f"{ROWS[row]}{column + 1}" if inside and math.dist((x, y), (column, row)) * PITCH_MM < BEAM_MM else None
