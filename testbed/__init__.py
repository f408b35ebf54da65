"""What tests, demos and benchmarks stand on: a real InfluxDB 2 server, and wearers who send it ECG. No part of the service."""
