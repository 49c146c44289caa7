"""The daemon: gRPC over mutual TLS 1.3 on top of the worker."""
