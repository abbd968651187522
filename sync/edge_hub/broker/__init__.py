"""The MQTT broker a hub brings along: who may say what on it, its folder, and its process."""

from edge_hub.broker.folder import BrokerFolder
from edge_hub.broker.process import BrokerProcess
from edge_hub.broker.roles import FEEDER, HUB, Role
from edge_hub.broker.tls import TlsListener

__all__ = ["FEEDER", "HUB", "BrokerFolder", "BrokerProcess", "Role", "TlsListener"]
