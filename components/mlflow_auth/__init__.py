"""MLflow's users, experiments and permissions: a REST client, and the Pulumi resources that are built on it."""
