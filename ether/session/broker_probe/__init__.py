"""What a broker does, found by trying: `probe_broker` collects facts, `judge` says what they mean for Ether."""

from ether.session.broker_probe.finding_rules import judge
from ether.session.broker_probe.findings import BrokerFindings, CapabilityVerdict, Finding
from ether.session.broker_probe.probing import BUDGET_S, probe_broker

__all__ = ["BUDGET_S", "BrokerFindings", "CapabilityVerdict", "Finding", "judge", "probe_broker"]
