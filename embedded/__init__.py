"""Real Kafka and Milvus servers on this machine (`embedded.stack`), and deployments on them (`embedded.deployment`)."""
