"""The wire: topics, documents, codecs and pure sessions, and the one MQTT shell that runs them."""
