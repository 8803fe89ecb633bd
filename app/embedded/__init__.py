"""PostgreSQL and an MQTT broker from wheels, for trying out, for tests, and for a single township."""
