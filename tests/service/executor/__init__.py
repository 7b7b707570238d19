"""Tests of the executor on real ports, with a real keys service and real hosts."""
