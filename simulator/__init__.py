"""A village that is not there: devices that speak MQTT, people who answer, scenarios that check a running server.

It knows the wire contract (docs, OpenAPI) and nothing of `app/`: an encoder's mistake must not cancel a decoder's.
"""
