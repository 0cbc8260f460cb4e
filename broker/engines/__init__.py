"""The programs that carry the traffic: amqtt and Mosquitto."""
