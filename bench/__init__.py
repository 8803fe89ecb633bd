"""Load on real parts: a broker, PostgreSQL with fsync on, the server, and a generator that is not the bottleneck."""
