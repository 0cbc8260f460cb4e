"""MQTT packets and topics as bytes and text. Pure."""
