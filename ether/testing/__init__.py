"""For tests of your own classes: a whole pipeline in one process, in milliseconds, without a broker.

    from ether.testing import Lab

    def test_doubling():
        with Lab({"instances": {"double": {"class_path": "my_lab.Doubler"}}}) as lab:
            lab.pub({"data": 21}, topic="data")
            assert lab.values("result") == [42]

With pytest, the fixture `ether_lab` makes labs and closes them after the test.
"""

from ether.testing.lab import Lab, LabNeverRests

__all__ = ["Lab", "LabNeverRests"]
