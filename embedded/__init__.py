"""Real Kafka and Milvus servers on this machine, for the demo and the tests: see `embedded.stack`."""
