"""The supervisor behind `make up`: Postgres, Redis, MLflow and our processes as children of one small process.

It imports only the standard library and psutil, so that watching costs little memory.
"""
