"""A plate reader made of parts: a stage that VISA reaches, a photometer on a serial line, and an analysis.

Ordinary classes: each works without Ether, too. Positions are in mm, doses in µM, absorbance in AU.
"""

import math
import threading
import time

from ether import ether_get, ether_pub, ether_shutdown, ether_sub, ether_sync
from hardware_adapters import Scpi, SerialPort, VisaInstrument

ROWS, COLUMNS = "ABCDEFGH", 12
PITCH_MM, A1_MM = 9.0, (14.4, 11.2)
FULL_SIGNAL, BLANK = 11, 12  # the columns of the controls: no compound, and no enzyme
TOP_DOSE, DILUTION = 100.0, 3.0


def place_of(well: str) -> tuple[float, float]:
    """The centre of a well: x and y in mm."""
    row, column = ROWS.index(well[0]), int(well[1:])
    return A1_MM[0] + PITCH_MM * (column - 1), A1_MM[1] + PITCH_MM * row


def dose_of(well: str) -> float:
    """The compound in a well, in µM: a threefold dilution from column 1 to 10; 0 in the controls."""
    column = int(well[1:])
    return TOP_DOSE / DILUTION ** (column - 1) if column < FULL_SIGNAL else 0.0


class Stage:
    """Moves the plate. Its own error queue refuses a position out of range (`InstrumentError`)."""

    def __init__(self, resource, near_mm=0.05, timeout_s=10.0):
        self.near_mm, self.timeout_s = near_mm, timeout_s
        self.visa = VisaInstrument(resource, name="stage", timeout_s=2.0)
        self.scpi = Scpi(self.visa)

    @ether_get
    @ether_pub(topic="position")
    def go_to(self, well: str) -> dict:
        """Move the well into the beam; returns the stage's position when it is there. Raises TimeoutError."""
        wanted = place_of(well)
        for axis, place in zip("XY", wanted, strict=True):
            self.scpi.do(f"MOVE:{axis} {place}")
        deadline, pause = time.monotonic() + self.timeout_s, threading.Event()
        while math.dist(wanted, here := self.position()) > self.near_mm:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{well} is at {wanted} mm; the stage is at {here} after {self.timeout_s:g} s")
            pause.wait(0.005)
        return {"well": well, "x": here[0], "y": here[1]}

    def position(self) -> tuple[float, float]:
        return self.visa.query_value("POS:X?", float), self.visa.query_value("POS:Y?", float)

    @ether_sync(topic="prepare_trial")
    def prepare(self, row: str):
        return self.go_to(f"{row}1")

    @ether_shutdown
    def close(self):
        self.visa.close()


class Photometer:
    """Reads the well in the beam. Its integration time is restored when it was unplugged and is back."""

    def __init__(self, port, identity, integration_ms=20):
        self.integration_ms, self.well = integration_ms, ""
        self.port = SerialPort(port, name="photometer", identity=identity, timeout_s=2.0, on_connect=self.set_up)

    def set_up(self, port):
        port.write(f"INT {self.integration_ms}")

    @ether_sub(topic="position")
    def arrived(self, well: str):
        self.well = well

    @ether_get
    @ether_pub(topic="absorbance")
    def read(self) -> dict:
        if not self.well:
            raise RuntimeError("no well is in the beam yet: let the stage go to one")
        return {"well": self.well, "absorbance": self.port.query_value("READ?", float)}

    @ether_shutdown
    def close(self):
        self.port.close()


class Analysis:
    """From absorbance to inhibition, and to the dose that halves the signal."""

    def __init__(self):
        self.read: dict[str, float] = {}

    @ether_sub(topic="absorbance")
    def take(self, well: str, absorbance: float):
        self.read[well] = absorbance
        if int(well[1:]) < FULL_SIGNAL and well[0] in self.controlled():
            self.inhibition(well)

    def controlled(self) -> set[str]:
        """The rows whose controls were read."""
        return {row for row in ROWS if {f"{row}{FULL_SIGNAL}", f"{row}{BLANK}"} <= self.read.keys()}

    @ether_pub(topic="inhibition")
    def inhibition(self, well: str) -> dict:
        full, blank = self.read[f"{well[0]}{FULL_SIGNAL}"], self.read[f"{well[0]}{BLANK}"]
        return {"well": well, "dose": dose_of(well), "percent": 100 * (full - self.read[well]) / (full - blank)}

    @ether_get
    @ether_pub(topic="ic50")
    def fit(self, row: str) -> dict:
        """The IC50 of a row in µM and its slope, by a line through the logits; wells near 0 or 100 % are left out."""
        found = [self.inhibition(f"{row}{column}") for column in range(1, FULL_SIGNAL)]
        steep = [one for one in found if 5 < one["percent"] < 95]
        if len(steep) < 2:
            return {"row": row, "ic50": None, "slope": None, "wells": len(steep)}
        x = [math.log10(one["dose"]) for one in steep]
        y = [math.log10(one["percent"] / (100 - one["percent"])) for one in steep]
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
        return {"row": row, "ic50": 10 ** (mean_x - mean_y / slope), "slope": slope, "wells": len(steep)}
