"""How to talk to a server, for inputs and outputs alike. Knows neither samples nor batches: bytes in, bytes out."""
